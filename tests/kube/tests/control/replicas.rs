use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyam_tests_kube::{Kubectl, SidecarPlan, until};
use serde_json::{Value, json};

use super::aggregated::{NAME, ask_as_admin, available, free_port, json_of, register};
use super::harness::{Bench, NAMESPACE, TIMEOUT};

/// An address of this machine that is none of loopback, which an EndpointSlice may not have.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Sends nothing: it only chooses a route.
    let routed = socket.connect("192.0.2.1:9");
    routed.expect("a route besides loopback; `ip route` shows none");
    socket.local_addr().unwrap().ip()
}

/// As the endpoint controller has it for a pod of the control plane.
fn endpoint_slice(bench: &Bench, pod: &str, at: SocketAddr) {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": pod, "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "anyam-control"},
        },
        "ports": [{"name": "https-replicas", "port": at.port()}],
        "endpoints": [{
            "addresses": [at.ip()], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod, "namespace": NAMESPACE},
        }],
    });
    bench
        .server
        .kubectl_with(&slice.to_string(), &["create", "-f", "-"]);
}

fn inspectable(answer: &Value) -> Vec<&str> {
    let all = answer["proxies"].as_array().unwrap().iter();
    let connected = all.filter(|it| it["inspectable"] == true);
    connected
        .map(|it| it["workload"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn whichever_replica_is_asked_answers_for_all_proxies() {
    let bench = Bench::start();
    bench.namespace("shop", &["web", "cart"]);
    let address = own_address();
    let places = [(); 2].map(|()| SocketAddr::new(address, free_port()));
    let port = free_port();
    let (aggregated, listen) = (format!("127.0.0.1:{port}"), places.map(|at| at.to_string()));
    let first = ["--aggregated-listen", &aggregated, "--name", NAME];
    let first = [&first[..], &["--replicas-listen", &listen[0]]].concat();
    let first = bench.control("control-0", &first).await;
    let second = ["--replicas-listen", &listen[1]];
    let mut second = bench.control("control-1", &second).await;
    register(&bench, port);
    for (pod, at) in ["control-0", "control-1"].into_iter().zip(places) {
        endpoint_slice(&bench, pod, at);
    }

    bench.pod("web-0", "web");
    let other = "10.1.2.4";
    bench.pod_at("cart-0", "cart", other.parse().unwrap());
    let root = bench.root("shop").await;
    let web = bench.token("web-0", "web", "anyam-ca");
    let web = bench
        .sidecar("web-0", "web", first.xds().await, &[])
        .start(&web, &root);
    let cart = bench.token("cart-0", "cart", "anyam-ca");
    let at = (other, second.xds().await);
    let plan = SidecarPlan::new(&bench, ("cart-0", "cart"), at, &[]);
    let cart = plan.start(&cart, &root);
    web.ready().await;
    cart.ready().await;
    available(&bench).await;

    let all = "/workloads/-/proxies";
    until("both proxies", TIMEOUT, async || {
        let answer = ask_as_admin(&bench, all);
        let found: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        match found["proxies"].is_array() && inspectable(&found) == ["cart-0", "web-0"] {
            true => Ok(()),
            false => Err(format!("{answer:?}")),
        }
    })
    .await;
    let answer = json_of(&ask_as_admin(&bench, all));
    assert_eq!(answer.get("unreachable_replicas"), None, "{answer}");
    for pod in ["web-0", "cart-0"] {
        let page = format!("/namespaces/shop/workloads/{pod}/dump/certs");
        let certs = ask_as_admin(&bench, &page);
        assert_eq!(certs.status, Some(0), "{certs:?}");
        let account = pod.trim_end_matches("-0");
        assert!(certs.stdout.contains(&format!("sa/{account}")), "{certs:?}");
    }

    second.kill();
    let asked = Instant::now();
    let answer = until("the replica to be named", TIMEOUT, async || {
        let answer = json_of(&ask_as_admin(&bench, all));
        match answer["unreachable_replicas"].is_array() {
            true => Ok(answer),
            false => Err(answer.to_string()),
        }
    })
    .await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    let named = answer["unreachable_replicas"][0].as_str().unwrap();
    assert!(named.starts_with("control-1: "), "{named}");
    assert!(inspectable(&answer).contains(&"web-0"), "{answer}");
    first.assert_rights();
}
