//! Policies of the whole mesh are in the control plane's own namespace, whatever its name.

use std::net::{Ipv4Addr, SocketAddr};

use anyam_tests_kube::{Bench, Helm, Kubectl, PodHost, PodNetwork, until};
use serde_json::json;

use super::harness::TIMEOUT;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const RELEASE: &str = "mesh";

fn deny_all(namespace: &str) -> String {
    json!({
        "apiVersion": "mesh.anyam.dev/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody", "namespace": namespace},
        "spec": {"action": "Deny", "rules": [{}]},
    })
    .to_string()
}

async fn answers(client: &PodHost, to: SocketAddr, status: u16) {
    until(
        &format!("the answer {status}"),
        TIMEOUT,
        async || match client.get(to, "/") {
            Ok((found, _)) if found == status => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
}

#[tokio::test]
async fn policies_in_the_control_plane_s_namespace_hold_for_the_whole_mesh() {
    let mut network = PodNetwork::enter();
    let bench = Bench::start_in(RELEASE, PodNetwork::CONTROL);
    let crds = Helm::chart().join("files/crds");
    let crds = crds.to_string_lossy();
    let kubectl = |arguments: &[&str]| bench.server.kubectl(arguments);
    kubectl(&["apply", "--server-side", "-f", &crds]);
    kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "-f",
        &crds,
    ]);
    bench.namespace("shop", &["web", "cart"]);
    // The root namespace of a folder's mesh is a namespace like others here.
    bench.namespace("anyam-system", &[]);
    let apply = ["apply", "-f", "-"];
    bench.server.kubectl_with(&deny_all("anyam-system"), &apply);

    let control = bench.control("control-0", &[]).await;
    let root = bench.root("shop").await;
    let joins = (control.xds().await, &*root);
    let client = network
        .pod(&bench, ("web-0", "web"), CLIENT, joins, &[])
        .await;
    let server = network
        .pod(&bench, ("cart-0", "cart"), SERVER, joins, &[])
        .await;
    server.serve(8080);
    let cart = SocketAddr::from((bench.service("cart", ("cart-0", SERVER), 8080), 80));
    answers(&client, cart, 200).await;
    bench.server.kubectl_with(&deny_all(RELEASE), &apply);
    answers(&client, cart, 403).await;
    bench
        .server
        .kubectl_with(&deny_all(RELEASE), &["delete", "-f", "-"]);
    answers(&client, cart, 200).await;
}
