//! The dialler without a worker, on a runtime of one thread like the control thread's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::compile::{Changes, Compiler, SecretStore};
use anyam_proxy::dispatcher::buffer::Pool;
use anyam_proxy::dispatcher::timer::{TimerFd, Timers};
use anyam_proxy::log_sink::Sinks;
use anyam_proxy::metrics::Registry;
use anyam_proxy::snapshot::{Snapshot, Store};
use anyam_proxy::stream::Stream;
use anyam_proxy::tls::{Dial, Handshaker, ServerContext};
use anyam_proxy::upstream::connect::{ConnectError, Dialler};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xds_proto::json::decode_json;

use crate::support::pki::{Ca, Issued, server, uri};

const CART: &str = "spiffe://mesh.local/ns/shop/sa/cart";
const FRONT: &str = "spiffe://mesh.local/ns/shop/sa/front";

fn cluster(address: SocketAddr, timeout: &str, transport: Option<Value>) -> Value {
    let endpoint = json!({"address": {"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port()}}});
    let mut cluster = json!({
        "name": "cart",
        "type": "STATIC",
        "connect_timeout": timeout,
        "load_assignment": {
            "cluster_name": "cart",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    });
    if let Some(transport) = transport {
        cluster["transport_socket"] = transport;
    }
    cluster
}

fn tls(own: &Issued, ca: &Ca) -> Value {
    let pem = |label: &str, der: &[u8]| pem::encode(&pem::Pem::new(label, der));
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{
                    "certificate_chain": {"inline_string": pem("CERTIFICATE", &own.chain[0])},
                    "private_key": {"inline_string": own.key.serialize_pem()},
                }],
                "validation_context": {"trusted_ca": {"inline_string": ca.pem()}},
                "alpn_protocols": ["anyam-tcp"],
            },
        },
    })
}

/// Compiles a cluster from its protobuf and dials its endpoint beside `peer`, on a runtime that
/// does nothing else.
fn dial<T>(cluster: &Value, peer: impl Future<Output = T>) -> (Result<Stream, ConnectError>, T) {
    let registry = Registry::new().unwrap();
    let dropped = prometheus::IntCounter::new("dropped", "dropped").unwrap();
    let sinks = Arc::new(Sinks::new(dropped, 16 << 10));
    let mut compiler = Compiler::new(&registry, sinks, Arc::new(SecretStore::default())).unwrap();
    let store = Store::new(Snapshot::default());
    let changes = Changes {
        clusters: vec![("cart".into(), Some(decode_json(cluster).unwrap()))],
        ..Changes::default()
    };
    let outcome = compiler.apply(&store, changes);
    assert!(outcome.rejected.is_empty());
    let cluster = store.load().clusters["cart"].clone();
    let endpoint = cluster.endpoints.load().all().next().unwrap().clone();

    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().build().unwrap();
    runtime.block_on(async {
        let timers = Timers::new();
        let timer_fd = TimerFd::new().unwrap();
        let dialler = Dialler {
            timers: timers.clone(),
            tls: Handshaker::new(Pool::default(), 8),
        };
        let dial = Dial::default();
        let both = async { tokio::join!(dialler.connect(&cluster, &endpoint, &dial), peer) };
        tokio::select! {
            both = timers.timeout(Duration::from_secs(20), both) => both.expect("the test hangs"),
            () = timers.drive(&timer_fd) => panic!("the timers end"),
        }
    })
}

/// A listening socket that is not bound to a runtime yet.
fn bound() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn plain_tcp_is_dialled() {
    let (listener, address) = bound();
    let peer = async {
        let listener = TcpListener::from_std(listener).unwrap();
        listener.accept().await.unwrap().0
    };
    let (dialled, accepted) = dial(&cluster(address, "2s", None), peer);
    let dialled = dialled.unwrap();
    assert!(dialled.tls_info().is_none());
    assert_eq!(dialled.local_addr(), accepted.peer_addr().ok());
}

#[test]
fn tls_is_dialled_and_both_ends_are_verified() {
    let ca = Ca::new();
    let cart = ca.issue(vec![uri(CART)]).identity();
    let front = ca.issue(vec![uri(FRONT)]);
    let context = ServerContext::new(server(cart, Some(ca.bundle())));
    let (listener, address) = bound();
    let peer = async {
        let listener = TcpListener::from_std(listener).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let handshaker = Handshaker::new(Pool::default(), 8);
        let accepted = handshaker.accept(accepted, b"", &context).await.unwrap();
        accepted.info().peer.as_ref().unwrap().as_str().to_owned()
    };
    let (dialled, caller) = dial(&cluster(address, "2s", Some(tls(&front, &ca))), peer);
    assert_eq!(caller, FRONT);
    let dialled = dialled.unwrap();
    let callee = dialled.tls_info().unwrap().peer.as_ref().unwrap();
    assert_eq!(callee.as_str(), CART);
}

#[test]
fn the_time_out_covers_the_handshake() {
    let ca = Ca::new();
    let front = ca.issue(vec![uri(FRONT)]);
    // The kernel accepts the connection, and no byte is ever sent back.
    let (_listener, address) = bound();
    let cluster = cluster(address, "0.2s", Some(tls(&front, &ca)));
    let (dialled, ()) = dial(&cluster, async {});
    assert!(
        matches!(dialled, Err(ConnectError::Timeout(_))),
        "{:?}",
        dialled.err()
    );
}
