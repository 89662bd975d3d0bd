//! What a bootstrap has besides its resources.

use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ads::{all_to, http_listener, rds, static_cluster};
use crate::ports::free_port;
use crate::process::{Proxy, first_status, upstream};

const LIMIT: &str = "type.googleapis.com/envoy.extensions.resource_monitors\
                     .downstream_connections.v3.DownstreamConnectionsConfig";

/// A connection that was let in and waits for its next request; `None`: it was reset, at once or
/// when it was used.
async fn enter(port: u16) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let answered = stream.read(&mut [0; 512]).await.ok()? > 0;
    answered.then_some(stream)
}

#[tokio::test]
async fn the_overload_manager_bounds_the_connections_of_all_workers() {
    let port = free_port();
    let listener = http_listener("in", port, all_to("up"));
    let resources = json!({
        "listeners": [listener],
        "clusters": [static_cluster("up", upstream().await)],
    });
    let monitor = json!({"name": "limit", "typed_config": {
        "@type": LIMIT, "max_active_downstream_connections": 3}});
    let _proxy = Proxy::start(json!({
        "static_resources": resources,
        "overload_manager": {"resource_monitors": [monitor]},
    }));
    assert_eq!(first_status(port).await, 200);
    let mut open = Vec::new();
    // The first one's place may not be free again at once.
    while open.len() < 3 {
        open.extend(enter(port).await);
    }
    for _ in 0..5 {
        assert!(enter(port).await.is_none());
    }
    drop(open);
    first_status(port).await;
}

#[test]
fn resources_that_cannot_come_keep_the_proxy_from_starting() {
    let listener = http_listener("in", free_port(), rds("shop", "1s"));
    let bootstrap = json!({"static_resources": {"listeners": [listener]}}).to_string();
    for mode in ["serve", "validate"] {
        let output = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"))
            .args(["--config-yaml", &bootstrap, "--mode", mode])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{mode}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("\"shop\" comes over ads"), "{mode}: {said}");
    }
}
