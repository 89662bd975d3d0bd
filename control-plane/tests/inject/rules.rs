//! Which pods are injected, and which are refused.

use anyam_control::inject::annotations::ALL;
use anyam_control::inject::settings::MeshSettings;
use anyam_control::inject::{Injection, NamespaceFacts, Skip, inject};
use serde_json::{Value, json};

use super::{at, injected, named, refused, token, variable, yaml};

fn pod() -> Value {
    yaml("{metadata: {name: web}, spec: {containers: [{name: web, image: web}]}}")
}

pub(super) fn annotated(name: &str, value: &str) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({name: value});
    pod
}

#[test]
fn a_pods_own_choice_takes_precedence_over_its_namespace() {
    let settings = MeshSettings::default();
    let cases = [
        // namespace, label, annotation, injected
        (false, None, None, false),
        (true, None, None, true),
        (false, Some("enabled"), None, true),
        (false, None, Some("enabled"), true),
        (true, Some("disabled"), None, false),
        (true, None, Some("disabled"), false),
        (false, Some("enabled"), Some("enabled"), true),
    ];
    for (enabled, label, annotation, expected) in cases {
        let mut pod = pod();
        if let Some(label) = label {
            pod["metadata"]["labels"] = json!({"mesh.anyam.dev/inject": label});
        }
        if let Some(annotation) = annotation {
            pod["metadata"]["annotations"] = json!({"mesh.anyam.dev/inject": annotation});
        }
        let namespace = NamespaceFacts {
            name: "shop",
            enabled,
        };
        let found = inject(&pod, namespace, &settings, &token()).unwrap();
        let is_injected = matches!(found, Injection::Injected { .. });
        assert_eq!(is_injected, expected, "{enabled} {label:?} {annotation:?}");
    }
}

/// Its containers run already: a patch of the mirror would only pretend a sidecar.
#[test]
fn the_mirror_of_a_static_pod_stays_as_it_is() {
    let mirror = annotated("kubernetes.io/config.mirror", "5d4f8c7b9");
    let found = inject(&mirror, super::ENABLED, &MeshSettings::default(), &token());
    assert!(
        matches!(found, Ok(Injection::Skipped(Skip::Mirror))),
        "{found:?}"
    );
}

#[test]
fn contradictions_and_other_values_are_refused() {
    let mut both = annotated("mesh.anyam.dev/inject", "enabled");
    both["metadata"]["labels"] = json!({"mesh.anyam.dev/inject": "disabled"});
    assert!(refused(&both).to_string().contains("contradict"));
    let error = refused(&annotated("mesh.anyam.dev/inject", "true")).to_string();
    assert!(error.contains("mesh.anyam.dev/inject") && error.contains("enabled or disabled"));
}

#[test]
fn a_refusal_names_the_annotation_and_what_is_allowed() {
    for annotation in &ALL {
        let error = refused(&annotated(annotation.name, "no such value")).to_string();
        assert!(error.contains(annotation.name), "{error}");
        assert!(error.contains(annotation.allowed), "{error}");
        assert!(error.contains("no such value"), "{error}");
    }
    let error = refused(&annotated("mesh.anyam.dev/exclude-ports", "80")).to_string();
    assert!(error.contains("mesh.anyam.dev/exclude-ports"), "{error}");
    assert!(
        error.contains("mesh.anyam.dev/exclude-outbound-ports"),
        "{error}"
    );
    // Annotations of other groups are not checked.
    injected(&annotated("example.com/exclude-ports", "x"));
}

