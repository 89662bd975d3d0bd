//! Manifests and what `anyam inject` makes of them: `golden/<case>.in.yaml`, `golden/<case>.out.yaml`.
//! `UPDATE_GOLDEN=1` writes the latter anew; read the difference before you keep it.

use std::fs;
use std::path::{Path, PathBuf};

use anyam_control::inject::hook_token::HookTokens;
use anyam_control::inject::manifest::inject_object;
use anyam_control::inject::settings::MeshSettings;
use serde_json::{Value, json};

use super::tokens;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".in.yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 5, "{cases:?}");
    cases
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let documents = xds_proto::yaml::documents(&text);
    documents
        .map(|document| document.unwrap().to_json_as_kubectl())
        .collect()
}

#[test]
fn manifests_become_what_is_written_down() {
    // The tag of the image is this version: it is not written into every file.
    let mut settings = MeshSettings::default();
    settings.proxy.image = "registry.example/anyam/proxy:1".into();
    for case in cases() {
        let mut outcomes = Vec::new();
        let injected: Vec<Value> = documents(&case)
            .into_iter()
            .map(|object| {
                inject_object(object, "default", &settings, &tokens(), &mut outcomes).unwrap()
            })
            .collect();
        let outcomes: String = outcomes
            .iter()
            .map(|outcome| format!("# {}: {:?}\n", outcome.object, outcome.what))
            .collect();
        let written: Vec<String> = injected.iter().map(xds_proto::yaml::write).collect();
        let text = format!("{outcomes}{}", written.join("---\n"));
        let path = PathBuf::from(case.to_string_lossy().replace(".in.yaml", ".out.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(text == expected, "{}: is now\n{text}", path.display());
        // What is printed can be read again, as the same.
        assert_eq!(documents(&path), injected, "{}", path.display());
    }
}

#[test]
fn what_was_injected_is_injected_to_the_same() {
    let mut settings = MeshSettings::default();
    settings.proxy.image = "registry.example/anyam/proxy:1".into();
    for case in cases() {
        let out = PathBuf::from(case.to_string_lossy().replace(".in.yaml", ".out.yaml"));
        for object in documents(&out) {
            let others = HookTokens::Random;
            let given = object.clone();
            let again = inject_object(given, "default", &settings, &others, &mut Vec::new());
            assert_eq!(again.unwrap(), object, "{}", out.display());
        }
    }
}

#[test]
fn every_kind_that_has_a_pod_is_injected() {
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "a"}]}});
    for (version, kind, path) in [
        ("v1", "Pod", ""),
        ("v1", "ReplicationController", "/spec/template"),
        ("v1", "PodTemplate", "/template"),
        ("apps/v1", "Deployment", "/spec/template"),
        ("apps/v1", "StatefulSet", "/spec/template"),
        ("apps/v1", "DaemonSet", "/spec/template"),
        ("apps/v1", "ReplicaSet", "/spec/template"),
        ("batch/v1", "Job", "/spec/template"),
        ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template"),
    ] {
        let fields = path.rsplit('/').filter(|field| !field.is_empty());
        let mut object = fields.fold(pod.clone(), |within, field| json!({field: within}));
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        object["metadata"] = json!({"name": "a"});
        let settings = MeshSettings::default();
        let mut outcomes = Vec::new();
        let injected =
            inject_object(object, "default", &settings, &tokens(), &mut outcomes).unwrap();
        let found = injected.pointer(&format!("{path}/spec/initContainers/0/name"));
        assert_eq!(found, Some(&json!("anyam-init")), "{kind}");
    }
}
