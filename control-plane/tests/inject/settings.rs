//! Settings of the mesh that each pod has.

use anyam_control::inject::settings::MeshSettings;
use anyam_control::inject::{Injection, inject};
use serde_json::{Value, json};

use super::{ENABLED, at, token, variable, yaml};

fn injected_with(pod: &Value, settings: &MeshSettings) -> Value {
    match inject(pod, ENABLED, settings, &token()).unwrap() {
        Injection::Injected { pod, .. } => pod,
        Injection::Skipped(skip) => panic!("{skip}"),
    }
}

fn injected(pod: &Value, secrets: &[&str]) -> Value {
    let settings = MeshSettings {
        image_pull_secrets: secrets.iter().map(|&name| name.to_owned()).collect(),
        ..MeshSettings::default()
    };
    injected_with(pod, &settings)
}

/// The sidecar's own default is Kubernetes'.
#[test]
fn another_domain_of_the_cluster_reaches_the_sidecar() {
    let pod = yaml("{spec: {containers: [{name: a}]}}");
    for (domain, expected) in [
        ("cluster.local", None),
        ("k8s.example", Some("k8s.example")),
    ] {
        let settings = MeshSettings {
            cluster_domain: domain.to_owned(),
            ..MeshSettings::default()
        };
        let injected = injected_with(&pod, &settings);
        assert_eq!(variable(&injected, "ANYAM_CLUSTER_DOMAIN"), expected);
    }
}

#[test]
fn secrets_are_added_to_the_pods_own_and_taken_back() {
    let own =
        yaml("{spec: {containers: [{name: a}], imagePullSecrets: [{name: app}, {name: shared}]}}");
    let pod = injected(&own, &["shared", "mesh"]);
    let list = at(&pod, "/spec/imagePullSecrets");
    assert_eq!(
        *list,
        json!([{"name": "app"}, {"name": "shared"}, {"name": "mesh"}])
    );
    // What the pod had stays, also where the mesh names it too.
    let again = injected(&pod, &[]);
    let list = at(&again, "/spec/imagePullSecrets");
    assert_eq!(*list, json!([{"name": "app"}, {"name": "shared"}]));

    let none = yaml("{spec: {containers: [{name: a}]}}");
    let pod = injected(&none, &["mesh"]);
    assert_eq!(
        *at(&pod, "/spec/imagePullSecrets"),
        json!([{"name": "mesh"}])
    );
    assert_eq!(injected(&pod, &["mesh"]).to_string(), pod.to_string());
    assert_eq!(injected(&pod, &[]).pointer("/spec/imagePullSecrets"), None);
    assert_eq!(injected(&none, &[]).pointer("/spec/imagePullSecrets"), None);
}

#[test]
fn a_list_of_another_shape_and_names_that_are_none_are_refused() {
    for (text, place) in [
        ("7", "spec.imagePullSecrets"),
        ("[app]", "spec.imagePullSecrets[0]"),
    ] {
        let pod = yaml(&format!(
            "{{spec: {{containers: [{{name: a}}], imagePullSecrets: {text}}}}}"
        ));
        let error = super::refused(&pod).to_string();
        assert!(error.contains(place), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("injection.yaml");
    std::fs::write(&path, "imagePullSecrets: ['a b']").unwrap();
    let error = MeshSettings::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("imagePullSecrets: \"a b\" is not allowed"),
        "{error}"
    );
    std::fs::write(&path, "clusterDomain: .example").unwrap();
    let error = MeshSettings::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("clusterDomain: \".example\" is not allowed"),
        "{error}"
    );
}
