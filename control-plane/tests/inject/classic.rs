//! Classic sidecars: containers beside the app's.

use serde_json::json;

use super::rules::annotated;
use super::{at, injected, named, variable, yaml};

#[test]
fn a_classic_sidecar_is_ready_before_the_app_starts_and_stays_until_it_ends() {
    let mut pod = annotated("mesh.anyam.dev/sidecar", "classic");
    pod["spec"]["containers"][0]["lifecycle"] = yaml("{postStart: {httpGet: {port: 80}}}");
    let (classic, _) = injected(&pod);
    // The kubelet starts them in order, and the next one after the hook has ended.
    let sidecar = at(&classic, "/spec/containers/0");
    assert_eq!(sidecar["name"], "anyam-proxy");
    assert_eq!(
        sidecar["lifecycle"],
        json!({"postStart": {"exec": {"command": ["anyam-proxy", "wait"]}}})
    );
    assert_eq!(variable(&classic, "ANYAM_WAIT_FOR_APP"), Some("true"));
    let default = "kubectl.kubernetes.io/default-container";
    assert_eq!(classic["metadata"]["annotations"][default], "web");
    assert_eq!(
        at(
            &classic,
            "/spec/containers/1/lifecycle/postStart/httpGet/port"
        ),
        15020
    );

    // A choice of the pod's own stays; a native sidecar needs none of this. The kubelet sends it SIGTERM
    // only after the app's containers have ended, so a preStop hook begins its drain.
    pod["metadata"]["annotations"][default] = "other".into();
    assert_eq!(
        injected(&pod).0["metadata"]["annotations"][default],
        "other"
    );
    let mut again = classic;
    again["metadata"]["annotations"]["mesh.anyam.dev/sidecar"] = "native".into();
    let (native, _) = injected(&again);
    let sidecar = at(&native, "/spec/initContainers/1");
    assert_eq!(
        (&sidecar["name"], &sidecar["lifecycle"]),
        (
            &json!("anyam-proxy"),
            &json!({"preStop": {"exec": {"command": ["anyam-proxy", "drain"]}}})
        )
    );
    assert_eq!(variable(&native, "ANYAM_WAIT_FOR_APP"), None);
    assert_eq!(native["metadata"]["annotations"].get(default), None);
}

/// Otherwise none of them would become ready, and the pod would not start.
#[test]
fn probes_of_init_containers_do_not_wait_for_a_classic_sidecar() {
    let spec = yaml(
        "{initContainers: [{name: db, restartPolicy: Always, startupProbe: {tcpSocket: {port: 5432}}, \
         livenessProbe: {exec: {command: [alive]}}}], \
         containers: [{name: a, livenessProbe: {tcpSocket: {port: 80}}}]}",
    );
    let pod = |sidecar: &str| {
        let annotations = json!({"mesh.anyam.dev/sidecar": sidecar});
        json!({"metadata": {"annotations": annotations}, "spec": spec})
    };
    let (classic, warnings) = injected(&pod("classic"));
    let db = named(at(&classic, "/spec/initContainers"), "db");
    assert_eq!(db["startupProbe"], json!({"tcpSocket": {"port": 5432}}));
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains("db/startupz") && warning.contains("classic"),
        "{warning}"
    );
    let app = named(at(&classic, "/spec/containers"), "a");
    assert_eq!(app["livenessProbe"]["httpGet"]["port"], 15020);

    let (native, warnings) = injected(&pod("native"));
    assert_eq!(warnings, [""; 0]);
    let db = named(at(&native, "/spec/initContainers"), "db");
    assert_eq!(
        db["startupProbe"]["httpGet"]["path"],
        "/app-health/db/startupz"
    );
}
