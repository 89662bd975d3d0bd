//! Limits of open connections and of their duration, and which connections are closed at a limit.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{Rig, connect, echo_server, listener, static_cluster};
use crate::stalled::http;
use crate::support::run;

/// Whether the proxy serves a connection: a byte is echoed.
async fn is_served(client: &mut TcpStream) -> bool {
    // A refused connection may be reset before this is written.
    let _ = client.write_all(b"x").await;
    client.read_exact(&mut [0]).await.is_ok()
}

/// Tries until the place of a connection that went was given back.
async fn served_at_last(port: u16) -> TcpStream {
    loop {
        let mut client = connect(port).await;
        if is_served(&mut client).await {
            return client;
        }
    }
}

#[test]
fn a_listener_has_no_more_connections_than_its_bound() {
    run(async {
        let mut rig = Rig::new();
        rig.limit(None, Some(("in", 1)));
        let (port, other) = (rig.free_port(), rig.free_port());
        let upstream = echo_server().await;
        let listeners = |rig: &mut Rig| {
            rig.apply(
                &[static_cluster("echo", upstream)],
                &[
                    listener("in", port, json!({}), "echo"),
                    listener("other", other, json!({}), "echo"),
                ],
            );
        };
        listeners(&mut rig);
        let mut first = connect(port).await;
        assert!(is_served(&mut first).await);
        assert!(!is_served(&mut connect(port).await).await);
        // A connection that is reset at once is tried again by the test, and refused again.
        assert!(!rig.metric("anyam_listener_refused_total{listener=\"in\"} 0"));
        assert!(is_served(&mut connect(other).await).await);
        // Another version of the listener still counts the open connections.
        listeners(&mut rig);
        assert!(!is_served(&mut connect(port).await).await);
        drop(first);
        served_at_last(port).await;
    });
}

#[test]
fn the_bound_of_the_process_is_shared_by_listeners_that_do_not_opt_out() {
    run(async {
        let mut rig = Rig::new();
        rig.limit(Some(2), None);
        let ports = [rig.free_port(), rig.free_port(), rig.free_port()];
        let upstream = echo_server().await;
        let mut free = listener("free", ports[2], json!({}), "echo");
        free["ignore_global_conn_limit"] = true.into();
        rig.apply(
            &[static_cluster("echo", upstream)],
            &[
                listener("one", ports[0], json!({}), "echo"),
                listener("two", ports[1], json!({}), "echo"),
                free,
            ],
        );
        let mut first = connect(ports[0]).await;
        let mut second = connect(ports[1]).await;
        assert!(is_served(&mut first).await && is_served(&mut second).await);
        assert!(!is_served(&mut connect(ports[0]).await).await);
        assert!(!is_served(&mut connect(ports[1]).await).await);
        assert!(is_served(&mut connect(ports[2]).await).await);
        drop(second);
        served_at_last(ports[0]).await;
    });
}

#[test]
fn a_connection_lasts_no_longer_than_its_tcp_proxy_says() {
    run(async {
        let bounded = |port| {
            let mut bounded = listener("in", port, json!({}), "echo");
            let proxy = &mut bounded["filter_chains"][0]["filters"][0]["typed_config"];
            proxy["max_downstream_connection_duration"] = "0.05s".into();
            bounded
        };
        let (_rig, port) = Rig::echoing(bounded).await;
        let mut client = connect(port).await;
        assert!(is_served(&mut client).await);
        while is_served(&mut client).await {}
    });
}

/// May have one connection.
fn with_one_connection(mut cluster: Value) -> Value {
    cluster["circuit_breakers"] = json!({"thresholds": [{"max_connections": 1}]});
    cluster
}

/// As in Envoy, where the others' connections would starve it.
#[test]
fn an_endpoint_without_a_connection_may_have_one_beyond_the_clusters_limit() {
    run(async {
        let mut rig = Rig::new();
        let port = rig.free_port();
        let mut cluster = with_one_connection(static_cluster("two", echo_server().await));
        let second = static_cluster("two", echo_server().await);
        let endpoint = |cluster: &Value| {
            let all = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
            all[0].clone()
        };
        let both = json!([endpoint(&cluster), endpoint(&second)]);
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = both;
        rig.apply(&[cluster], &[listener("in", port, json!({}), "two")]);
        let mut first = connect(port).await;
        assert!(is_served(&mut first).await);
        let mut second = connect(port).await;
        assert!(is_served(&mut second).await);
        assert!(!is_served(&mut connect(port).await).await);
        assert!(is_served(&mut first).await && is_served(&mut second).await);
        drop(first);
        served_at_last(port).await;
    });
}

/// A connection that is kept for requests is closed for one in use.
#[test]
fn idle_connections_make_room_for_tcp() {
    run(async {
        let mut rig = Rig::new();
        let (port, other) = (rig.free_port(), rig.free_port());
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = static_cluster("app", app.local_addr().unwrap());
        let bytes = listener("bytes", port, json!({}), "app");
        rig.apply(
            &[with_one_connection(cluster)],
            &[http(other, false), bytes],
        );
        let mut client = connect(other).await;
        let request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";
        client.write_all(request).await.unwrap();
        let (mut kept, _) = app.accept().await.unwrap();
        assert!(kept.read(&mut [0; 4096]).await.unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        kept.write_all(answer).await.unwrap();
        assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
        let serving = async {
            let (mut served, _) = app.accept().await.unwrap();
            served.write_all(b"x").await.unwrap();
            served
        };
        // The client may have its response before the connection counts as idle.
        let at_last = async {
            loop {
                if let Ok(byte) = connect(port).await.read_u8().await {
                    return byte;
                }
            }
        };
        let (_served, byte) = tokio::join!(serving, at_last);
        assert_eq!(byte, b'x');
        assert_eq!(kept.read(&mut [0]).await.unwrap(), 0);
    });
}

/// Otherwise connections to upstreams are kept for an hour.
#[test]
fn idle_connections_to_upstreams_are_closed_near_a_limit() {
    run(async {
        let (rig, port, app) = Rig::before_app(|port| http(port, false)).await;
        let mut client = connect(port).await;
        let request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";
        client.write_all(request).await.unwrap();
        let (mut served, _) = app.accept().await.unwrap();
        assert!(served.read(&mut [0; 4096]).await.unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        served.write_all(answer).await.unwrap();
        assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
        let no_room = async {
            loop {
                rig.worker.overload.idle.begin(&rig.worker.timers);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut more = [0];
        tokio::select! {
            end = served.read(&mut more) => assert_eq!(end.unwrap(), 0),
            () = no_room => {}
        }
    });
}
