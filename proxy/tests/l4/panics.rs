//! A panic costs the connection, tunnel or handshake that it happens in: whatever else is open goes
//! on, the next one is served, and nothing that was taken stays taken. Everything runs on one thread.

use anyam_proxy::bug;
use anyam_proxy::tls::ClientContext;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::listener::rig::{
    Rig, connect, downstream_tls, echo_server, listener, listener_filter, static_cluster,
};
use crate::support::pki::{client, uri};
use crate::support::run;
use crate::tunnel::pair::{Pair, echoes};

/// More often than there are permits or places for handshakes.
const ROUNDS: usize = 6;

fn panic_at(place: &'static str) {
    bug::count_panics();
    bug::panic_at(std::thread::current().id(), place);
}

/// The connection ends without an answer.
async fn is_cut(stream: &mut TcpStream) {
    // An error where it was reset already.
    let _ = stream.write_all(b"hello").await;
    let got = stream.read(&mut [0; 8]).await;
    assert!(matches!(got, Ok(0) | Err(_)), "{got:?}");
}

/// A rig whose listener `in` may have two connections, to a cluster `echo` that may have two.
async fn limited(listener: impl FnOnce(u16) -> serde_json::Value, mut rig: Rig, port: u16) -> Rig {
    rig.limit(None, Some(("in", 2)));
    let mut cluster = static_cluster("echo", echo_server().await);
    cluster["circuit_breakers"] = json!({"thresholds": [{"max_connections": 2}]});
    rig.apply(&[cluster], &[listener(port)]);
    rig
}

async fn is_idle(rig: &Rig) {
    rig.until(|| {
        rig.metric("anyam_listener_connections_active{listener=\"in\"} 0")
            && rig.metric("anyam_cluster_connections_active{cluster=\"echo\"} 0")
    })
    .await;
    let (opened, closed) = (
        rig.total("istio_tcp_connections_opened_total"),
        rig.total("istio_tcp_connections_closed_total"),
    );
    assert!(opened == closed, "{opened} opened, {closed} closed");
}

#[test]
fn a_panic_costs_its_connection_and_nothing_else() {
    run(async {
        // While its first bytes are read, before it is authorised, before its upstream is dialled,
        // and while it is relayed.
        for place in ["first_bytes", "admission", "tcp_dial", "relayed"] {
            let rig = Rig::new();
            let port = rig.free_port();
            let detecting = |port| {
                let mut listener = listener("in", port, json!({}), "echo");
                listener["listener_filters"] =
                    json!([listener_filter("tls_inspector", "TlsInspector")]);
                let mut tls = listener["filter_chains"][0].clone();
                tls["name"] = "tls".into();
                tls["filter_chain_match"] = json!({"transport_protocol": "tls"});
                listener["filter_chains"].as_array_mut().unwrap().push(tls);
                listener
            };
            let rig = limited(detecting, rig, port).await;
            let mut other = connect(port).await;
            echoes(&mut other, b"before").await;
            let before = bug::panics();
            for _ in 0..ROUNDS {
                let mut client = connect(port).await;
                if place == "relayed" {
                    // A stream that is under way is reset, and does not look complete.
                    echoes(&mut client, b"hello").await;
                    panic_at(place);
                    let _ = client.write_all(b"more").await;
                    assert!(client.read(&mut [0; 8]).await.is_err());
                } else {
                    panic_at(place);
                    is_cut(&mut client).await;
                }
            }
            assert!(bug::panics() >= before + ROUNDS as u64, "{place}");
            echoes(&mut other, b"after").await;
            let mut next = connect(port).await;
            echoes(&mut next, b"next").await;
            drop((other, next));
            is_idle(&rig).await;
        }
    });
}

/// The client is another TLS stack: ours would come by the same place.
#[test]
fn a_panic_in_a_handshake_costs_that_connection() {
    run(async {
        let (rig, port, ca) = Rig::of_cart();
        let secured = |port| {
            let mut listener = listener("in", port, json!({}), "echo");
            listener["filter_chains"][0]["transport_socket"] = downstream_tls();
            listener
        };
        let rig = limited(secured, rig, port).await;
        let identity = ca.issue(vec![uri("spiffe://mesh.local/ns/shop/sa/front")]);
        let context = ClientContext::new(client(Some(identity.identity()), ca.bundle()));
        let connector = tokio_rustls::TlsConnector::from(context.rustls_config().unwrap());
        let secure = async || {
            let name = rustls_pki_types::ServerName::try_from("cart").unwrap();
            connector.connect(name, connect(port).await).await
        };
        let talks = async |stream: &mut tokio_rustls::client::TlsStream<TcpStream>| {
            stream.write_all(b"hello").await.unwrap();
            stream.read_exact(&mut [0; 5]).await.unwrap();
        };
        let mut other = secure().await.unwrap();
        talks(&mut other).await;
        for _ in 0..ROUNDS {
            panic_at("tls_step");
            assert!(secure().await.is_err());
        }
        let mut next = secure().await.unwrap();
        talks(&mut next).await;
        talks(&mut other).await;
        drop((other, next));
        is_idle(&rig).await;
    });
}

#[test]
fn a_panic_costs_its_tunnel_and_not_the_others_of_its_connection() {
    run(async {
        let pair = Pair::to(echo_server().await);
        let mut other = pair.client().await;
        echoes(&mut other, b"before").await;
        for _ in 0..ROUNDS {
            let mut client = pair.client().await;
            echoes(&mut client, b"hello").await;
            // On whichever side comes by first.
            panic_at("tunnel_stream");
            let _ = client.write_all(b"more").await;
            assert!(client.read(&mut [0; 8]).await.is_err());
            echoes(&mut other, b"goes on").await;
            // Where the caller opens it, and where the called side accepts it.
            for place in ["tunnel_open", "tunnel_accept"] {
                panic_at(place);
                is_cut(&mut pair.client().await).await;
                echoes(&mut other, b"goes on").await;
            }
        }
        let mut next = pair.client().await;
        echoes(&mut next, b"next").await;
        assert!(pair.carriers(1));
        drop((other, next));
        let idle = "anyam_listener_connections_active{listener=\"front\"} 0";
        pair.caller.until(|| pair.caller.metric(idle)).await;
        // The connection that carried them.
        let open = "anyam_listener_connections_active{listener=\"inbound\"} 1";
        pair.called.until(|| pair.called.metric(open)).await;
    });
}

/// Others wait for that connection.
#[test]
fn a_panic_while_the_carrying_connection_is_made_lets_others_make_it() {
    run(async {
        let pair = Pair::to(echo_server().await);
        panic_at("tunnel_carrier");
        let (mut first, mut second) = (pair.client().await, pair.client().await);
        let mut got = [0; 8];
        let (cut, ()) = tokio::join!(first.read(&mut got), echoes(&mut second, b"second"));
        assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
        echoes(&mut pair.client().await, b"third").await;
    });
}
