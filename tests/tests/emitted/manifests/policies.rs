//! AuthorizationPolicies, MeshPolicies and BackendPolicies.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{Made, flag, header_name, list, name, namespace, number, one_of, some, span, with};

fn target() -> BoxedStrategy<Value> {
    name()
        .prop_map(|name| json!({"group": "", "kind": "Service", "name": name}))
        .boxed()
}

pub fn authorization() -> impl Strategy<Value = Made> {
    let principal = || {
        one_of(&[
            "anyam.local/ns/a/sa/front",
            "*/sa/cart",
            "anyam.local/*",
            "*",
        ])
    };
    let place = || one_of(&["a", "b*", "*"]);
    let block = || one_of(&["10.0.0.0/8", "fd00::/8", "10.1.2.3"]);
    let from = Strategy::prop_filter(
        with(vec![
            ("principals", some(principal(), 2)),
            ("notPrincipals", some(principal(), 2)),
            ("namespaces", some(place(), 2)),
            ("notNamespaces", some(place(), 2)),
            ("ipBlocks", some(block(), 2)),
            ("notIpBlocks", some(block(), 2)),
        ]),
        "an empty source means nothing",
        |source| source != &json!({}),
    );
    let word = || one_of(&["GET", "P*", "*", "*.example"]);
    let path = || one_of(&["/a", "/a/*", "*.html", "*"]);
    let port = || number(1..65_535);
    let header = (header_name(), some(word(), 2), any::<bool>()).prop_map(|(name, values, not)| {
        let field = if not { "notValues" } else { "values" };
        json!({"name": name, field: values})
    });
    let to = Strategy::prop_filter(
        with(vec![
            ("ports", some(port(), 2)),
            ("notPorts", some(port(), 2)),
            ("methods", some(word(), 2)),
            ("notMethods", some(word(), 2)),
            ("paths", some(path(), 2)),
            ("notPaths", some(path(), 2)),
            ("hosts", some(word(), 2)),
            ("notHosts", some(word(), 2)),
            ("headers", some(header.boxed(), 2)),
        ]),
        "an empty operation means nothing",
        |operation| operation != &json!({}),
    );
    let rule = with(vec![
        ("from", list(from.boxed(), 2)),
        ("to", list(to.boxed(), 2)),
    ]);
    let action = one_of(&["Allow", "Deny", "Audit"]);
    (namespace(), action, some(rule, 3), option::of(target())).prop_map(
        |(namespace, action, rules, target)| {
            let mut spec = json!({"action": action, "rules": rules});
            if let Some(target) = target {
                spec["targetRefs"] = json!([target]);
            }
            (
                "mesh.anyam.dev/v1alpha1",
                "AuthorizationPolicy",
                namespace,
                spec,
            )
        },
    )
}

fn outlier() -> BoxedStrategy<Value> {
    with(vec![
        ("consecutiveErrors", number(0..10)),
        ("consecutiveGatewayErrors", number(0..10)),
        ("interval", span()),
        ("baseEjection", span()),
        ("maxEjectionPercent", number(0..101)),
    ])
}

fn retry() -> BoxedStrategy<Value> {
    with(vec![
        ("attempts", number(0..11)),
        ("backoff", span()),
        ("perTryTimeout", span()),
        ("codes", list(number(400..600), 3)),
    ])
}

