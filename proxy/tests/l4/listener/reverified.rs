//! All peers are verified again, even when verifying one of them panics.

use anyam_proxy::bug;
use anyam_proxy::stream::Stream;
use anyam_proxy::tls::{ClientContext, Dial};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{self, Rig, connect, echo_server, static_cluster};
use crate::support::pki::{Ca, client, uri};
use crate::support::run;

/// Peers with a certificate each.
const PEERS: [&str; 4] = ["a", "b", "c", "d"];

/// While the connection is open, its bytes are echoed.
async fn is_cut(stream: &mut Stream) -> bool {
    let mut byte = [0];
    matches!(stream.read(&mut byte).await, Ok(0) | Err(_))
}

#[test]
fn no_peer_is_left_out_when_verifying_one_panics() {
    for place in ["peer", "reverify"] {
        run(async move {
            let mut rig = Rig::new();
            let (port, ca) = (rig.free_port(), Ca::new());
            let shown = ca.issue(vec![uri("spiffe://mesh.local/ns/shop/sa/cart")]);
            rig.secrets(&shown, &ca);
            let chain = json!({
                "name": "secured",
                "transport_socket": rig::downstream_tls(),
                "filters": [rig::tcp_proxy("echo")],
            });
            let listener = json!({
                "name": "in",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [chain],
            });
            let echo = echo_server().await;
            rig.apply(&[static_cluster("echo", echo)], &[listener]);
            let mut streams = Vec::new();
            for name in PEERS {
                let spiffe = format!("spiffe://mesh.local/ns/shop/sa/{name}");
                let identity = ca.issue(vec![uri(&spiffe)]).identity();
                let context = ClientContext::new(client(Some(identity), ca.bundle()));
                let tcp = connect(port).await;
                let tls = &rig.worker.tls;
                let stream = tls.connect(tcp, &context, &Dial::default()).await;
                let mut stream = Stream::from(stream.unwrap());
                stream.write_all(b"x").await.unwrap();
                stream.flush().await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
                streams.push(stream);
            }
            bug::panic_at(std::thread::current().id(), place);
            // No certificate of this CA is trusted any more.
            rig.secrets(&shown, &Ca::new());
            rig.store.notify();
            for stream in &mut streams {
                assert!(is_cut(stream).await, "{place}");
            }
        });
    }
}
