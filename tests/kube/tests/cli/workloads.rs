//! A mesh in a cluster: pods are objects, their sidecars and the control plane processes.

use std::net::TcpListener;

use anyam_tests_kube::{Bench, Control, Helm, Kubectl, NAMESPACE, Sidecar, of_chart, until};
use serde_json::{Value, json};

use super::TIMEOUT;
use super::anyam::Anyam;

const NAME: &str = "anyam-control.anyam-system.svc";

/// Ended in this order.
struct Shop {
    /// Of the pod web-1; web-0 has none that runs.
    _sidecar: Sidecar,
    control: Control,
    bench: Bench,
}

/// Pods web-0 and web-1 of a Deployment, and what else leads to them.
async fn shop() -> Shop {
    let bench = Bench::start();
    bench.namespace("shop", &["web"]);
    let definitions = Helm::chart().join("files/crds");
    let definitions = definitions.to_string_lossy();
    let apply = ["apply", "--server-side", "-f", &definitions];
    bench.server.kubectl(&apply);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let more = ["--aggregated-listen", &listen, "--name", NAME];
    let control = bench.control("control-0", &more).await;
    register(&bench, port);
    for pod in ["web-0", "web-1"] {
        bench.pod(pod, "web");
        own(&bench, pod, "ReplicaSet", "web-6d5f");
    }
    for object in [deployment(), service()] {
        bench
            .server
            .kubectl_with(&object.to_string(), &["create", "-f", "-"]);
    }
    let (token, root) = (
        bench.token("web-1", "web", "anyam-ca"),
        bench.root("shop").await,
    );
    let xds = control.xds().await;
    let sidecar = bench.sidecar("web-1", "web", xds, &[]).start(&token, &root);
    sidecar.ready().await;
    Shop {
        _sidecar: sidecar,
        control,
        bench,
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// As deployed, but for the port, and a Service that resolves to loopback.
fn register(bench: &Bench, port: u16) {
    let external = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "anyam-control", "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let apply = ["apply", "-f", "-"];
    bench.server.kubectl_with(&external.to_string(), &apply);
    let manifest = of_chart(&["APIService"]);
    let manifest = manifest.replace("\"port\":6443", &format!("\"port\":{port}"));
    bench.server.kubectl_with(&manifest, &apply);
}

fn own(bench: &Bench, pod: &str, kind: &str, name: &str) {
    let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true});
    let patch = json!({"metadata": {"labels": {"app": "web"}, "ownerReferences": [owner]}});
    let patch = patch.to_string();
    bench
        .server
        .kubectl(&["patch", "pod", pod, "--namespace=shop", "--patch", &patch]);
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": "x"}]},
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

/// The administrator, in whose context no namespace is named.
async fn administrator(shop: &Shop) -> Anyam {
    let anyam = Anyam::new(shop.bench.server.kubeconfig());
    until("the API to show the proxy", TIMEOUT, async || {
        let output = anyam.run(&["proxies", "-n", "shop", "-o", "json"]);
        let found: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        match found["proxies"][0]["inspectable"] == true {
            true => Ok(()),
            false => Err(format!("{output:?}")),
        }
    })
    .await;
    anyam
}

#[tokio::test]
async fn a_cluster_is_asked_by_namespaces_and_kubernetes_names() {
    let shop = shop().await;
    let anyam = administrator(&shop).await;
    let proxies = anyam.done(&["proxies", "-n", "shop"]);
    assert!(proxies.contains("web-1"), "{proxies}");
    assert!(anyam.done(&["proxies", "-A"]).contains("web-1"));
    // The context's namespace is the default.
    let none = anyam.done(&["proxies"]);
    assert!(
        none.contains("No proxy is connected in namespace default; -n"),
        "{none}"
    );
    let mut config: Value = serde_json::from_str(&shop.bench.server.kubectl(&[
        "config",
        "view",
        "--raw",
        "--output=json",
    ]))
    .unwrap();
    config["contexts"][0]["context"]["namespace"] = json!("shop");
    let in_shop = Anyam::with(&config.to_string());
    assert!(in_shop.done(&["proxies"]).contains("web-1"));

    // The pod that is ready is the one that is asked.
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    shop.bench.set_status("web-1", &ready);
    let output = in_shop.run(&["dump", "deploy/web", "certs"]);
    assert_eq!(output.status, Some(0), "{output:?}");
    assert!(
        output
            .stdout
            .contains("spiffe://anyam.local/ns/shop/sa/web"),
        "{output:?}"
    );
    let said = "deploy/web has 1 more pods with a sidecar; this is web-1";
    assert!(output.stderr.contains(said), "{output:?}");
    for name in [
        "pod/web-1",
        "web-1",
        "shop/web-1",
        "svc/web",
        "deployment/web",
    ] {
        let page = in_shop.done(&["dump", name, "stats"]);
        assert!(page.contains("anyam_bug_failures_total"), "{name}: {page}");
    }
    in_shop.refused(&["dump", "pod/web-0"], &["web-0"]);
    in_shop.refused(
        &["dump", "pod/none"],
        &["pod/none of namespace shop is not there"],
    );
    in_shop.refused(&["dump", "sts/web"], &["statefulset/web"]);
    each_command_answers(&anyam, &in_shop);
    shop.control.assert_rights();
}

/// `in_shop`: with `shop` as the namespace of its context.
fn each_command_answers(anyam: &Anyam, in_shop: &Anyam) {
    let routes = in_shop.json(&["routes", "svc/web"]);
    assert_eq!(
        routes["services"][0]["service"], "web.shop.svc.cluster.local",
        "{routes}"
    );
    assert_eq!(anyam.json(&["routes", "shop/web"]), routes);
    let explained = in_shop.run(&["explain", "deploy/web", "web", "-o", "json"]);
    let explained: Value = serde_json::from_str(&explained.stdout).unwrap();
    assert!(
        !explained["steps"].as_array().unwrap().is_empty(),
        "{explained}"
    );
    for command in ["stat", "edges"] {
        let table = in_shop.done(&[command]);
        assert!(table.contains("in namespace shop"), "{table}");
    }
    let tap = in_shop.run(&["tap", "deploy/web", "--seconds", "1"]);
    assert_eq!(
        tap.status,
        Some(0),
        "one of both pods can be tapped: {tap:?}"
    );
    assert!(tap.stderr.contains("2 pods: web-1, web-0"), "{tap:?}");
    assert!(tap.stderr.contains("anyam: web-0: "), "{tap:?}");
    let dashboard = in_shop.refused(&["dashboard"], &["no way to port", "control-0"]);
    assert!(!dashboard.contains("token="), "{dashboard}");
    let check = in_shop.run(&["check"]);
    assert_eq!(check.status, Some(1), "{check:?}");
    assert!(
        check
            .stdout
            .contains("Checked in namespace shop: APIService"),
        "{check:?}"
    );
    assert!(
        !check.stdout.contains("the mesh's API is not available"),
        "{check:?}"
    );
}

#[tokio::test]
async fn a_viewer_of_a_namespace_sees_no_more_than_that() {
    let shop = shop().await;
    let server = &shop.bench.server;
    administrator(&shop).await;
    let viewer = Anyam::of_account(server, "viewer");
    let bind = |name: &str, role: &str| {
        let role = format!("--clusterrole={role}");
        let create = ["create", "rolebinding", name, "--namespace=shop", &role];
        server.kubectl(&[&create[..], &["--serviceaccount=default:viewer"]].concat());
    };
    bind("viewer", "anyam-viewer");
    until("the right to be in force", TIMEOUT, async || {
        let output = viewer.run(&["proxies", "-n", "shop"]);
        match output.status == Some(0) && output.stdout.contains("web-1") {
            true => Ok(()),
            false => Err(format!("{output:?}")),
        }
    })
    .await;
    for command in ["stat", "edges", "routes"] {
        viewer.done(&[command, "-n", "shop"]);
        viewer.refused(&[command, "-A"], &["forbidden", "clusterrolebinding"]);
        viewer.refused(&[command, "-n", "bank"], &["forbidden", "--namespace bank"]);
    }
    let check = viewer.run(&["check", "-n", "shop"]);
    assert_eq!(check.status, Some(0), "{check:?}");
    let operator = "--clusterrole=anyam-operator --serviceaccount=default:viewer";
    viewer.refused(&["dump", "shop/web-1"], &[operator]);
    viewer.refused(&["tap", "shop/web-1"], &[operator]);
    bind("operator", "anyam-operator");
    until("a dump", TIMEOUT, async || {
        let output = viewer.run(&["dump", "shop/web-1", "certs"]);
        match output.status {
            Some(0) => Ok(()),
            _ => Err(output.stderr),
        }
    })
    .await;
    viewer.done(&["tap", "shop/web-1", "--seconds", "1"]);
    shop.control.assert_rights();
}