/// What `anyam-proxy redirect` or the sidecar itself would refuse, once the pod runs.
#[test]
fn ranges_and_names_that_the_containers_refuse_are_refused_before() {
    let error = refused(&annotated(
        "mesh.anyam.dev/exclude-outbound-cidrs",
        "10.1.2.3/8",
    ));
    assert!(
        error.to_string().contains("did you mean 10.0.0.0/8?"),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("injection.yaml");
    for (text, part) in [
        (
            "meshCidrs: [10.0.0.1]",
            "meshCidrs: \"10.0.0.1\" is not allowed; write ranges with a prefix length, as in 10.0.0.0/8; did you mean 10.0.0.1/32?",
        ),
        ("meshCidrs: [10.1.2.3/8]", "did you mean 10.0.0.0/8?"),
        (
            "proxy: {redirect: {excludeInboundCidrs: [fd00::1/64]}}",
            "did you mean fd00::/64?",
        ),
        (
            "proxy: {redirect: {exemptUids: ['-1']}}",
            "\"-1\" is not allowed; write ids from 0",
        ),
        (
            "proxy: {redirect: {excludeInterfaces: [lo]}}",
            "\"lo\" is not allowed; write interfaces but lo",
        ),
        (
            "trustDomain: Mesh.Example",
            "trustDomain: \"Mesh.Example\" is not allowed; write a name of a-z",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = MeshSettings::read(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    for text in [
        "meshCidrs: [10.0.0.1/32, fd00::/8]",
        "proxy: {redirect: {exemptGids: ['0'], excludeInterfaces: ['docker*'], ipv6: false}}",
        "trustDomain: mesh_1.example-x",
        "clusterDomain: k8s.example",
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(MeshSettings::read(&path).is_ok(), "{text}");
    }
}

#[test]
fn a_request_above_its_limit_is_refused() {
    let error = refused(&annotated("mesh.anyam.dev/proxy-memory-request", "1Gi")).to_string();
    for part in ["1Gi", "256Mi", "mesh.anyam.dev/proxy-memory-limit"] {
        assert!(error.contains(part), "{error}");
    }
    let mut both = annotated("mesh.anyam.dev/proxy-memory-request", "1Gi");
    both["metadata"]["annotations"]["mesh.anyam.dev/proxy-memory-limit"] = "1024Mi".into();
    injected(&both);
}

#[test]
fn what_would_bypass_or_break_the_sidecar_is_refused() {
    for (text, part) in [
        ("{containers: [{name: anyam-proxy}]}", "anyam-proxy"),
        (
            "{initContainers: [{name: anyam-init}], containers: [{name: a}]}",
            "anyam-init",
        ),
        (
            "{containers: [{name: a}], volumes: [{name: anyam-identity}]}",
            "anyam-identity",
        ),
        (
            "{containers: [{name: a, securityContext: {runAsUser: 1337}}]}",
            "1337",
        ),
        (
            "{containers: [{name: a}], securityContext: {runAsUser: 1337}}",
            "1337",
        ),
        ("{containers: []}", "at least one container"),
        ("{containers: {}}", "spec.containers"),
        ("{containers: [{image: a}]}", "spec.containers[0]"),
        (
            "{containers: [{name: a}], initContainers: [1]}",
            "spec.initContainers[0]",
        ),
        ("{containers: [{name: a}], volumes: 7}", "spec.volumes"),
    ] {
        let error = refused(&json!({"spec": yaml(text)})).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    for pod in [
        json!(null),
        json!({}),
        json!({"spec": 1}),
        json!({"metadata": [], "spec": {}}),
    ] {
        refused(&pod);
    }
    let mut number = pod();
    number["metadata"]["annotations"] = json!({"mesh.anyam.dev/drain-seconds": 9});
    assert!(refused(&number).to_string().contains("quotes"));
}

#[test]
fn a_damaged_status_is_refused() {
    for damaged in ["", "7", "{}", r#"{"probes": {}, "annotations": []}"#] {
        let error = refused(&annotated("mesh.anyam.dev/status", damaged)).to_string();
        assert!(error.contains("mesh.anyam.dev/status"), "{error}");
    }
}

#[test]
fn only_the_init_container_has_capabilities() {
    let (pod, _) = injected(&pod());
    let list = at(&pod, "/spec/initContainers");
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["anyam-init", "anyam-proxy"]);
    let (init, sidecar) = (named(list, "anyam-init"), named(list, "anyam-proxy"));
    let added = |container: &Value| container["securityContext"]["capabilities"]["add"].clone();
    assert_eq!(added(init), json!(["NET_ADMIN"]));
    assert_eq!(added(sidecar), Value::Null);
    assert_eq!(sidecar["securityContext"]["runAsUser"], 1337);
    assert_eq!(sidecar["securityContext"]["runAsNonRoot"], true);
    for container in [init, sidecar] {
        let context = &container["securityContext"];
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}));
        assert!(container["resources"]["limits"]["memory"].is_string());
    }
}

#[test]
fn probes_that_cannot_be_performed_stay_and_a_warning_names_them() {
    let text = "{containers: [{name: a, livenessProbe: {httpGet: {port: http}}, readinessProbe: {tcpSocket: {port: '8080'}}}]}";
    let (pod, warnings) = injected(&json!({"spec": yaml(text)}));
    assert_eq!(
        at(&pod, "/spec/containers/0/livenessProbe/httpGet/port"),
        "http"
    );
    assert_eq!(
        at(&pod, "/spec/containers/0/readinessProbe/httpGet/port"),
        15020
    );
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains("a/livez") && warning.contains("\"http\""),
        "{warning}"
    );
    let probes: Value = serde_json::from_str(variable(&pod, "ANYAM_APP_PROBES").unwrap()).unwrap();
    let expected = json!([{"name": "a/readyz", "tcpSocket": {"port": 8080}, "timeoutSeconds": 1}]);
    assert_eq!(probes, expected);
}

