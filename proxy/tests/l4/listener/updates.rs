//! A listener that is updated: connections of unchanged chains continue, those of changed ones
//! drain in order.

use anyam_proxy::stream::Stream;
use anyam_proxy::tls::{ClientContext, Dial};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{self, Rig, connect, echo_server, static_cluster};
use crate::support::pki::{Ca, client, uri};
use crate::support::run;

pub(super) const FRONT: &str = "spiffe://mesh.local/ns/shop/sa/front";

/// A listener with one mTLS chain that ends in `filter`.
pub(super) fn secured(port: u16, filter: Value) -> Value {
    json!({
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "name": "secured",
            "transport_socket": rig::downstream_tls(),
            "filters": [filter],
        }],
    })
}

/// The same with another chain, which matches no connection.
fn with_another_chain(mut listener: Value) -> Value {
    let chain = json!({
        "name": "another",
        "filter_chain_match": {"destination_port": 1},
        "filters": [rig::http_direct_response(500)],
    });
    listener["filter_chains"]
        .as_array_mut()
        .unwrap()
        .push(chain);
    listener
}

/// The same with TLS settings of the chain that are others.
fn with_other_tls(mut listener: Value) -> Value {
    let socket = &mut listener["filter_chains"][0]["transport_socket"];
    socket["typed_config"]["common_tls_context"]["alpn_protocols"] = json!(["http/1.1"]);
    listener
}

pub(super) struct Peer {
    pub(super) rig: Rig,
    pub(super) ca: Ca,
    pub(super) context: ClientContext,
    pub(super) port: u16,
}

impl Peer {
    pub(super) fn new() -> Self {
        let (rig, port, ca) = Rig::of_cart();
        let identity = ca.issue(vec![uri(FRONT)]).identity();
        let context = ClientContext::new(client(Some(identity), ca.bundle()));
        Self {
            rig,
            ca,
            context,
            port,
        }
    }

    pub(super) async fn connect(&self) -> Stream {
        let tcp = connect(self.port).await;
        let tls = &self.rig.worker.tls;
        let stream = tls.connect(tcp, &self.context, &Dial::default()).await;
        stream.unwrap().into()
    }
}

/// Sends a request; returns the head of its response.
pub(super) async fn ask(stream: &mut Stream) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    head(stream).await
}

pub(super) async fn head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

pub(super) async fn echo(stream: &mut Stream) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
}

/// A peer of a secured listener that ends in `filter`, and the listener.
fn serving(filter: Value) -> (Peer, Value) {
    let mut peer = Peer::new();
    let listener = secured(peer.port, filter);
    peer.rig.apply(&[], std::slice::from_ref(&listener));
    (peer, listener)
}

