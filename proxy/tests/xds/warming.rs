//! A plain Envoy bootstrap: listeners and clusters are static, routes and endpoints come over ADS.

use xds_proto::type_url;

use crate::ads::{
    ControlPlane, all_to, cluster, eds_cluster, endpoints, http_listener, listener, rds, routes,
    static_cluster,
};
use crate::ports::free_port;
use crate::process::{Proxy, first_status, status, upstream};

#[tokio::test]
async fn a_static_listener_opens_once_its_routes_are_there() {
    let mut control = ControlPlane::start().await;
    let (port, beside) = (free_port(), free_port());
    let waiting = http_listener("waiting", port, rds("shop", "60s"));
    let ready = http_listener("ready", beside, all_to("up"));
    let up = static_cluster("up", upstream().await);
    let proxy = Proxy::start(control.without_discovery(&[waiting, ready], &[up]));
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ROUTE, "shop").await;

    // What waits for nothing serves; what waits does not answer "no route" meanwhile.
    assert_eq!(first_status(beside).await, 200);
    assert_eq!(status(port).await, None);
    let (code, why) = proxy.admin("/ready").await;
    assert_eq!(code, 503);
    assert!(
        why.starts_with("INITIALIZING\nwaiting for configuration"),
        "{why}"
    );

    stream.give(routes("shop", "1", 418)).await;
    assert_eq!(status(port).await, Some(418));
    while !proxy.is_live().await {}
}

#[tokio::test]
async fn routes_that_do_not_come_are_not_waited_for_longer_than_their_source_says() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let listener = http_listener("waiting", port, rds("shop", "0.2s"));
    let proxy = Proxy::start(control.without_discovery(&[listener], &[]));
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ROUTE, "shop").await;
    assert_eq!(first_status(port).await, 404);
    while !proxy.is_live().await {}
    // Late is not never.
    stream.give(routes("shop", "1", 418)).await;
    assert_eq!(status(port).await, Some(418));
}

#[tokio::test]
async fn without_a_control_plane_the_time_runs_all_the_same() {
    // Bound, so that no other test gets it, and not listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut control = ControlPlane::start().await;
    control.address = closed.local_addr().unwrap();
    let port = free_port();
    let listener = http_listener("waiting", port, rds("shop", "0.2s"));
    let proxy = Proxy::start(control.without_discovery(&[listener], &[]));
    assert_eq!(first_status(port).await, 404);
    while !proxy.is_live().await {}
}

#[tokio::test]
async fn a_static_cluster_waits_for_its_endpoints_and_its_listener_with_it() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let listener = http_listener("waiting", port, all_to("up"));
    let cluster = eds_cluster("up", "60s");
    let proxy = Proxy::start(control.without_discovery(&[listener], &[cluster]));
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ENDPOINT, "up").await;
    assert!(!proxy.is_live().await);
    assert_eq!(status(port).await, None);
    stream.give(endpoints("up", "1", upstream().await)).await;
    assert_eq!(status(port).await, Some(200));
    while !proxy.is_live().await {}
}

#[tokio::test]
async fn endpoints_that_do_not_come_are_not_waited_for_longer_than_their_source_says() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let listener = http_listener("waiting", port, all_to("up"));
    let cluster = eds_cluster("up", "0.2s");
    let proxy = Proxy::start(control.without_discovery(&[listener], &[cluster]));
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ENDPOINT, "up").await;
    assert_eq!(first_status(port).await, 503);
    while !proxy.is_live().await {}
}

/// After the ACK a control plane may send traffic to the cluster: a new version is warmed by
/// resolving its names first, as the first one is.
#[tokio::test]
async fn a_cluster_takes_traffic_once_its_names_are_known() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    let mut names = static_cluster("names", upstream().await);
    names["type"] = "STRICT_DNS".into();
    names["dns_lookup_family"] = "V4_ONLY".into();
    let address = &mut names["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    address["address"]["socket_address"]["address"] = "localhost".into();
    stream.give(cluster("1", &names)).await;
    let front = http_listener("front", port, all_to("names"));
    stream.give(listener("1", &front)).await;
    assert_eq!(status(port).await, Some(200));
    while !proxy.is_live().await {}
    for version in ["2", "3"] {
        names["connect_timeout"] = format!("{version}s").into();
        stream.give(cluster(version, &names)).await;
        assert_eq!(status(port).await, Some(200), "version {version}");
    }
}

/// Two clusters with the same endpoints: the second one comes when their assignment was delivered
/// long ago, and the control plane does not send it again.
#[tokio::test]
async fn a_cluster_that_comes_later_than_its_endpoints_has_them() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    let named = |name: &str| {
        let mut cluster = eds_cluster(name, "60s");
        cluster["eds_cluster_config"]["service_name"] = "shop".into();
        cluster
    };
    let front = |cluster| http_listener("front", port, all_to(cluster));
    stream.give(cluster("1", &named("one"))).await;
    stream.give(endpoints("shop", "1", upstream().await)).await;
    stream.give(listener("1", &front("one"))).await;
    assert_eq!(first_status(port).await, 200);
    stream.give(cluster("1", &named("two"))).await;
    stream.give(listener("2", &front("two"))).await;
    assert_eq!(status(port).await, Some(200));
    stream.remove(type_url::CLUSTER, "one").await;
    assert_eq!(status(port).await, Some(200));
    // What changes reaches those that are left.
    let other = crate::process::answering(|| 418).await;
    stream.give(endpoints("shop", "2", other)).await;
    assert_eq!(status(port).await, Some(418));
    while !proxy.is_live().await {}
}
