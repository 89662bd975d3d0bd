//! The end of a process, with what the control plane has taken away before.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use xds_proto::type_url;

use crate::ads::{ControlPlane, listener, static_cluster};
use crate::ports::free_port;
use crate::process::Proxy;

async fn echo() -> std::net::SocketAddr {
    let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = sockets.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = sockets.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = tcp.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn is_echoed(tcp: &mut TcpStream) -> bool {
    let mut byte = [0];
    tcp.write_all(b"x").await.is_ok() && matches!(tcp.read(&mut byte).await, Ok(1))
}

#[tokio::test]
async fn a_drain_waits_for_connections_of_a_listener_that_was_removed() {
    let mut control = ControlPlane::start().await;
    let app = static_cluster("app", echo().await);
    let mut proxy = Proxy::draining_for(control.bootstrap(&[], &[app]), 60);
    let mut stream = control.stream().await;
    stream.asked_for(type_url::LISTENER, "*").await;
    let port = free_port();
    let tcp_proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "app"});
    let value = json!({
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": tcp_proxy}]}],
    });
    stream.give(listener("1", &value)).await;
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(is_echoed(&mut tcp).await);
    stream.remove(type_url::LISTENER, "in").await;
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    proxy.terminate();
    while proxy.is_live().await {
        tokio::task::yield_now().await;
    }
    // Longer than it takes a drain to find out that nothing is left.
    for _ in 0..20 {
        assert!(is_echoed(&mut tcp).await, "cut in the middle of a drain");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    drop(tcp);
    let status = tokio::task::spawn_blocking(move || proxy.ended()).await;
    assert!(status.unwrap().success());
}
