//! TCPRoutes, TLSRoutes and BackendTLSPolicies: their conditions, and the ConfigMaps that policies name.

use anyam_control::source::kubernetes::status::document::CONTROLLER;
use anyam_tests_kube::{ApiServer, Channel, Kubectl, until};
use serde_json::{Value, json};

use super::status::{ControlPlane, TIMEOUT, apply, condition, get};

/// A CA's certificate.
const CA: &str = include_str!("ca.pem");

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"name": "tcp", "port": 5432}, {"name": "tls", "port": 443}]},
    })
}

fn gateway_api(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

fn policy(validation: Value) -> Value {
    let targets = json!([{"group": "", "kind": "Service", "name": "db"}]);
    let spec = json!({"targetRefs": targets, "validation": validation});
    gateway_api("BackendTLSPolicy", "p", spec)
}

/// Our entries in a list of an object's status.
fn ours(object: &Value, list: &str) -> Vec<Value> {
    let all = object["status"][list].as_array().cloned();
    let all = all.unwrap_or_default().into_iter();
    all.filter(|entry| entry["controllerName"] == CONTROLLER)
        .collect()
}

/// Waits until our one entry has these conditions, as `(type, status, reason)`; returns it.
async fn entry(
    server: &ApiServer,
    (resource, name, list): (&str, &str, &str),
    expected: &[(&str, &str, &str)],
) -> Value {
    until(&format!("{resource} {name}"), TIMEOUT, async || {
        let object = get(server, resource, name);
        let has = |entry: &Value| {
            expected.iter().all(|(kind, status, reason)| {
                let found = condition(entry, kind);
                let current = found["observedGeneration"] == object["metadata"]["generation"];
                found["status"] == *status && found["reason"] == *reason && current
            })
        };
        match ours(&object, list).as_slice() {
            [entry] if has(entry) => Ok(entry.clone()),
            _ => Err(object["status"].to_string()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_of_connections_have_conditions_at_their_parents() {
    let server = ApiServer::start();
    server.install_gateway_api(Channel::Standard);
    let parent = |port: u16| json!([{"group": "", "kind": "Service", "name": "db", "port": port}]);
    let rules =
        json!([{"backendRefs": [{"name": "db", "port": 5432}, {"name": "gone", "port": 1}]}]);
    let tcp = json!({"parentRefs": parent(5432), "rules": rules});
    let tls = json!({
        "parentRefs": parent(443), "hostnames": ["a.example"],
        "rules": [{"backendRefs": [{"name": "db", "port": 443}]}],
    });
    let misplaced = json!({
        "parentRefs": parent(5432), "hostnames": ["a.example"],
        "rules": [{"backendRefs": [{"name": "db", "port": 443}]}],
    });
    apply(
        &server,
        &[
            service("db"),
            gateway_api("TCPRoute", "tcp", tcp),
            gateway_api("TLSRoute", "tls", tls),
            gateway_api("TLSRoute", "misplaced", misplaced),
        ],
    );
    let _control = ControlPlane::start(&server, true).await;
    let missing = [
        ("Accepted", "True", "Accepted"),
        ("ResolvedRefs", "False", "BackendNotFound"),
    ];
    entry(&server, ("tcproute", "tcp", "parents"), &missing).await;
    let good = [
        ("Accepted", "True", "Accepted"),
        ("ResolvedRefs", "True", "ResolvedRefs"),
    ];
    entry(&server, ("tlsroute", "tls", "parents"), &good).await;
    let refused = [("Accepted", "False", "UnsupportedProtocol")];
    entry(&server, ("tlsroute", "misplaced", "parents"), &refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_trusts_the_config_map_that_it_names_as_it_changes() {
    let server = ApiServer::start();
    server.install_gateway_api(Channel::Standard);
    let by_map = json!({
        "hostname": "db.example",
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
    });
    apply(&server, &[service("db"), policy(by_map)]);
    let _control = ControlPlane::start(&server, true).await;
    let at = ("backendtlspolicy", "p", "ancestors");
    let none = [
        ("Accepted", "False", "NoValidCACertificate"),
        ("ResolvedRefs", "False", "InvalidCACertificateRef"),
    ];
    let found = entry(&server, at, &none).await;
    assert_eq!(
        found["ancestorRef"],
        json!({"group": "", "kind": "Service", "namespace": "default", "name": "db"})
    );

    let map = |data: Value| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "ca", "namespace": "default"}, "data": data,
        })
    };
    let good = [
        ("Accepted", "True", "Accepted"),
        ("ResolvedRefs", "True", "ResolvedRefs"),
    ];
    apply(&server, &[map(json!({"ca.crt": CA}))]);
    entry(&server, at, &good).await;
    apply(&server, &[map(json!({"ca.crt": "no PEM"}))]);
    entry(&server, at, &none).await;
    apply(&server, &[map(json!({"ca.crt": CA}))]);
    entry(&server, at, &good).await;
    server.kubectl(&["delete", "configmap", "ca"]);
    entry(&server, at, &none).await;

    let system = json!({"hostname": "db.example", "wellKnownCACertificates": "System"});
    apply(&server, &[policy(system)]);
    entry(&server, at, &good).await;
}
