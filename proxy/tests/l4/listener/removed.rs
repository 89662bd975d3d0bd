//! A listener that is removed: its connections drain, and what is left of them is closed at the end of
//! that.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::rig::{Rig, connect, echo_server, http_direct_response, listener, static_cluster};
use super::updates::is_cut;
use crate::stalled::http;
use crate::support::run;

#[test]
fn connections_of_a_removed_listener_end_with_its_drain() {
    run(async {
        let mut rig = Rig::new();
        rig.drain_time(Duration::from_millis(100));
        let (port, other) = (rig.free_port(), rig.free_port());
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clusters = [
            static_cluster("echo", echo_server().await),
            static_cluster("app", app.local_addr().unwrap()),
        ];
        let listeners = [
            listener("bytes", port, json!({}), "echo"),
            http(other, false),
        ];
        rig.apply(&clusters, &listeners);
        let mut bytes = connect(port).await;
        bytes.write_all(b"x").await.unwrap();
        bytes.read_exact(&mut [0]).await.unwrap();
        // The app never answers.
        let mut client = connect(other).await;
        let request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";
        client.write_all(request).await.unwrap();
        let (mut served, _) = app.accept().await.unwrap();
        assert!(served.read(&mut [0; 4096]).await.unwrap() > 0);

        // Something else is published meanwhile.
        rig.remove_listener("bytes");
        rig.remove_listener("in");
        let mut unrelated = listener("other", rig.free_port(), json!({}), "echo");
        unrelated["filter_chains"][0]["filters"] = json!([http_direct_response(200)]);
        rig.apply(&[], &[unrelated]);
        assert!(is_cut(&mut bytes).await);
        assert!(is_cut(&mut client).await);
        assert!(is_cut(&mut served).await);
        let open = |name| rig.metric(&format!("connections_active{{listener=\"{name}\"}} 1"));
        rig.until(|| !open("bytes") && !open("in")).await;
    });
}
