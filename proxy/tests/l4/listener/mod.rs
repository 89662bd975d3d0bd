//! Listeners over real sockets, configured as a control plane would: chains, detection, servers
//! that speak first, mutual TLS, policy, and destinations that are subscribed to on demand.

mod callers;
mod explained;
mod limits;
mod redirected;
mod removed;
mod reverified;
mod revoked;
pub mod rig;
mod updates;

use std::time::{Duration, Instant};

use self::rig::{Rig, connect, echo_server, greeting_server, listener, rbac, static_cluster};
use crate::support::pki::{client, uri};
use crate::support::run;
use anyam_proxy::tls::{ClientContext, Dial};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const FRONT: &str = "spiffe://mesh.local/ns/shop/sa/front";

#[test]
fn bytes_to_a_cluster_and_back() {
    run(async {
        let (rig, port) = Rig::echoing(|port| listener("in", port, json!({}), "echo")).await;
        let mut client = connect(port).await;
        client.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        client.read_exact(&mut got).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut got).await.unwrap(), 0);
        assert!(rig.metric("anyam_listener_connections_total{listener=\"in\"} 1"));
        assert!(rig.metric("anyam_cluster_connections_total{cluster=\"echo\"} 1"));
    });
}

#[test]
fn without_an_upstream_the_client_is_reset() {
    run(async {
        let mut rig = Rig::new();
        let (port, dead) = (rig.free_port(), rig.free_port());
        let dead = ([127, 0, 0, 1], dead).into();
        rig.apply(
            &[static_cluster("dead", dead)],
            &[listener("in", port, json!({}), "dead")],
        );
        let mut client = connect(port).await;
        assert!(client.read(&mut [0]).await.is_err());
        assert!(rig.metric("anyam_cluster_connect_failures_total{cluster=\"dead\"} 1"));
    });
}

/// Detection on: HTTP gets a direct response, all else goes to the cluster.
fn detecting(port: u16, cluster: &str) -> serde_json::Value {
    let mut listener = listener("auto", port, json!({}), cluster);
    listener["listener_filters"] = json!([
        rig::listener_filter("tls_inspector", "TlsInspector"),
        rig::listener_filter("http_inspector", "HttpInspector"),
    ]);
    let http = json!({
        "name": "http",
        "filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]},
        "filters": [rig::http_direct_response(418)],
    });
    listener["filter_chains"].as_array_mut().unwrap().push(http);
    listener
}

#[test]
fn bytes_of_a_server_that_sends_first_arrive_at_once() {
    run(async {
        let mut rig = Rig::new();
        let port = rig.free_port();
        let upstream = greeting_server().await;
        rig.apply(
            &[static_cluster("mail", upstream)],
            &[detecting(port, "mail")],
        );
        for round in 1..=3 {
            let start = Instant::now();
            let mut client = connect(port).await;
            let mut got = [0; 10];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"220 ready\n");
            assert!(
                start.elapsed() < Duration::from_millis(500),
                "{:?}",
                start.elapsed()
            );
            client.write_all(b"QUIT\n").await.unwrap();
            client.read_exact(&mut got[..4]).await.unwrap();
            assert_eq!(&got[..4], b"BYE\n");
            let counted =
                format!("anyam_cluster_speculative_dials_total{{cluster=\"mail\"}} {round}");
            assert!(rig.metric(&counted));
        }
    });
}

#[test]
fn clients_that_speak_first_are_detected_and_cost_no_guess() {
    run(async {
        let (rig, port) = Rig::echoing(|port| detecting(port, "echo")).await;
        let mut client = connect(port).await;
        client.write_all(b"\x00\x01binary").await.unwrap();
        let mut got = [0; 8];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"\x00\x01binary");
        let mut client = connect(port).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut got = [0; 12];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"HTTP/1.1 418");
        assert!(rig.metric("anyam_cluster_speculative_dials_total{cluster=\"echo\"} 0"));
    });
}

#[test]
fn a_request_in_single_bytes_is_still_http() {
    run(async {
        let (_rig, port) = Rig::echoing(|port| detecting(port, "echo")).await;
        let mut client = connect(port).await;
        for byte in b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut got = [0; 12];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"HTTP/1.1 418");
    });
}

#[test]
fn no_chain_no_connection() {
    run(async {
        let only = json!({"destination_port": 1});
        let (rig, port) = Rig::echoing(|port| listener("in", port, only, "echo")).await;
        let mut client = connect(port).await;
        assert!(client.read(&mut [0]).await.is_err());
        assert!(rig.metric("anyam_listener_no_filter_chain_total{listener=\"in\"} 1"));
    });
}

#[test]
fn listeners_come_and_go_and_connections_stay() {
    run(async {
        let (mut rig, port) = Rig::echoing(|port| listener("in", port, json!({}), "echo")).await;
        let mut client = connect(port).await;
        client.write_all(b"a").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        rig.remove_listener("in");
        rig.until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_err())
            .await;
        client.write_all(b"b").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    });
}

/// A chain with mutual TLS and the given RBAC filter in front of the cluster.
fn secured(port: u16, policy: serde_json::Value) -> serde_json::Value {
    let mut listener = listener("in", port, json!({}), "echo");
    let chain = &mut listener["filter_chains"][0];
    chain["transport_socket"] = rig::downstream_tls();
    chain["filters"].as_array_mut().unwrap().insert(0, policy);
    listener
}

#[test]
fn mutual_tls_and_policy_decide_who_gets_in_and_who_may_stay() {
    run(async {
        let (mut rig, port, ca) = Rig::of_cart();
        let upstream = echo_server().await;
        let allow = |who: &str| secured(port, rbac("ALLOW", who));
        rig.apply(&[static_cluster("echo", upstream)], &[allow(FRONT)]);

        let as_front = ca.issue(vec![uri(FRONT)]).identity();
        let as_other = ca
            .issue(vec![uri("spiffe://mesh.local/ns/shop/sa/other")])
            .identity();
        let dial = Dial::default();
        let context = |identity| ClientContext::new(client(Some(identity), ca.bundle()));
        let (front, other) = (context(as_front), context(as_other));

        let refused = rig
            .worker
            .tls
            .connect(connect(port).await, &other, &dial)
            .await;
        // TLS itself succeeds; what follows is the end.
        let mut refused = refused.unwrap();
        assert!(refused.read(&mut [0]).await.is_err());
        assert!(rig.metric("anyam_listener_rbac_denied_total{listener=\"in\"} 1"));

        let stream = rig
            .worker
            .tls
            .connect(connect(port).await, &front, &dial)
            .await;
        let mut stream = stream.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();

        // An unrelated change leaves it alone; a policy that no longer allows it ends it.
        rig.apply(&[static_cluster("more", upstream)], &[]);
        stream.write_all(b"again").await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
        rig.apply(&[], &[allow("spiffe://mesh.local/ns/shop/sa/other")]);
        assert!(stream.read(&mut [0]).await.is_err());

        // Plain text to a chain with TLS.
        let mut plain = connect(port).await;
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
        assert!(rig.metric("anyam_listener_tls_errors_total{listener=\"in\"} 1"));
    });
}
