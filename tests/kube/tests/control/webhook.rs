use std::net::TcpListener;

use anyam_tests_kube::{Kubectl, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::harness::{Bench, NAMESPACE, TIMEOUT, of_chart};

const NAME: &str = "anyam-control.anyam-system.svc";

fn configuration(bench: &Bench) -> Value {
    let get = [
        "get",
        "mutatingwebhookconfiguration",
        "anyam-injector",
        "--output=json",
    ];
    serde_json::from_str(&bench.server.kubectl(&get)).unwrap()
}

/// Waits until each webhook has the root.
async fn has_root(bench: &Bench, root: &str) {
    let root = STANDARD.encode(root);
    until("the root as caBundle", TIMEOUT, async || {
        let all = configuration(bench)["webhooks"].clone();
        let all = all.as_array().unwrap().clone();
        let good = |webhook: &Value| webhook["clientConfig"]["caBundle"] == root.as_str();
        match all.len() == 2 && all.iter().all(good) {
            true => Ok(()),
            false => Err(format!("{all:?}")),
        }
    })
    .await;
}

/// A pod as a user writes it; what the API server made of it, without keeping it.
fn created(bench: &Bench) -> Result<Value, String> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"serviceAccountName": "web", "containers": [{"name": "app", "image": "x"}]},
    });
    let create = ["create", "--dry-run=server", "--output=json", "-f", "-"];
    let output = bench.server.try_kubectl_with(&pod.to_string(), &create);
    match output.status {
        Some(0) => Ok(serde_json::from_str(&output.stdout).unwrap()),
        _ => Err(output.stderr),
    }
}

#[tokio::test]
async fn the_ca_bundle_is_restored_whoever_changes_the_configuration() {
    let bench = Bench::start();
    bench.namespace("shop", &["web"]);
    bench.server.kubectl(&[
        "label",
        "namespace",
        "shop",
        "mesh.anyam.dev/inject=enabled",
    ]);
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}");
    let control = bench.begin_control("control-0", &["--webhook-listen", &listen, "--name", NAME]);
    control
        .logs("there is no MutatingWebhookConfiguration anyam-injector")
        .await;

    // As deployed, but for the port, and a Service that resolves to loopback.
    let external = [
        "create",
        "service",
        "externalname",
        "anyam-control",
        "--external-name=localhost",
    ];
    bench
        .server
        .kubectl(&[&external[..], &["--namespace", NAMESPACE]].concat());
    let manifest = of_chart(&["MutatingWebhookConfiguration"]);
    let manifest = manifest.replace("\"port\":443", &format!("\"port\":{port}"));
    let apply = || bench.server.kubectl_with(&manifest, &["apply", "-f", "-"]);
    apply();
    let root = bench.root("shop").await;
    has_root(&bench, &root).await;
    let pod = until("a pod with a sidecar", TIMEOUT, async || created(&bench)).await;
    assert_eq!(
        pod["spec"]["initContainers"][1]["name"], "anyam-proxy",
        "{pod}"
    );

    // Applied again, and overwritten: the caBundle is restored.
    apply();
    has_root(&bench, &root).await;
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let other = STANDARD.encode(other.cert.pem());
    let other = json!([
        {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": other},
        {"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"},
    ]);
    let patch = [
        "patch",
        "mutatingwebhookconfiguration",
        "anyam-injector",
        "--type=json",
    ];
    bench
        .server
        .kubectl(&[&patch[..], &["--patch", &other.to_string()]].concat());
    has_root(&bench, &root).await;
    until("pods with sidecars", TIMEOUT, async || created(&bench)).await;
    control.assert_rights();
}
