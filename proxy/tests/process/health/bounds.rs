//! Ours alone: TLS, more hosts than there are descriptors, hosts that flood.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::host::flags;
use super::{admin_of, bootstrap, check, endpoint, http_check, merge};
use crate::filters::side::Side;
use crate::ports::free_port;
use crate::proxy::{openssl, own_address};
use crate::running::Running;

fn until_flags(side: &Side, endpoint: SocketAddr, wanted: &str) {
    let admin = admin_of(side.front());
    side.until(wanted, |_| {
        (flags(admin, endpoint)? == wanted).then_some(())
    });
}

/// A metric of the cluster.
fn metric(admin: SocketAddr, name: &str) -> Option<u32> {
    let request = "GET /stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let page = crate::proxy::ask(admin, request).ok()?;
    let start = format!("{name}{{cluster=\"up\"}}: ");
    let value = page.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(value.trim().parse().unwrap())
}

/// Waits until so many checks were begun.
fn until_attempts(side: &Side, count: u32) {
    let admin = admin_of(side.front());
    let attempts = "anyam_cluster_health_check_attempts_total";
    side.until("checks", |_| {
        metric(admin, attempts).filter(|attempts| *attempts >= count)
    });
}

/// `openssl s_server`, which answers any request with a page.
struct TlsServer {
    _process: Running,
    folder: TempDir,
    address: SocketAddr,
}

impl TlsServer {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        openssl(
            folder.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem \
             -out cert.pem -days 2 -subj /CN=host -addext subjectAltName=DNS:host",
        );
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let process = Running::start(
            Command::new("openssl")
                .args([
                    "s_server", "-www", "-quiet", "-cert", "cert.pem", "-key", "key.pem",
                ])
                .args(["-accept", &address.to_string()])
                .args(more)
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        process.until("listening", || TcpStream::connect(address).ok());
        Self {
            _process: process,
            folder,
            address,
        }
    }

    /// A transport that trusts its certificate.
    fn transport(&self) -> Value {
        let pem = std::fs::read_to_string(self.folder.path().join("cert.pem")).unwrap();
        json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "host",
            "common_tls_context": {"validation_context": {"trusted_ca": {"inline_string": pem}}},
        }})
    }

    /// A proxy whose cluster checks it; `check`, `cluster`: further fields.
    fn checked_by(&self, more: &Value, cluster: &Value) -> Side {
        let mut own = check(http_check(json!({"path": "/"})));
        merge(&mut own, more);
        let mut all = json!({"health_checks": [own]});
        merge(&mut all, cluster);
        Side::anyam_by(&|front, _| bootstrap(front, &[endpoint(self.address)], &all))
    }

    fn stays_failed(&self, side: &Side) {
        until_attempts(side, 4);
        let flags = flags(admin_of(side.front()), self.address).unwrap();
        assert!(flags.starts_with("/failed_active_hc"), "{flags}");
    }
}

#[test]
fn checks_go_through_the_clusters_tls() {
    let (server, other) = (TlsServer::start(&[]), TlsServer::start(&[]));
    let none = json!({});
    let side = server.checked_by(&none, &json!({"transport_socket": server.transport()}));
    until_flags(&side, server.address, "healthy");
    // A host whose certificate is not trusted is not healthy, nor is TLS spoken without TLS.
    let side = server.checked_by(&none, &json!({"transport_socket": other.transport()}));
    server.stays_failed(&side);
    server.stays_failed(&server.checked_by(&none, &none));
}

