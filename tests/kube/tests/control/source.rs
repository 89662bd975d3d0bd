//! What a control plane and its sidecars have of an API server whose objects change by the hundreds,
//! that is away for a while, or that does not know any more what it was last asked for.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use anyam_tests_kube::{Bench, Control, FakeShop, Kubectl, PodHost, PodNetwork, held, until};
use serde_json::json;

use super::harness::TIMEOUT;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const PORT: u16 = 8080;
const SERVICES: usize = 30;
const PODS_OF_EACH: usize = 10;

/// Waits until the sidecar balances over what the API server lists.
async fn holds_what_is_listed(pod: &PodHost, shop: &FakeShop) {
    let listed = shop.listed().await;
    until("the endpoints that are listed", TIMEOUT, async || {
        let mut held = held::in_force(&pod.admin("/clusters?format=json"));
        held.retain(|service, _| listed.contains_key(service));
        let differing = listed
            .iter()
            .filter(|(name, of)| held.get(*name) != Some(of));
        let differing: Vec<_> = differing
            .map(|(name, of)| (name, of, held.get(name)))
            .collect();
        match differing.is_empty() {
            true => Ok(()),
            false => Err(format!("{differing:?}\n{}", pod.log())),
        }
    })
    .await;
}

/// Hundreds of changes at once, with the API server away in the middle.
#[tokio::test]
async fn sidecars_hold_what_the_api_server_has_after_hundreds_of_changes() {
    let mut network = PodNetwork::enter();
    let bench = Bench::start_at(PodNetwork::CONTROL);
    bench.namespace("shop", &["web"]);
    let client = bench.server.client().await;
    let mut shop = FakeShop::create(client, SERVICES, PODS_OF_EACH).await;
    let control = bench.control("control-0", &[]).await;
    let root = bench.root("shop").await;
    let joins = (control.xds().await, &*root);
    let pod = network
        .pod(&bench, ("web-0", "web"), CLIENT, joins, &[])
        .await;
    pod.use_all(shop.addresses().map(SocketAddr::from));
    holds_what_is_listed(&pod, &shop).await;

    let mut restarted = 0;
    for half in 0..2 {
        for service in 0..shop.len() {
            for _ in 0..PODS_OF_EACH / 2 {
                shop.add_pod(service).await;
                shop.terminate_oldest(service).await;
            }
            shop.delete_terminated(service).await;
            shop.turn_over_service().await;
        }
        holds_what_is_listed(&pod, &shop).await;
        if half == 0 {
            control.assert_rights();
            restart(&bench).await;
            holds_what_is_listed(&pod, &shop).await;
            restarted = control.log().len();
        }
    }
    control.assert_rights_since(restarted);
}

async fn answers(bench: &Bench) {
    until("the API server", TIMEOUT, async || {
        let found = bench.server.try_kubectl(&["get", "namespaces"]);
        match found.status {
            Some(0) => Ok(()),
            _ => Err(found.stderr),
        }
    })
    .await;
}

async fn restart(bench: &Bench) {
    bench.server.stop("apiserver");
    bench.server.resume("apiserver");
    answers(bench).await;
}

#[tokio::test]
async fn traffic_goes_on_without_the_api_server_and_changes_are_followed_again() {
    let mut network = PodNetwork::enter();
    let bench = Bench::start_at(PodNetwork::CONTROL);
    bench.namespace("shop", &["web", "cart"]);
    let control = bench.control("control-0", &[]).await;
    let root = bench.root("shop").await;
    let joins = (control.xds().await, &*root);
    // Certificates are renewed meanwhile: they need no API server.
    let ttl = ["--certificate-ttl-s", "12"];
    let client = network
        .pod(&bench, ("web-0", "web"), CLIENT, joins, &ttl)
        .await;
    let server = network
        .pod(&bench, ("cart-0", "cart"), SERVER, joins, &ttl)
        .await;
    server.serve(PORT);
    let cart = SocketAddr::from((bench.service("cart", ("cart-0", SERVER), PORT), 80));
    let load = client.load(cart);
    load.goes_on(50).await;

    control.assert_rights();
    let before = server.certificate_chain();
    bench.server.stop("apiserver");
    control.logs("cannot be watched now").await;
    load.goes_on(50).await;
    until("a renewed certificate", TIMEOUT, async || {
        match server.certificate_chain() == before {
            true => Err(server.log()),
            false => Ok(()),
        }
    })
    .await;
    load.goes_on(50).await;

    bench.server.resume("apiserver");
    answers(&bench).await;
    load.goes_on(50).await;
    drop(load);
    // What changes from now on is followed: the Service leads elsewhere.
    bench.pod_at("cart-1", "cart", Ipv4Addr::new(10, 77, 3, 2));
    bench.service("cart", ("cart-1", Ipv4Addr::new(10, 77, 3, 2)), PORT);
    until("the other endpoint", TIMEOUT, async || {
        let held = held::in_force(&client.admin("/clusters?format=json"));
        match held.get("cart.shop") {
            Some(of) if *of == BTreeSet::from(["10.77.3.2:8080".to_owned()]) => Ok(()),
            other => Err(format!("{other:?}\n{}", control.log())),
        }
    })
    .await;
}

/// The names of Services in namespace `shop` that a control plane has.
async fn services(control: &Control) -> BTreeSet<String> {
    let objects = control.objects().await;
    let all = objects["objects"].as_array().unwrap().iter();
    let of_shop = all.filter(|it| it["kind"] == "Service" && it["namespace"] == "shop");
    let names = of_shop.map(|it| it["name"].as_str().unwrap().to_owned());
    names.collect()
}

/// A watch that resumes at a version that the API server has forgotten is answered 410, and everything
/// is listed again: what came, and what was deleted unseen.
#[tokio::test]
async fn after_410_gone_everything_is_listed_again() {
    let bench = Bench::start();
    bench.namespace("shop", &[]);
    let service = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"port": 80}]},
        })
        .to_string()
    };
    let create = |name: &str| {
        bench
            .server
            .kubectl_with(&service(name), &["create", "-f", "-"])
    };
    for name in ["stays", "goes"] {
        create(name);
    }
    let control = bench.control("control-0", &[]).await;
    assert_eq!(
        services(&control).await,
        ["goes", "stays"].map(str::to_owned).into()
    );

    // It sees none of the changes, and the API server that it comes back to begins after them.
    control.signal("STOP");
    restart(&bench).await;
    bench
        .server
        .kubectl(&["delete", "service", "goes", "--namespace=shop"]);
    create("comes");
    control.assert_rights();
    restart(&bench).await;
    control.signal("CONT");
    control.logs("is listed again").await;
    until("the Services that there are", TIMEOUT, async || {
        let now = services(&control).await;
        match now == ["comes", "stays"].map(str::to_owned).into() {
            true => Ok(()),
            false => Err(format!("{now:?}\n{}", control.log())),
        }
    })
    .await;
}
