use std::path::Path;

use anyam_tests_kube::{ApiServer, Helm, Kubectl};
use serde_json::Value;
use xds_proto::yaml;

/// Manifests that the control plane's parser is tested with.
const ACCEPTED: &str = include_str!("../../../../control-plane/tests/crds/accepted.yaml");
const REFUSED: &str = include_str!("../../../../control-plane/tests/crds/refused.yaml");
const KEPT: &str = include_str!("../../../../control-plane/tests/crds/kept.yaml");

fn with_definitions() -> ApiServer {
    let server = ApiServer::start();
    let folder = Helm::chart().join("files/crds");
    install(&server, &folder);
    server.kubectl(&["create", "namespace", "shop"]);
    server
}

fn install(server: &ApiServer, folder: &Path) {
    let folder = folder.to_string_lossy();
    let applied = server.try_kubectl(&["apply", "--server-side", "-f", &folder]);
    assert_eq!(applied.status, Some(0), "{applied:?}");
    // The API server warns of keywords that it ignores, such as unknown formats.
    assert_eq!(applied.stderr, "");
    let established = "--for=condition=Established";
    server.kubectl(&["wait", established, "--timeout=30s", "-f", &folder]);
}

#[test]
fn valid_objects_are_accepted_and_invalid_ones_rejected() {
    let server = with_definitions();
    let applied = server.try_kubectl_with(ACCEPTED, &["apply", "-f", "-"]);
    assert_eq!(applied.status, Some(0), "{applied:?}");
    assert_eq!(applied.stderr, "");
    let mut taken = Vec::new();
    for document in REFUSED.split("\n---\n") {
        let dry = ["create", "--dry-run=server", "-f", "-"];
        if server.try_kubectl_with(document, &dry).status == Some(0) {
            taken.push(document);
        }
    }
    assert!(taken.is_empty(), "{}", taken.join("\n"));
}

/// A pruned field would be one that nothing refuses, whatever it was to narrow.
#[test]
fn unknown_fields_of_policies_are_kept_for_clients_without_strict_validation() {
    let server = with_definitions();
    for validate in ["--validate=false", "--validate=strict"] {
        for document in KEPT.split("\n---\n") {
            let create = ["create", validate, "--output=json", "-f", "-"];
            let stored = server.kubectl_with(document, &create);
            let stored: Value = serde_json::from_str(&stored).unwrap();
            let sent = yaml::documents(document).next().unwrap().unwrap().to_json();
            assert_eq!(stored["spec"], sent["spec"], "{document}");
            assert_eq!(stored["targetRefs"], sent["targetRefs"], "{document}");
            server.kubectl_with(document, &["delete", "-f", "-"]);
        }
    }
}

#[test]
fn messages_of_rejections_name_the_remedy() {
    let server = with_definitions();
    for (kind, spec, message) in [
        (
            "AuthorizationPolicy",
            "{action: Deny}",
            "rules is required for Deny and Audit; `[{}]` matches everything",
        ),
        (
            "AuthorizationPolicy",
            "{rules: [{from: [{}]}]}",
            "spec.rules[0].from[0]: Invalid value",
        ),
        (
            "Workload",
            "{addresses: [10.0.0.1], prots: [80]}",
            "unknown field \"spec.prots\"",
        ),
    ] {
        let manifest = format!(
            "{{apiVersion: mesh.anyam.dev/v1alpha1, kind: {kind}, metadata: {{name: a, namespace: shop}}, spec: {spec}}}"
        );
        let output = server.try_kubectl_with(&manifest, &["create", "-f", "-"]);
        assert!(output.stderr.contains(message), "{spec}: {output:?}");
    }
}

#[test]
fn kubectl_prints_columns_and_conditions() {
    let server = with_definitions();
    server.kubectl_with(ACCEPTED, &["apply", "-f", "-"]);
    let all = server.kubectl(&["--namespace", "shop", "get", "anyam", "-o", "name"]);
    for one in [
        "authorizationpolicy.mesh.anyam.dev/all-fields",
        "backendpolicy.mesh.anyam.dev/all-fields",
        "meshpolicy.mesh.anyam.dev/all-fields",
        "workload.mesh.anyam.dev/all-fields",
    ] {
        assert!(all.lines().any(|line| line == one), "{all}");
    }
    // Written by the control plane, apart from the spec.
    let condition = r#"{"status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}]}}"#;
    let patch = [
        "patch",
        "aap/all-fields",
        "--subresource=status",
        "--type=merge",
        "-p",
        condition,
    ];
    let mut in_shop = vec!["--namespace", "shop"];
    in_shop.extend(patch);
    server.kubectl(&in_shop);
    let table = |short| {
        let text = server.kubectl(&["--namespace", "shop", "get", short]);
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut lines = text.lines();
        let head = words(lines.next().unwrap());
        let row = lines.find(|line| line.starts_with("all-fields ")).unwrap();
        (head, words(row))
    };
    let (head, row) = table("aap");
    assert_eq!(
        head,
        ["NAME", "TARGETS", "SELECTOR", "ACTION", "ACCEPTED", "AGE"]
    );
    // It has no selector.
    assert_eq!(row[2..4], ["Deny", "True"]);
    let (head, row) = table("awl");
    assert_eq!(head, ["NAME", "ADDRESSES", "ACCOUNT", "ACCEPTED", "AGE"]);
    assert_eq!(row[2], "web.frontend");
    let (head, row) = table("amp");
    assert_eq!(
        head,
        [
            "NAME", "TARGETS", "SELECTOR", "MTLS", "EGRESS", "ACCEPTED", "AGE"
        ]
    );
    assert_eq!(row[2..4], ["Strict", "Block"]);
    let (head, row) = table("abp");
    assert_eq!(head, ["NAME", "TARGETS", "BALANCER", "ACCEPTED", "AGE"]);
    assert_eq!(row[2], "RoundRobin");

    let explained = server.kubectl(&["explain", "meshpolicy.spec.mtls.mode"]);
    assert!(
        explained.contains("Strict: Plaintext is refused."),
        "{explained}"
    );
}