#[test]
fn checks_have_an_alpn_and_a_transport_of_their_own() {
    let server = TlsServer::start(&["-alpn", "wanted"]);
    let cluster = json!({"transport_socket": server.transport()});
    let offering = |name: &str| json!({"tls_options": {"alpn_protocols": [name]}});
    let side = server.checked_by(&offering("wanted"), &cluster);
    until_flags(&side, server.address, "healthy");
    server.stays_failed(&server.checked_by(&offering("another"), &cluster));

    // Requests would go in plaintext, and checks are to go over TLS.
    let cluster = json!({"transport_socket_matches": [
        {"name": "checks", "match": {"for": "checks"}, "transport_socket": server.transport()},
        {"name": "rest", "match": {}, "transport_socket": {"name": "raw", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        }}},
    ]});
    let chosen = json!({"transport_socket_match_criteria": {"for": "checks"}});
    until_flags(
        &server.checked_by(&chosen, &cluster),
        server.address,
        "healthy",
    );
    server.stays_failed(&server.checked_by(&json!({}), &cluster));
}

/// Answers with 200 at any loopback address; counts connections.
fn everywhere(open: &Arc<AtomicUsize>, most: &Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, most) = (open.clone(), most.clone());
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut tcp, _)) = listener.accept().await {
                let (open, most) = (open.clone(), most.clone());
                tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    let mut request = [0; 1024];
                    while let Ok(1..) = tcp.read(&mut request).await {
                        let answer = b"HTTP/1.1 200 A\r\ncontent-length: 0\r\n\r\n";
                        if tcp.write_all(answer).await.is_err() {
                            break;
                        }
                    }
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
    });
    port
}

#[test]
fn many_hosts_are_checked_with_few_descriptors() {
    const HOSTS: u32 = 3000;
    const DESCRIPTORS: usize = 1024;
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let port = everywhere(&open, &most);
    let at = |n: u32| {
        let [_, _, high, low] = (n + 1).to_be_bytes();
        SocketAddr::from(([127, 1, high, low], port))
    };
    let hosts: Vec<Value> = (0..HOSTS).map(|n| endpoint(at(n))).collect();
    let times = json!({"timeout": "10s", "interval": "1s", "no_traffic_interval": "1s"});
    let mut often = check(http_check(json!({})));
    merge(&mut often, &times);
    let front = SocketAddr::from((own_address(), 8000));
    let bootstrap = bootstrap(front, &hosts, &json!({"health_checks": [often]}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let script = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    let process = Running::start(
        Command::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_anyam-proxy"), "-c"])
            .arg(&file)
            .args(["--concurrency", "1", "-l", "error"])
            .stdin(Stdio::null()),
    );
    let admin = admin_of(front);
    let until = |name: &str, enough: &dyn Fn(u32) -> bool| {
        process.until(name, || metric(admin, name).filter(|value| enough(*value)));
    };
    until("anyam_cluster_endpoints_healthy", &|healthy| {
        healthy == HOSTS
    });
    let attempts = "anyam_cluster_health_check_attempts_total";
    until(attempts, &|attempts| attempts > 3 * HOSTS);
    let failures = "anyam_cluster_health_check_failures_total";
    assert_eq!(metric(admin, failures), Some(0));
    // The host sees the end of a connection somewhat later.
    let most = most.load(SeqCst);
    assert!(most <= DESCRIPTORS / 4, "{most} connections at once");
}

#[test]
fn a_host_that_floods_costs_little() {
    let host = crate::proxy::upstream(|mut tcp| {
        let _ = tcp.read(&mut [0; 1024]);
        let _ = tcp.write_all(b"HTTP/1.1 200 A\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut chunk = format!("{:x}\r\n", 64 << 10).into_bytes();
        chunk.resize(chunk.len() + (64 << 10), b'a');
        chunk.extend_from_slice(b"\r\n");
        while tcp.write_all(&chunk).is_ok() {}
    });
    let more = json!({"health_checks": [check(http_check(json!({})))]});
    let side = Side::anyam_by(&|front, _| bootstrap(front, &[endpoint(host)], &more));
    until_flags(&side, host, "/failed_active_hc");
    until_attempts(&side, 8);
    let peak = side.peak_resident();
    assert!(peak < 100 << 20, "{peak} bytes");
}
