//! Outlier detection by the proxy's own clock: an endpoint whose share of success is far below that
//! of the others goes, and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use crate::ads::{all_to, http_listener};
use crate::ports::free_port;
use crate::process::{Proxy, answering, first_status, status};

/// A round-robin cluster of these endpoints with this `outlier_detection`.
fn cluster(endpoints: &[SocketAddr], outlier: Value) -> Value {
    let endpoint = |address: &SocketAddr| {
        let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
        json!({"endpoint": {"address": {"socket_address": socket}}})
    };
    let all: Vec<Value> = endpoints.iter().map(endpoint).collect();
    json!({
        "name": "up", "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": all}]},
        "outlier_detection": outlier,
    })
}

#[tokio::test]
async fn an_endpoint_that_fails_more_often_than_the_others_is_ejected_by_default() {
    let mut endpoints = Vec::new();
    for _ in 0..5 {
        endpoints.push(answering(|| 200).await);
    }
    // Every other answer: never many in a row.
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let odd = move || [500, 200][counter.fetch_add(1, SeqCst) % 2];
    endpoints.push(answering(odd).await);
    let up = cluster(
        &endpoints,
        json!({
            "interval": "0.3s", "base_ejection_time": "1s", "max_ejection_time": "1s",
            "success_rate_request_volume": 3, "max_ejection_percent": 20,
        }),
    );
    let port = free_port();
    let listener = http_listener("in", port, all_to("up"));
    let static_resources = json!({"listeners": [listener], "clusters": [up]});
    let proxy = Proxy::start(json!({"static_resources": static_resources}));
    first_status(port).await;
    let series = |what: &str| format!("anyam_cluster_outlier_detection_ejections_{what} ");
    let active = series("active{cluster=\"up\"}");
    let enforced = series("enforced_total{cluster=\"up\",type=\"success_rate\"}");
    while proxy.metric(&active).await < 1.0 {
        status(port).await.unwrap();
    }
    assert!(proxy.metric(&enforced).await >= 1.0);
    let (_, clusters) = proxy.admin("/clusters").await;
    let bad = endpoints[5];
    assert!(
        clusters.contains(&format!("up::{bad}::health_flags::/failed_outlier_check")),
        "{clusters}"
    );
    // After the ejection time it gets requests again.
    while proxy.metric(&active).await > 0.0 {
        tokio::task::yield_now().await;
    }
    let before = count.load(SeqCst);
    while count.load(SeqCst) == before {
        status(port).await.unwrap();
    }
}