pub fn mesh_policy() -> impl Strategy<Value = Made> {
    let mode = || one_of(&["Strict", "Permissive", "Disabled"]);
    let spec = with(vec![
        ("mtls", with(vec![("mode", mode())])),
        (
            "egress",
            one_of(&["Allow", "Block"])
                .prop_map(|mode| json!({"mode": mode}))
                .boxed(),
        ),
        (
            "defaults",
            with(vec![
                ("connectTimeout", span()),
                ("requestTimeout", span()),
                ("retry", retry()),
                ("outlierDetection", outlier()),
            ]),
        ),
        (
            "accessLog",
            one_of(&["Text", "Json", "Off"])
                .prop_map(|format| json!({"format": format}))
                .boxed(),
        ),
        (
            "pathNormalization",
            one_of(&["Reject", "Keep", "Unescape"])
                .prop_map(|action| json!({"escapedSlashes": action}))
                .boxed(),
        ),
    ]);
    let namespace = select(&["a", "b", "anyam-system"][..]);
    let ports = option::of(mode());
    (namespace, spec, ports).prop_map(|(namespace, mut spec, at_port)| {
        if let Some(mode) = at_port {
            let target =
                json!({"group": "mesh.anyam.dev", "kind": "Workload", "name": "workload-0"});
            spec["targetRefs"] = json!([target]);
            spec["mtls"]["ports"] = json!({"8080": mode, "81": mode});
        }
        ("mesh.anyam.dev/v1alpha1", "MeshPolicy", namespace, spec)
    })
}

pub fn backend_policy() -> impl Strategy<Value = Made> {
    let limits = with(vec![
        ("connections", number(1..100)),
        ("pending", number(1..100)),
        ("requests", number(1..100)),
        ("retries", number(1..100)),
    ]);
    let budget = with(vec![
        ("percent", number(0..101)),
        ("minRetries", number(0..10)),
    ]);
    let spec = with(vec![
        (
            "loadBalancer",
            one_of(&["LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev"]),
        ),
        ("outlierDetection", outlier()),
        ("limits", limits),
        ("retry", retry()),
        ("retryBudget", budget),
        ("connectTimeout", span()),
        ("requestTimeout", span()),
        ("idleTimeout", span()),
        ("maxRequestsPerConnection", number(1..100)),
        ("http2", flag()),
    ]);
    let rule = one_of(&["header", "cookie", "queryParameter", "sourceIP"]).prop_map(|kind| {
        match kind.as_str().unwrap_or_default() {
            "header" => json!({"header": "X-User"}),
            "cookie" => json!({"cookie": {"name": "c", "ttl": "10s", "path": "/a"}}),
            "queryParameter" => json!({"queryParameter": "q"}),
            _ => json!({"sourceIP": {}}),
        }
    });
    let hash_on = prop::collection::vec(rule, 0..4);
    (namespace(), spec, target(), hash_on).prop_map(|(namespace, mut spec, target, hash_on)| {
        spec["targetRefs"] = json!([target]);
        if matches!(spec["loadBalancer"].as_str(), Some("RingHash" | "Maglev")) {
            spec["hashOn"] = json!(hash_on);
        }
        ("mesh.anyam.dev/v1alpha1", "BackendPolicy", namespace, spec)
    })
}

/// There is no ConfigMap: half of these make calls fail.
pub fn backend_tls_policy() -> impl Strategy<Value = Made> {
    let trust = select(
        &[
            r#"{"wellKnownCACertificates": "System"}"#,
            r#"{"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}"#,
        ][..],
    );
    let names = select(
        &[
            "[]",
            r#"[{"type": "Hostname", "hostname": "*.a.example"}, {"type": "URI", "uri": "spiffe://a/b"}]"#,
        ][..],
    );
    let port = option::of(select(&["x", "grpc-y", "tcp"][..]));
    (namespace(), name(), port, trust, names).prop_map(|(namespace, name, port, trust, names)| {
        let mut target = json!({"group": "", "kind": "Service", "name": name});
        if let Some(port) = port {
            target["sectionName"] = port.into();
        }
        let mut validation: Value = serde_json::from_str(trust).unwrap();
        validation["hostname"] = "a.example".into();
        validation["subjectAltNames"] = serde_json::from_str(names).unwrap();
        (
            "gateway.networking.k8s.io/v1",
            "BackendTLSPolicy",
            namespace,
            json!({"targetRefs": [target], "validation": validation}),
        )
    })
}