#[test]
fn metrics_are_merged_where_their_port_is_clear() {
    let scraped = |ports: &str| {
        let mut pod = annotated("prometheus.io/scrape", "true");
        pod["spec"]["containers"][0]["ports"] = yaml(ports);
        injected(&pod)
    };
    let (pod, warnings) = scraped("[{containerPort: 8080}, {containerPort: 53, protocol: UDP}]");
    assert_eq!(warnings, [""; 0]);
    assert_eq!(
        at(&pod, "/metadata/annotations/prometheus.io~1port"),
        "15020"
    );
    assert_eq!(
        variable(&pod, "ANYAM_APP_METRICS"),
        Some(r#"{"port":8080}"#)
    );
    for unclear in ["[]", "[{containerPort: 1}, {containerPort: 2}]"] {
        let (pod, warnings) = scraped(unclear);
        assert!(warnings[0].contains("prometheus.io/port"), "{warnings:?}");
        assert_eq!(variable(&pod, "ANYAM_APP_METRICS"), None);
        assert_eq!(
            pod.pointer("/metadata/annotations/prometheus.io~1port"),
            None
        );
    }
}

#[test]
fn changes_by_hand_since_injection_are_kept() {
    let text = "{metadata: {annotations: {prometheus.io/scrape: 'true', prometheus.io/port: '9'}}, \
                spec: {containers: [{name: a, livenessProbe: {httpGet: {port: 8080}}}]}}";
    let (mut pod, _) = injected(&yaml(text));
    pod["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 1}});
    pod["metadata"]["annotations"]["prometheus.io/port"] = "7".into();
    let (again, _) = injected(&pod);
    let probes = variable(&again, "ANYAM_APP_PROBES").unwrap();
    assert!(probes.contains(r#""tcpSocket":{"port":1}"#), "{probes}");
    assert_eq!(variable(&again, "ANYAM_APP_METRICS"), Some(r#"{"port":7}"#));
}

/// The path is all that a peer would need.
#[test]
fn the_path_of_a_hook_ends_in_a_token() {
    let text = "{containers: [{name: a, livenessProbe: {httpGet: {port: 80}}, lifecycle: \
                {preStop: {httpGet: {port: 80}}, postStart: {httpGet: {port: 80}}}}]}";
    let (pod, warnings) = injected(&json!({"spec": yaml(text)}));
    assert_eq!(warnings, [""; 0]);
    let path = |handler: &str| {
        let path = at(&pod, &format!("/spec/containers/0/{handler}/httpGet/path"));
        path.as_str().unwrap().to_owned()
    };
    assert_eq!(path("livenessProbe"), "/app-health/a/livez");
    let probes: Value = serde_json::from_str(variable(&pod, "ANYAM_APP_PROBES").unwrap()).unwrap();
    assert_eq!(named(&probes, "a/livez").get("hookToken"), None);
    for (hook, name) in [("preStop", "a/prestop"), ("postStart", "a/poststart")] {
        let token = named(&probes, name)["hookToken"].as_str().unwrap();
        // 128 bits.
        assert_eq!(token.len(), 22);
        assert_eq!(
            path(&format!("lifecycle/{hook}")),
            format!("/app-health/{name}/{token}")
        );
    }
    // What has no hook has no token.
    let (pod, _) = injected(&json!({"spec": yaml("{containers: [{name: a}]}")}));
    assert!(!pod.to_string().contains("hookToken"));
}
