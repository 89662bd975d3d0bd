//! Zone-aware routing while the local cluster changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::{Value, json};
use xds_proto::type_url;

use crate::ads::{ControlPlane, all_to, at, eds_cluster, http_listener, localities};
use crate::ports::free_port;
use crate::process::{Proxy, answering, first_status, status};

/// Localities in zones with these endpoints.
fn zones(of: &[(&str, &[SocketAddr])]) -> Value {
    let one = |(zone, addresses): &(&str, &[SocketAddr])| json!({"locality": {"region": "r", "zone": zone}, "lb_endpoints": at(addresses)});
    of.iter().map(one).collect()
}

/// Whether any of many requests gets to the other zone.
async fn leaves(port: u16, far: &AtomicBool) -> bool {
    far.store(false, SeqCst);
    for _ in 0..60 {
        assert_eq!(status(port).await, Some(200));
    }
    far.load(SeqCst)
}

#[tokio::test]
async fn routing_follows_the_local_cluster() {
    let far = Arc::new(AtomicBool::new(false));
    let met = far.clone();
    let near = answering(|| 200).await;
    let away = answering(move || {
        met.store(true, SeqCst);
        200
    })
    .await;
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let listener = http_listener("in", port, all_to("up"));
    let up = json!({
        "name": "up", "type": "STATIC", "connect_timeout": "2s",
        "common_lb_config": {"zone_aware_lb_config": {"min_cluster_size": 1}},
        "load_assignment": {
            "cluster_name": "up", "endpoints": zones(&[("a", &[near]), ("b", &[away])]),
        },
    });
    let local = eds_cluster("local", "30s");
    let mut bootstrap = control.without_discovery(&[listener], &[up, local]);
    bootstrap["node"]["locality"] = json!({"region": "r", "zone": "a"});
    bootstrap["cluster_manager"] = json!({"local_cluster_name": "local"});
    let proxy = Proxy::start(bootstrap);
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ENDPOINT, "local").await;
    first_status(port).await;
    assert!(leaves(port, &far).await);
    // Nothing is ever sent to these.
    let (here, there) = (
        "127.0.0.1:1".parse().unwrap(),
        "127.0.0.1:2".parse().unwrap(),
    );
    let mut version = 0;
    for (of, stays) in [
        (vec![("a", &[here][..]), ("b", &[there][..])], true),
        // Not where the proxy is.
        (vec![("b", &[here][..]), ("c", &[there][..])], false),
        (vec![("a", &[here][..]), ("b", &[there][..])], true),
        // Only one zone.
        (vec![("a", &[here, there][..])], false),
    ] {
        version += 1;
        let given = localities("local", &version.to_string(), &zones(&of));
        stream.give(given).await;
        while leaves(port, &far).await == stays {
            assert!(proxy.is_live().await);
        }
    }
    let directly = "anyam_cluster_lb_zone_total{cluster=\"up\",type=\"routing_all_directly\"}";
    assert!(proxy.metric(directly).await > 0.0);
    let not_ok = "anyam_cluster_lb_zone_total{cluster=\"up\",type=\"local_cluster_not_ok\"}";
    assert!(proxy.metric(not_ok).await > 0.0);
}
