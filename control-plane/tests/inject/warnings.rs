//! What will not work as expected, and is injected all the same: a warning says so.

use anyam_control::inject::settings::MeshSettings;
use anyam_control::inject::{Injection, inject};
use serde_json::{Value, json};

use super::{ENABLED, injected, token, yaml};

fn pod() -> Value {
    yaml("{metadata: {name: web}, spec: {containers: [{name: web, image: web}]}}")
}

#[test]
fn a_job_with_a_classic_sidecar_gets_a_warning() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"mesh.anyam.dev/sidecar": "classic"});
    pod["spec"]["restartPolicy"] = "Never".into();
    let (_, warnings) = injected(&pod);
    assert!(
        warnings[0].contains("mesh.anyam.dev/sidecar: native"),
        "{warnings:?}"
    );
}

#[test]
fn callers_that_a_range_keeps_from_the_sidecar_are_named_in_a_warning() {
    for name in ["include-inbound-cidrs", "exclude-inbound-cidrs"] {
        let mut pod = pod();
        let name = format!("mesh.anyam.dev/{name}");
        pod["metadata"]["annotations"] = json!({name.clone(): "10.0.0.0/8"});
        let (_, warnings) = injected(&pod);
        let [warning] = &warnings[..] else {
            panic!("{name}: {warnings:?}");
        };
        assert!(warning.contains("plaintext"), "{warning}");
        assert!(warning.len() <= 256, "{warning}");
    }
    assert_eq!(injected(&pod()).1, [""; 0]);
}

/// Its sidecar would wait for the control plane, and the pod for its sidecar.
#[test]
fn a_pod_whose_dns_may_not_know_the_control_plane_gets_a_warning() {
    let warnings = |policy: &str, settings: &MeshSettings| {
        let mut pod = pod();
        pod["spec"]["dnsPolicy"] = policy.into();
        match inject(&pod, ENABLED, settings, &token()).unwrap() {
            Injection::Injected { warnings, .. } => warnings,
            Injection::Skipped(skip) => panic!("{skip}"),
        }
    };
    let by_name = MeshSettings::default();
    for policy in ["Default", "None"] {
        let [warning] = &warnings(policy, &by_name)[..] else {
            panic!("{policy}");
        };
        for part in [policy, "anyam-control.anyam-system.svc:15012", "dnsConfig"] {
            assert!(warning.contains(part), "{warning}");
        }
        // The API server cuts longer ones off.
        assert!(warning.len() <= 256, "{warning}");
    }
    for policy in ["ClusterFirst", "ClusterFirstWithHostNet"] {
        assert_eq!(warnings(policy, &by_name), [""; 0], "{policy}");
    }
    let by_address = MeshSettings {
        control_plane: "10.0.0.1:15012".to_owned(),
        ..MeshSettings::default()
    };
    assert_eq!(warnings("Default", &by_address), [""; 0]);
}
