//! Slow start by the proxy's own clock: an endpoint that comes gets few requests, then more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::json;

use crate::ads::{
    ControlPlane, all_to, at, cluster, eds_cluster, http_listener, listener, localities,
};
use crate::ports::free_port;
use crate::process::{Proxy, answering, first_status, status};

/// An upstream that counts its requests.
async fn counted() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let address = answering(move || {
        counter.fetch_add(1, SeqCst);
        200
    });
    (address.await, count)
}

const REQUESTS: usize = 200;

/// How many of [`REQUESTS`] an upstream gets.
async fn got(port: u16, count: &AtomicUsize) -> usize {
    let before = count.load(SeqCst);
    for _ in 0..REQUESTS {
        assert_eq!(status(port).await, Some(200));
    }
    count.load(SeqCst) - before
}

#[tokio::test]
async fn an_endpoint_that_comes_gets_a_growing_share() {
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        let ((old, _), (new, of_new)) = (counted().await, counted().await);
        let mut control = ControlPlane::start().await;
        let port = free_port();
        let front = http_listener("in", port, all_to("up"));
        let proxy = Proxy::start(control.bootstrap(&[], &[]));
        let mut stream = control.stream().await;
        // Endpoints that are there before the cluster slow-starts are not new.
        let mut up = eds_cluster("up", "30s");
        up["lb_policy"] = policy.into();
        stream.give(cluster("1", &up)).await;
        let only_old = json!([{"lb_endpoints": at(&[old])}]);
        stream.give(localities("up", "1", &only_old)).await;
        stream.give(listener("1", &front)).await;
        first_status(port).await;
        let config = json!({"slow_start_config": {
            "slow_start_window": "60s", "min_weight_percent": {"value": 1},
        }});
        let field = match policy {
            "ROUND_ROBIN" => "round_robin_lb_config",
            _ => "least_request_lb_config",
        };
        up[field] = config;
        stream.give(cluster("2", &up)).await;
        assert_eq!(got(port, &of_new).await, 0);
        let both = json!([{"lb_endpoints": at(&[old, new])}]);
        stream.give(localities("up", "2", &both)).await;
        // A tenth would be its share after more than six seconds.
        let first = got(port, &of_new).await;
        assert!(first < REQUESTS / 10, "{policy}: {first}");
        // That share comes, without further word from the control plane.
        while got(port, &of_new).await < REQUESTS / 10 {
            assert!(proxy.is_live().await);
        }
    }
}
