//! Connections that a new configuration would no longer accept: no further byte is forwarded.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyam_proxy::stream::Stream;
use anyam_proxy::tls::{ClientContext, Dial};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::rig::{self, connect, echo_server, static_cluster};
use super::updates::{FRONT, Peer, ask, denying, echo, head, is_cut, permissive, secured};
use crate::support::pki::client;
use crate::support::run;

/// An upstream that counts its connections.
async fn counted() -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Rc::new(Cell::new(0));
    let counting = count.clone();
    spawn_local(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counting.set(counting.get() + 1);
            held.push(stream);
        }
    });
    (address, count)
}

/// A policy that is published during a connection's handshake applies to the connection: the app is
/// not even dialled.
#[test]
fn a_policy_that_is_published_during_a_handshake_applies() {
    run(async {
        for filter in [rig::tcp_proxy("app"), rig::http_direct_response(200)] {
            let mut peer = Peer::new();
            let (upstream, dialled) = counted().await;
            let cluster = static_cluster("app", upstream);
            let listener = secured(peer.port, filter);
            peer.rig.apply(&[cluster], std::slice::from_ref(&listener));
            let tcp = connect(peer.port).await;
            let accepted = "anyam_listener_connections_total{listener=\"in\"} 1";
            peer.rig.until(|| peer.rig.metric(accepted)).await;
            peer.rig.apply(&[], &[denying(listener)]);
            let tls = &peer.rig.worker.tls;
            let stream = tls.connect(tcp, &peer.context, &Dial::default()).await;
            let mut stream: Stream = match stream {
                Ok(stream) => stream.into(),
                Err(_) => continue,
            };
            // The connection may be closed before or after this.
            let _ = stream.write_all(b"hello").await;
            assert!(is_cut(&mut stream).await);
            assert_eq!(dialled.get(), 0);
        }
    });
}

/// Bytes that a relay forwards would be checked by HTTP filters.
#[test]
fn relays_end_when_their_port_becomes_http() {
    run(async {
        let mut peer = Peer::new();
        let cluster = static_cluster("echo", echo_server().await);
        let bytes = |port| secured(port, rig::tcp_proxy("echo"));
        peer.rig.apply(&[cluster], &[bytes(peer.port)]);
        let mut stream = peer.connect().await;
        echo(&mut stream).await;
        let http = secured(peer.port, rig::http_direct_response(200));
        peer.rig.apply(&[], &[http]);
        assert!(is_cut(&mut stream).await);

        peer.rig.apply(
            &[],
            &[permissive(peer.port, rig::tcp_proxy("echo"), true, false)],
        );
        let mut plain: Stream = connect(peer.port).await.into();
        echo(&mut plain).await;
        let http = permissive(peer.port, rig::http_direct_response(200), true, false);
        peer.rig.apply(&[], &[http]);
        assert!(is_cut(&mut plain).await);
    });
}

/// The validation context of a listener's chain.
fn with_validation(mut listener: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut listener["filter_chains"][0]["transport_socket"]["typed_config"]);
    listener
}

#[test]
fn stricter_tls_ends_connections_that_it_would_not_accept() {
    run(async {
        let mut peer = Peer::new();
        let cluster = static_cluster("echo", echo_server().await);
        let strict = secured(peer.port, rig::tcp_proxy("echo"));
        let lenient = with_validation(strict.clone(), |tls| {
            tls["require_client_certificate"] = json!(false);
        });
        peer.rig.apply(&[cluster], std::slice::from_ref(&lenient));
        let anonymous = ClientContext::new(client(None, peer.ca.bundle()));
        let tls = peer.rig.worker.tls.clone();
        let tcp = connect(peer.port).await;
        let stream = tls.connect(tcp, &anonymous, &Dial::default()).await;
        let mut anonymous: Stream = stream.unwrap().into();
        let mut known = peer.connect().await;
        echo(&mut anonymous).await;
        echo(&mut known).await;
        peer.rig.apply(&[], &[strict]);
        echo(&mut known).await;
        assert!(is_cut(&mut anonymous).await);

        let only = |name: &str| {
            with_validation(lenient.clone(), |tls| {
                let common = tls["common_tls_context"].as_object_mut().unwrap();
                let trust = common.remove("validation_context_sds_secret_config");
                let san = json!({"san_type": "URI", "matcher": {"exact": name}});
                common.insert(
                    "combined_validation_context".to_owned(),
                    json!({
                        "default_validation_context": {"match_typed_subject_alt_names": [san]},
                        "validation_context_sds_secret_config": trust,
                    }),
                );
            })
        };
        peer.rig.apply(&[], &[only(FRONT)]);
        echo(&mut known).await;
        peer.rig
            .apply(&[], &[only("spiffe://mesh.local/ns/shop/sa/other")]);
        assert!(is_cut(&mut known).await);
    });
}

/// A chain that replaces another authorises the remaining requests of that one's connections.
#[test]
fn a_request_is_authorised_by_the_chain_that_would_accept_its_connection() {
    run(async {
        let mut peer = Peer::new();
        let before = secured(peer.port, rig::http_direct_response(200));
        peer.rig.apply(&[], std::slice::from_ref(&before));
        let mut stream = peer.connect().await;
        assert!(ask(&mut stream).await.starts_with("http/1.1 200"));
        let both = b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n";
        stream.write_all(both).await.unwrap();
        stream.flush().await.unwrap();
        head(&mut stream).await;
        let mut after = before;
        let chain = &mut after["filter_chains"][0];
        chain["filter_chain_match"] = json!({"destination_port": peer.port});
        let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
        let mut rules = rig::rbac("DENY", FRONT);
        rules["name"] = json!("envoy.filters.http.rbac");
        rules["typed_config"]["@type"] = json!(kind);
        rules["typed_config"]
            .as_object_mut()
            .unwrap()
            .remove("stat_prefix");
        let filters = &mut chain["filters"][0]["typed_config"]["http_filters"];
        filters.as_array_mut().unwrap().insert(0, rules);
        peer.rig.apply(&[], &[after]);
        stream.write_all(b"host: x\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with("http/1.1 403"), "{answer}");
    });
}
