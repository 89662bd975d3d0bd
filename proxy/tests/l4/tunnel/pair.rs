//! Two sidecars with a tunnel between them: `front` takes clients, `inbound` takes the tunnel.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::listener::rig::{Rig, connect, downstream_tls, original_dst_cluster, tcp_proxy};
use crate::support::pki::{Ca, uri};

pub const FRONT: &str = "spiffe://mesh.local/ns/shop/sa/front";
pub const CART: &str = "spiffe://mesh.local/ns/shop/sa/cart";

pub struct Pair {
    pub caller: Rig,
    pub called: Rig,
    pub front: u16,
    pub inbound: u16,
    pub ca: Ca,
}

/// What may differ.
#[derive(Default)]
pub struct Setup {
    /// Filters before the TCP proxy of the chain for the app.
    pub filters: Vec<Value>,
    pub tunnel: Value,
    pub http2: Value,
}

impl Pair {
    pub fn to(app: SocketAddr) -> Self {
        Self::with(app, Setup::default())
    }

    pub fn with(app: SocketAddr, setup: Setup) -> Self {
        let ca = Ca::new();
        let (mut caller, mut called) = (Rig::new(), Rig::new());
        caller.secrets(&ca.issue(vec![uri(FRONT)]), &ca);
        called.secrets(&ca.issue(vec![uri(CART)]), &ca);
        let (front, inbound) = (caller.free_port(), called.free_port());
        called.apply(
            &[original_dst_cluster("app")],
            &[inbound_listener(inbound, app.port(), &setup)],
        );
        let mut cluster = peer(app, inbound);
        if !setup.http2.is_null() {
            let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            cluster["typed_extension_protocol_options"] = json!({kind: {
                "@type": format!("type.googleapis.com/{kind}"),
                "explicit_http_config": {"http2_protocol_options": setup.http2},
            }});
        }
        let listener = crate::listener::rig::listener("front", front, json!({}), "peer");
        caller.apply(&[cluster], &[listener]);
        Pair {
            caller,
            called,
            front,
            inbound,
            ca,
        }
    }

    pub async fn client(&self) -> TcpStream {
        connect(self.front).await
    }

    pub fn carriers(&self, count: usize) -> bool {
        let line = "anyam_cluster_tunnel_connections_total{cluster=\"peer\"}";
        self.caller.metric(&format!("{line} {count}\n"))
    }

    pub fn refused(&self, count: usize) -> bool {
        let line = "anyam_listener_tunnels_refused_total{listener=\"inbound\"}";
        self.called.metric(&format!("{line} {count}\n"))
    }
}

/// Takes tunnels at its own port, the app's connections at the app's; refuses all others.
pub fn inbound_listener(port: u16, app: u16, setup: &Setup) -> Value {
    let mut tunnel = setup.tunnel.clone();
    if tunnel.is_null() {
        tunnel = json!({});
    }
    tunnel["@type"] = "type.googleapis.com/anyam.tunnel.v1.Tunnel".into();
    let mut filters = setup.filters.clone();
    filters.push(tcp_proxy("app"));
    let mut tls = downstream_tls();
    tls["typed_config"]["common_tls_context"]["alpn_protocols"] = json!(["h2"]);
    json!({
        "name": "inbound",
        "traffic_direction": "INBOUND",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "name": "tunnel",
                "filter_chain_match": {"destination_port": port},
                "transport_socket": tls,
                "filters": [{"name": "anyam.tunnel", "typed_config": tunnel}],
            },
            {
                "name": "app",
                "filter_chain_match": {
                    "destination_port": app,
                    "transport_protocol": "tls",
                    "application_protocols": ["anyam-tcp"],
                },
                "transport_socket": downstream_tls(),
                "filters": filters,
            },
        ],
    })
}

/// mTLS over HTTP/2 to a peer that must be `cart`.
pub fn tls_to_cart() -> Value {
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let context = json!({
        "@type": kind,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [{"name": "default"}],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"exact": CART}},
                ]},
                "validation_context_sds_secret_config": {"name": "ROOTCA"},
            },
        },
    });
    json!({"name": "tls", "typed_config": context})
}

/// The app, behind a sidecar that takes tunnels.
fn peer(app: SocketAddr, tunnel: u16) -> Value {
    let address = json!({"socket_address": {
        "address": app.ip().to_string(), "port_value": app.port()}});
    json!({
        "name": "peer",
        "type": "STATIC",
        "connect_timeout": "5s",
        "transport_socket_matches": [{
            "name": "tunnel",
            "match": {"tunnel": "http"},
            "transport_socket": tls_to_cart(),
        }],
        "load_assignment": {
            "cluster_name": "peer",
            "endpoints": [{"lb_endpoints": [{
                "endpoint": {"address": address},
                "metadata": {"filter_metadata": {
                    "envoy.transport_socket_match": {"tunnel": "http"},
                    "anyam.tunnel": {"port": tunnel},
                }},
            }]}],
        },
    })
}

pub async fn echoes(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut got = vec![0; text.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, text);
}
