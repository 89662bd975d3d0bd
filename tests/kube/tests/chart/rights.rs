//! RBAC of the control plane, and the security contexts of its pods.

use std::collections::BTreeSet;
use std::fs;

use anyam_control::source::kubernetes::kinds::WatchedKind;
use anyam_tests_kube::{Helm, HelmVersion};
use serde_json::Value;

use super::{RENDERINGS, of_kind, rendering, tree};

fn helm() -> Helm {
    Helm::new(HelmVersion::V4)
}

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// One line for each resource of each rule, as the table of docs/kubernetes.md has it.
fn rows(role: &Value, place: &str) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let names = words(&rule["resourceNames"]);
        let only = match names.as_slice() {
            [] => String::new(),
            names => format!(" {}", names.join(", ")),
        };
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let group = match group.as_str() {
                    "" => String::new(),
                    group => format!(".{group}"),
                };
                let (plural, sub) = resource.split_once('/').unwrap_or((&resource, ""));
                let sub = match sub {
                    "" => String::new(),
                    sub => format!("/{sub}"),
                };
                rows.insert(format!(
                    "| {place} | `{plural}{group}{sub}`{only} | {} |",
                    words(&rule["verbs"]).join(", ")
                ));
            }
        }
    }
    rows
}

#[test]
fn rights_are_those_of_the_documentation() {
    let objects = rendering(&helm(), None);
    let mut granted = rows(of_kind(&objects, "ClusterRole", "anyam-control"), "all");
    granted.extend(rows(of_kind(&objects, "Role", "anyam-control"), "its own"));
    let elsewhere = of_kind(&objects, "Role", "anyam-control-authentication");
    assert_eq!(elsewhere["metadata"]["namespace"], "kube-system");
    granted.extend(rows(elsewhere, "`kube-system`"));
    let text = fs::read_to_string(tree().join("docs/kubernetes.md")).unwrap();
    let places = ["| all | `", "| its own | `", "| `kube-system` | `"];
    let documented: BTreeSet<String> = text
        .lines()
        .filter(|line| places.iter().any(|place| line.starts_with(place)))
        // The last column has the purpose.
        .map(|line| line.rsplitn(3, '|').last().unwrap().to_owned() + "|")
        .collect();
    assert_eq!(granted, documented);
}

/// Every kind that is watched is granted, and so is its status.
#[test]
fn rights_cover_all_watched_kinds() {
    let objects = rendering(&helm(), None);
    let role = of_kind(&objects, "ClusterRole", "anyam-control");
    let granted = |group: &str, resource: &str, verb: &str| {
        let rules = role["rules"].as_array().unwrap().iter();
        let mut fitting = rules.filter(|rule| {
            words(&rule["apiGroups"]).iter().any(|it| it == group)
                && words(&rule["resources"]).iter().any(|it| it == resource)
                && words(&rule["verbs"]).iter().any(|it| it == verb)
                && rule.get("resourceNames").is_none()
        });
        fitting.next().is_some()
    };
    let definitions = anyam_control::crd::all();
    for kind in WatchedKind::all() {
        for resource in kind.resources() {
            let (group, plural) = (&*resource.group, &*resource.plural);
            for verb in ["list", "watch"] {
                assert!(granted(group, plural, verb), "{verb} {plural}.{group}");
            }
            let ours = definitions.iter().any(|it| it.kind.name() == kind.name());
            if ours {
                let status = format!("{plural}/status");
                assert!(granted(group, &status, "patch"), "patch {status}.{group}");
            }
        }
    }
}

/// Without it nothing is registered, listened on or granted for it.
#[test]
fn the_aggregated_api_can_be_left_out() {
    let text = helm().template(&["--set", "aggregatedApi.enabled=false"]);
    for word in [
        "APIService",
        "inspect.mesh.anyam.dev",
        "--aggregated-listen",
        "15443",
        "subjectaccessreviews",
        "kube-system\n",
    ] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn nothing_is_granted_by_wildcard() {
    for (name, values) in RENDERINGS {
        for object in rendering(&helm(), values) {
            let kind = object["kind"].as_str().unwrap();
            if kind == "ClusterRole" || kind == "Role" {
                super::walk(name, &object["rules"], &mut |at, value| {
                    assert!(value != "*", "{at}")
                });
            }
        }
    }
}

/// Pod Security Standards, restricted.
#[test]
fn pods_are_restricted() {
    for (name, values) in RENDERINGS {
        let objects = rendering(&helm(), values);
        let deployment = of_kind(&objects, "Deployment", "anyam-control");
        let pod = &deployment["spec"]["template"]["spec"];
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(host).is_none(), "{name}: {host}");
        }
        let about = &pod["securityContext"];
        assert_eq!(about["runAsNonRoot"], true, "{name}");
        assert_ne!(about["runAsUser"], 0, "{name}");
        assert_eq!(about["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        let containers = pod["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        for container in containers {
            let about = &container["securityContext"];
            assert_eq!(about["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(about["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(words(&about["capabilities"]["drop"]), ["ALL"], "{name}");
            for (what, of) in [
                ("requests", "cpu"),
                ("requests", "memory"),
                ("limits", "memory"),
            ] {
                assert!(
                    !container["resources"][what][of].is_null(),
                    "{name}: {what} {of}"
                );
            }
        }
        for volume in pod["volumes"].as_array().unwrap() {
            assert!(volume.get("hostPath").is_none(), "{name}: {volume}");
        }
    }
}