#[test]
fn a_chain_that_stays_keeps_its_http_connections_and_one_that_changes_ends_them_in_order() {
    run(async {
        let (mut peer, listener) = serving(rig::http_direct_response(418));
        let (mut busy, mut idle) = (peer.connect().await, peer.connect().await);
        assert!(!ask(&mut busy).await.contains("connection: close"));
        assert!(!ask(&mut idle).await.contains("connection: close"));

        // Another chain, and another answer of the same one: no connection ends.
        peer.rig.apply(&[], &[with_another_chain(listener.clone())]);
        assert!(!ask(&mut busy).await.contains("connection: close"));
        let mut other = secured(peer.port, rig::http_direct_response(200));
        other = with_another_chain(other);
        peer.rig.apply(&[], &[other.clone()]);
        let answer = ask(&mut busy).await;
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");

        // Its TLS: a request under way is answered, then the connection ends; an idle one at once.
        // Its beginning came with a request that was answered, so it was read.
        let both = b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n";
        busy.write_all(both).await.unwrap();
        busy.flush().await.unwrap();
        head(&mut busy).await;
        peer.rig.apply(&[], &[with_other_tls(other)]);
        busy.write_all(b"host: x\r\n\r\n").await.unwrap();
        busy.flush().await.unwrap();
        let mut answer = Vec::new();
        busy.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn sessions_can_be_resumed_after_an_update_that_leaves_tls_alone() {
    run(async {
        let (mut peer, listener) = serving(rig::http_direct_response(418));
        // The answer comes after the ticket.
        ask(&mut peer.connect().await).await;
        peer.rig.apply(&[], &[with_another_chain(listener)]);
        let mut again = peer.connect().await;
        assert!(again.tls_info().unwrap().resumed);
        ask(&mut again).await;
    });
}

#[test]
fn bytes_go_on_whatever_becomes_of_their_chain() {
    run(async {
        let mut peer = Peer::new();
        let upstream = echo_server().await;
        let listener = secured(peer.port, rig::tcp_proxy("echo"));
        let cluster = static_cluster("echo", upstream);
        peer.rig.apply(&[cluster], std::slice::from_ref(&listener));
        let mut stream = peer.connect().await;
        echo(&mut stream).await;
        peer.rig.apply(&[], &[with_another_chain(listener.clone())]);
        echo(&mut stream).await;
        peer.rig.apply(&[], &[with_other_tls(listener.clone())]);
        echo(&mut stream).await;
        // It drains, and is its listener's own again once that is back, and with it the policy.
        peer.rig.remove_listener("in");
        echo(&mut stream).await;
        peer.rig.apply(&[], std::slice::from_ref(&listener));
        echo(&mut stream).await;
        peer.rig.remove_listener("in");
        echo(&mut stream).await;
        peer.rig.apply(&[], &[denying(listener)]);
        assert!(is_cut(&mut stream).await);
    });
}

/// Whether the proxy closes the connection. If it does not, the test's own time-out fails it.
pub(super) async fn is_cut(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    loop {
        match stream.read(&mut [0; 1024]).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

pub(super) fn denying(mut listener: Value) -> Value {
    let filters = &mut listener["filter_chains"][0]["filters"];
    let filters = filters.as_array_mut().unwrap();
    filters.insert(0, rig::rbac("DENY", FRONT));
    listener
}

/// Accepts mTLS, and plaintext too if `plain`.
pub(super) fn permissive(port: u16, filter: Value, plain: bool, only_port: bool) -> Value {
    let mut secured = secured(port, filter.clone());
    secured["listener_filters"] = json!([rig::listener_filter("tls_inspector", "TlsInspector")]);
    let chains = secured["filter_chains"].as_array_mut().unwrap();
    chains[0]["filter_chain_match"] = json!({"transport_protocol": "tls"});
    if only_port {
        chains[0]["filter_chain_match"]["destination_port"] = port.into();
    }
    if plain {
        chains.push(json!({
            "name": "plain",
            "filter_chain_match": {"transport_protocol": "raw_buffer"},
            "filters": [filter],
        }));
    }
    secured
}

#[test]
fn plaintext_that_is_not_taken_any_more_is_cut() {
    run(async {
        // Either there is no chain for plaintext any more, or one that fits better requires TLS.
        for (plain, only_port) in [(false, false), (true, true)] {
            let (mut rig, port, _ca) = Rig::of_cart();
            let filter = rig::tcp_proxy("echo");
            let cluster = static_cluster("echo", echo_server().await);
            rig.apply(&[cluster], &[permissive(port, filter.clone(), true, false)]);
            let mut bytes = connect(port).await;
            bytes.write_all(b"hello").await.unwrap();
            bytes.read_exact(&mut [0; 5]).await.unwrap();
            rig.apply(&[], &[permissive(port, filter, plain, only_port)]);
            assert!(is_cut(&mut bytes).await);

            let filter = rig::http_direct_response(200);
            rig.apply(&[], &[permissive(port, filter.clone(), true, false)]);
            let accepted = |count| format!("connections_active{{listener=\"in\"}} {count}");
            rig.until(|| rig.metric(&accepted(0))).await;
            let (mut idle, mut begun) = (connect(port).await, connect(port).await);
            let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
            idle.write_all(request).await.unwrap();
            let mut head = [0; 12];
            idle.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            // In the middle of a second head, which was read with the request before it.
            begun
                .write_all(&[request, &b"GET / HT"[..]].concat())
                .await
                .unwrap();
            begun.read_exact(&mut head).await.unwrap();
            rig.apply(&[], &[permissive(port, filter, plain, only_port)]);
            assert!(is_cut(&mut idle).await);
            assert!(is_cut(&mut begun).await);
        }
    });
}

/// The first message of a TLS client that asks for `name`.
fn client_hello(name: &'static str) -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// TLS that is passed through is evaluated again by the ClientHello that it began with.
#[test]
fn passed_through_tls_is_evaluated_by_its_server_name() {
    run(async {
        let mut rig = Rig::new();
        let port = rig.free_port();
        let cluster = static_cluster("echo", echo_server().await);
        let through = |name: &str, filters: Value| {
            json!({
                "name": name,
                "filter_chain_match": {"server_names": [name], "transport_protocol": "tls"},
                "filters": filters,
            })
        };
        let mut listener = secured(port, rig::tcp_proxy("echo"));
        listener["listener_filters"] =
            json!([rig::listener_filter("tls_inspector", "TlsInspector")]);
        let filters = json!([rig::tcp_proxy("echo")]);
        listener["filter_chains"] = json!([through("*.example.com", filters)]);
        rig.apply(&[cluster], std::slice::from_ref(&listener));
        let mut open = Vec::new();
        for name in ["cart.example.com", "web.example.com"] {
            let hello = client_hello(name);
            let mut stream: Stream = connect(port).await.into();
            stream.write_all(&hello).await.unwrap();
            stream.read_exact(&mut vec![0; hello.len()]).await.unwrap();
            open.push(stream);
        }
        let mut deny = rig::rbac("DENY", FRONT);
        let policy = &mut deny["typed_config"]["rules"]["policies"]["one"];
        policy["principals"] = json!([{"any": true}]);
        let filters = json!([deny, rig::tcp_proxy("echo")]);
        let denying = through("cart.example.com", filters);
        let chains = listener["filter_chains"].as_array_mut().unwrap();
        chains.push(denying);
        rig.apply(&[], &[listener]);
        assert!(is_cut(&mut open[0]).await);
        echo(&mut open[1]).await;
    });
}

/// Rules by the requested server name apply to TLS that passes through for as long as it is open.
#[test]
fn an_open_connection_is_evaluated_by_its_server_name() {
    run(async {
        let mut rig = Rig::new();
        let port = rig.free_port();
        let cluster = static_cluster("echo", echo_server().await);
        let listener = |action: &str, name: &str| {
            let mut rules = rig::rbac(action, FRONT);
            let policy = &mut rules["typed_config"]["rules"]["policies"]["one"];
            policy["principals"] = json!([{"any": true}]);
            policy["permissions"] = json!([{"requested_server_name": {"exact": name}}]);
            let mut listener = secured(port, rig::tcp_proxy("echo"));
            listener["listener_filters"] =
                json!([rig::listener_filter("tls_inspector", "TlsInspector")]);
            listener["filter_chains"] =
                json!([{"name": "through", "filters": [rules, rig::tcp_proxy("echo")]}]);
            listener
        };
        rig.apply(&[cluster], &[listener("ALLOW", "cart.example.com")]);
        let hello = client_hello("cart.example.com");
        let mut stream: Stream = connect(port).await.into();
        stream.write_all(&hello).await.unwrap();
        stream.read_exact(&mut vec![0; hello.len()]).await.unwrap();
        let mut same = listener("ALLOW", "cart.example.com");
        same["filter_chains"][0]["name"] = json!("another name");
        rig.apply(&[], &[same]);
        echo(&mut stream).await;
        rig.apply(&[], &[listener("DENY", "cart.example.com")]);
        assert!(is_cut(&mut stream).await);
    });
}

/// The same connections stay open if another chain admits them unchanged.
#[test]
fn a_chain_replaced_by_an_equal_one_closes_no_connection() {
    run(async {
        let (mut rig, port, _ca) = Rig::of_cart();
        let cluster = static_cluster("echo", echo_server().await);
        let before = permissive(port, rig::tcp_proxy("echo"), true, false);
        let mut after = before.clone();
        after["filter_chains"][1]["name"] = json!("another");
        rig.apply(&[cluster], &[before]);
        let mut bytes: Stream = connect(port).await.into();
        echo(&mut bytes).await;
        rig.apply(&[], &[after]);
        echo(&mut bytes).await;
    });
}
