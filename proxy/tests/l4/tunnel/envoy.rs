//! A stock Envoy at the other end: as the caller that opens tunnels, and as the one that ends them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::pair::{CART, FRONT, Pair, tls_to_cart};
use crate::listener::rig::{Rig, listener};
use crate::support::pki::{Ca, Issued, uri};
use crate::support::run;

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const HTTP: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

struct Envoy {
    process: Child,
    _folder: TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts it and waits until it listens on `port`.
async fn start(folder: TempDir, listener: Value, cluster: Value, port: u16) -> Envoy {
    let config = folder.path().join("bootstrap.json");
    let bootstrap = json!({
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    });
    std::fs::write(&config, bootstrap.to_string()).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let process = Command::new(crate::envoy::program())
        .arg("-c")
        .arg(&config)
        .args([
            "--concurrency",
            "1",
            "-l",
            "warning",
            "--disable-hot-restart",
        ])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut envoy = Envoy {
        process,
        _folder: folder,
    };
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if let Some(status) = envoy.process.try_wait().unwrap() {
            let log = std::fs::read_to_string(envoy._folder.path().join("log"));
            panic!("Envoy ended ({status}): {}", log.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    envoy
}

/// TLS as Envoy takes it, certificates in `folder`.
fn tls(folder: &Path, side: &str, ca: &Ca, shown: &Issued, peer: &str) -> Value {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        json!({"filename": path.display().to_string()})
    };
    let chain = pem::encode(&pem::Pem::new("CERTIFICATE", shown.chain[0].to_vec()));
    let names = json!([{"san_type": "URI", "matcher": {"exact": peer}}]);
    let mut context = json!({
        "@type": format!(
            "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"
        ),
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{
                "certificate_chain": write("chain.pem", chain),
                "private_key": write("key.pem", shown.key.serialize_pem()),
            }],
            "validation_context": {
                "trusted_ca": write("root.pem", ca.pem()),
                "match_typed_subject_alt_names": names,
            },
        },
    });
    if side == "Downstream" {
        context["require_client_certificate"] = true.into();
    }
    json!({"name": "tls", "typed_config": context})
}

fn cluster(name: &str, port: u16) -> Value {
    crate::listener::rig::static_cluster(name, ([127, 0, 0, 1], port).into())
}

fn speaking_h2(mut cluster: Value) -> Value {
    cluster["typed_extension_protocol_options"] = json!({HTTP: {
        "@type": format!("type.googleapis.com/{HTTP}"),
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    cluster
}

/// `front` with tunnels to `authority` over the cluster `peer`, as Envoy's TCP proxy has them.
fn tunnelling(front: u16, authority: &str) -> Value {
    let mut listener = listener("front", front, json!({}), "peer");
    listener["filter_chains"][0]["filters"][0]["typed_config"]["tunneling_config"] = json!({
        "hostname": authority,
        "headers_to_add": [{"header": {"key": "x-from", "value": "%DOWNSTREAM_LOCAL_ADDRESS%"}}],
    });
    listener
}

/// A connection through both, and the app's end of it. Envoy may have let the app see the
/// connections by which it was found to listen; they carry no bytes.
async fn through(app: &TcpListener, front: u16) -> (TcpStream, TcpStream) {
    let mut client = crate::listener::rig::connect(front).await;
    client.write_all(b"HELO").await.unwrap();
    loop {
        let (mut served, _) = app.accept().await.unwrap();
        if served.read_exact(&mut [0; 4]).await.is_ok() {
            return (client, served);
        }
    }
}

/// What has to work with either proxy at either end.
async fn behaves(app: &TcpListener, front: u16) {
    let (mut client, mut served) = through(app, front).await;
    served.write_all(b"220 ready\n").await.unwrap();
    let mut got = [0; 10];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"220 ready\n");
    // Much, then the end, then an answer.
    let much: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
    let sent = much.clone();
    let up = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let down = served.read_to_end(&mut got);
    let ((), down) = tokio::join!(up, down);
    down.unwrap();
    assert!(got == much);
    served.write_all(&much).await.unwrap();
    served.shutdown().await.unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    assert!(got == much);
}

#[test]
fn a_stock_envoy_opens_tunnels_to_us() {
    run(async {
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = app.local_addr().unwrap();
        let pair = Pair::to(at);
        let folder = tempfile::tempdir().unwrap();
        let shown = pair.ca.issue(vec![uri(FRONT)]);
        let mut peer = speaking_h2(cluster("peer", pair.inbound));
        peer["transport_socket"] = tls(folder.path(), "Upstream", &pair.ca, &shown, CART);
        let front = pair.caller.free_port();
        let front_listener = tunnelling(front, &at.to_string());
        let _envoy = start(folder, front_listener, peer, front).await;
        behaves(&app, front).await;
        behaves(&app, front).await;
        assert!(
            pair.called
                .metric("anyam_listener_connections_total{listener=\"inbound\"} 1\n")
        );
    });
}

#[test]
fn a_stock_envoy_ends_our_tunnels() {
    run(async {
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = app.local_addr().unwrap();
        let ca = Ca::new();
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::new();
        rig.secrets(&ca.issue(vec![uri(FRONT)]), &ca);
        let (front, inbound) = (rig.free_port(), rig.free_port());
        let shown = ca.issue(vec![uri(CART)]);
        let manager = json!({
            "@type": format!("type.googleapis.com/{MANAGER}"),
            "stat_prefix": "connect",
            "codec_type": "HTTP2",
            "http2_protocol_options": {"allow_connect": true},
            "upgrade_configs": [{"upgrade_type": "CONNECT"}],
            "route_config": {"name": "r", "virtual_hosts": [{
                "name": "app",
                "domains": [at.to_string()],
                "routes": [{
                    // Only with the header that our side is configured to add.
                    "match": {
                        "connect_matcher": {},
                        "headers": [{
                            "name": "x-from",
                            "string_match": {"exact": format!("127.0.0.1:{front}")},
                        }],
                    },
                    "route": {
                        "cluster": "app",
                        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                    },
                }],
            }]},
            "http_filters": [{
                "name": "router",
                "typed_config": {"@type": format!("type.googleapis.com/{ROUTER}")},
            }],
        });
        let connect = json!({
            "name": "connect",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": inbound}},
            "filter_chains": [{
                "transport_socket": tls(folder.path(), "Downstream", &ca, &shown, FRONT),
                "filters": [{"name": "connect", "typed_config": manager}],
            }],
        });
        let _envoy = start(folder, connect, cluster("app", at.port()), inbound).await;
        let mut peer = speaking_h2(cluster("peer", inbound));
        peer["transport_socket"] = tls_to_cart();
        rig.apply(&[peer], &[tunnelling(front, &at.to_string())]);
        behaves(&app, front).await;
        behaves(&app, front).await;
        assert!(rig.metric("anyam_cluster_tunnel_connections_total{cluster=\"peer\"} 1\n"));
    });
}
