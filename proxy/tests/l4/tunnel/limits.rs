//! Limits of connections count those inside tunnels; idle connections are closed for new ones,
//! inside and outside of tunnels.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::StatusCode;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::pair::{Pair, Setup, inbound_listener};
use super::requests::{connect_request, hbone};
use crate::listener::rig::{connect, http_direct_response};
use crate::support::run;

const MOST: usize = 10;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Two sidecars; the called one serves HTTP in tunnels and accepts [`MOST`] connections in all.
fn limited(app: SocketAddr) -> Pair {
    let mut pair = Pair::to(app);
    let mut listener = inbound_listener(pair.inbound, app.port(), &Setup::default());
    let chain = &mut listener["filter_chains"][1];
    chain["filters"] = json!([http_direct_response(200)]);
    chain["filter_chain_match"]["application_protocols"] = json!(["anyam-http/1.1"]);
    pair.called.limit_closing_idle("inbound", MOST as u64);
    pair.called.apply(&[], &[listener]);
    pair
}

struct Inside {
    status: StatusCode,
    _ends: (h2::SendStream<Bytes>, h2::RecvStream),
}

async fn inside(send: &SendRequest<Bytes>, app: SocketAddr) -> Inside {
    let mut send = send.clone().ready().await.unwrap();
    let request = connect_request(&app.to_string());
    let (answer, stream) = send.send_request(request, false).unwrap();
    let (head, body) = answer.await.unwrap().into_parts();
    Inside {
        status: head.status,
        _ends: (stream, body),
    }
}

#[test]
fn idle_connections_inside_make_room() {
    run(async {
        let app = SocketAddr::from(([127, 0, 0, 1], 9));
        let pair = limited(app);
        let send = hbone(&pair).await;
        let mut idle = Vec::new();
        for _ in 1..MOST {
            let opened = inside(&send, app).await;
            assert_eq!(opened.status, 200);
            idle.push(opened);
        }
        assert_eq!(inside(&send, app).await.status, 503);
        // There is no new connection from outside that could trigger it.
        while inside(&send, app).await.status != 200 {
            tokio::time::sleep(PAUSE).await;
        }
        let closed = "anyam_listener_idle_closed_total{listener=\"inbound\"} 0\n";
        assert!(!pair.called.metric(closed));
    });
}

#[test]
fn idle_connections_without_tunnels_make_room() {
    run(async {
        let pair = limited(SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut around = Vec::new();
        for _ in 0..MOST {
            around.push(hbone(&pair).await);
        }
        loop {
            let mut tcp = connect(pair.inbound).await;
            // An accepted connection waits for its first bytes; one that is not accepted is reset.
            if tokio::time::timeout(PAUSE, tcp.read(&mut [0]))
                .await
                .is_err()
            {
                return;
            }
        }
    });
}
