//! The cases.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

const HERE: [u8; 4] = [127, 0, 0, 1];
/// Stands for a port of the case: the listener's, and one that a client binds to.
pub const OWN: u16 = 1;
pub const BOUND: u16 = 2;

/// The chains are named `a`, `b`, … in this order; the default chain is `d`.
pub struct Case {
    pub step: &'static str,
    pub chains: Vec<Value>,
    pub default: bool,
    pub probes: Vec<(Probe, Option<&'static str>)>,
}

pub struct Probe {
    pub from: [u8; 4],
    pub bound: bool,
    pub to: [u8; 4],
    pub says: Vec<u8>,
}

fn plain(says: &str) -> Probe {
    Probe {
        from: HERE,
        bound: false,
        to: HERE,
        says: says.into(),
    }
}

fn tcp() -> Probe {
    plain("hello\n")
}

/// A ClientHello.
fn tls(sni: Option<&str>, alpn: &[&str]) -> Probe {
    let roots = RootCertStore::empty();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_sni = sni.is_some();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(sni.unwrap_or("none").to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut says = Vec::new();
    connection.write_tls(&mut says).unwrap();
    Probe { says, ..tcp() }
}

fn from(from: [u8; 4]) -> Probe {
    Probe { from, ..tcp() }
}

fn to(to: [u8; 4]) -> Probe {
    Probe { to, ..tcp() }
}

fn range(address: &str, bits: u8) -> Value {
    json!([{ "address_prefix": address, "prefix_len": bits }])
}

fn case(
    step: &'static str,
    chains: impl IntoIterator<Item = Value>,
    probes: impl IntoIterator<Item = (Probe, Option<&'static str>)>,
) -> Case {
    Case {
        step,
        chains: chains.into_iter().collect(),
        default: false,
        probes: probes.into_iter().collect(),
    }
}

/// Chains that match by `field`: a wide range, a narrow one in it, none.
fn ranges(field: &str) -> [Value; 3] {
    [
        json!({ field: range("127.0.0.0", 8) }),
        json!({ field: range("127.2.0.0", 16) }),
        json!({}),
    ]
}

/// Steps 1 and 2: where the connection goes.
pub fn by_destination() -> Vec<Case> {
    vec![
        case(
            "1: port",
            [
                json!({ "destination_port": 9 }),
                json!({ "destination_port": OWN }),
                json!({}),
            ],
            [(tcp(), Some("b"))],
        ),
        case(
            "1: another port",
            [json!({ "destination_port": 9 }), json!({})],
            [(tcp(), Some("b"))],
        ),
        case(
            "1: none",
            [json!({ "destination_port": 9 })],
            [(tcp(), None)],
        ),
        Case {
            default: true,
            ..case(
                "1: default",
                [json!({ "destination_port": 9 })],
                [(tcp(), Some("d"))],
            )
        },
        case(
            "2: the longest prefix",
            ranges("prefix_ranges"),
            [
                (to([127, 1, 0, 1]), Some("a")),
                (to([127, 2, 0, 1]), Some("b")),
            ],
        ),
        case(
            "2: no prefix",
            [
                json!({ "prefix_ranges": range("127.2.0.0", 16) }),
                json!({}),
            ],
            [(to([127, 1, 0, 1]), Some("b"))],
        ),
        case(
            "2: what was dropped does not come back",
            [
                json!({ "prefix_ranges": range("127.2.0.0", 16), "server_names": ["x"] }),
                json!({}),
            ],
            [(to([127, 2, 0, 1]), None), (to([127, 1, 0, 1]), Some("b"))],
        ),
    ]
}

/// Steps 6 to 9: where it comes from.
pub fn by_source() -> Vec<Case> {
    let by_source = |field: &'static str| {
        case(
            field,
            ranges(field),
            [
                (from([127, 0, 0, 9]), Some("a")),
                (from([127, 2, 0, 9]), Some("b")),
            ],
        )
    };
    vec![
        by_source("direct_source_prefix_ranges"),
        by_source("source_prefix_ranges"),
        case(
            "7: source type",
            [
                json!({ "source_type": "EXTERNAL" }),
                json!({ "source_type": "SAME_IP_OR_LOOPBACK" }),
                json!({}),
            ],
            [(tcp(), Some("b"))],
        ),
        case(
            "7: only external",
            [json!({ "source_type": "EXTERNAL" }), json!({})],
            [(tcp(), Some("b"))],
        ),
        case(
            "9: source port",
            [json!({ "source_ports": [BOUND] }), json!({})],
            [
                (
                    Probe {
                        bound: true,
                        ..tcp()
                    },
                    Some("a"),
                ),
                (tcp(), Some("b")),
            ],
        ),
    ]
}

/// Steps 3 to 5: what the first bytes determine.
pub fn by_first_bytes() -> Vec<Case> {
    let http1 = || plain("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    vec![
        case(
            "3: server names",
            [
                json!({ "server_names": ["x.b.c"] }),
                json!({ "server_names": ["*.b.c"] }),
                json!({ "server_names": ["*.c"] }),
                json!({}),
            ],
            [
                (tls(Some("x.b.c"), &[]), Some("a")),
                (tls(Some("y.b.c"), &[]), Some("b")),
                (tls(Some("x.y.b.c"), &[]), Some("b")),
                (tls(Some("b.c"), &[]), Some("c")),
                (tls(Some("other"), &[]), Some("d")),
                (tls(None, &[]), Some("d")),
                (tcp(), Some("d")),
            ],
        ),
        case(
            "4: transport",
            [
                json!({ "transport_protocol": "tls" }),
                json!({ "transport_protocol": "raw_buffer" }),
            ],
            [
                (tls(None, &[]), Some("a")),
                (tcp(), Some("b")),
                (http1(), Some("b")),
            ],
        ),
        case(
            "5: protocols, as the client prefers",
            [
                json!({ "application_protocols": ["h2"] }),
                json!({ "application_protocols": ["http/1.1"] }),
                json!({}),
            ],
            [
                (tls(None, &["h2", "http/1.1"]), Some("a")),
                (tls(None, &["http/1.1", "h2"]), Some("b")),
                (tls(None, &["x", "h2"]), Some("a")),
                (tls(None, &["x"]), Some("c")),
                (http1(), Some("b")),
                (tcp(), Some("c")),
            ],
        ),
        case(
            "5: HTTP in plain text",
            [
                json!({ "application_protocols": ["h2c"] }),
                json!({ "application_protocols": ["http/1.0"] }),
            ],
            [
                (plain("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some("a")),
                (plain("GET / HTTP/1.0\r\n\r\n"), Some("b")),
                (http1(), None),
            ],
        ),
    ]
}

/// Steps that several chains tie in: the earlier step decides.
pub fn by_order_of_steps() -> Vec<Case> {
    vec![
        case(
            "3 comes before 5",
            [
                json!({ "application_protocols": ["h2"] }),
                json!({ "server_names": ["x"] }),
            ],
            [
                (tls(Some("x"), &["h2"]), Some("b")),
                (tls(Some("y"), &["h2"]), Some("a")),
            ],
        ),
        case(
            "4 comes before 6",
            [
                json!({ "direct_source_prefix_ranges": range("127.0.0.0", 8) }),
                json!({ "transport_protocol": "tls" }),
            ],
            [(tls(None, &[]), Some("b")), (tcp(), Some("a"))],
        ),
    ]
}
