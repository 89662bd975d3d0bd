//! TLS peers that do what the protocol allows and ordinary peers do not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;

use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::{Proxy, Settings, echo, openssl, tcp_proxy, upstream};
use crate::running::TIMEOUT;

/// A self-signed certificate for `proxy`, as `cert.pem` and `key.pem`.
fn certificate(folder: &Path) {
    openssl(
        folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=proxy \
         -addext subjectAltName=DNS:proxy -addext basicConstraints=CA:false -keyout key.pem -out cert.pem",
    );
}

/// A chain that accepts TLS with that certificate.
fn chain(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"transport_socket_connect_timeout: 3s, transport_socket: {{ name: tls, typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
          common_tls_context: {{ tls_certificates: [{{ certificate_chain: {{ filename: "{folder}/cert.pem" }},
            private_key: {{ filename: "{folder}/key.pem" }} }}] }} }} }},"#
    )
}

/// A TLS proxy in front of `upstream`; `tcp`: further fields of its TCP proxy.
fn start(folder: &Path, upstream: SocketAddr, tcp: &str) -> Proxy {
    certificate(folder);
    let settings = Settings {
        filters: &tcp_proxy(tcp),
        chain: &chain(folder),
        ..Settings::default()
    };
    Proxy::start(upstream, &settings)
}

/// OpenSSL's client, typed at by the test.
struct SClient(Child);

impl SClient {
    fn start(to: SocketAddr, arguments: &[&str]) -> Self {
        // Whatever it waits for, it does not wait for ever.
        let child = Command::new("timeout")
            .args([&TIMEOUT.as_secs().to_string(), "openssl", "s_client"])
            .args(["-connect", &to.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Types a line; false when the client no longer reads its input.
    fn types(&mut self, line: &str) -> bool {
        let typed = self.0.stdin.as_mut().unwrap().write_all(line.as_bytes());
        typed.is_ok()
    }
}

impl Drop for SClient {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads lines until one contains `text`; `None` when they end first.
fn line_with(lines: &mut impl BufRead, text: &str) -> Option<String> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if line.contains(text) {
            return Some(line);
        }
    }
}

#[test]
fn a_flood_of_key_updates_ends_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path(), upstream(echo), "");
    let mut client = SClient::start(proxy.front, &["-tls1_3"]);
    let mut said = BufReader::new(client.0.stderr.take().unwrap());
    let mut updates = 0;
    while client.types("K\n") && line_with(&mut said, "KEYUPDATE").is_some() {
        updates += 1;
        assert!(updates < 1000, "a thousand key updates and no end");
    }
    assert!(updates > 0, "the first one was refused");
    assert!(!client.0.wait().unwrap().success());
}

#[test]
fn renegotiation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path(), upstream(echo), "");
    let mut client = SClient::start(proxy.front, &["-tls1_2"]);
    let mut shown = BufReader::new(client.0.stdout.take().unwrap());
    let mut said = BufReader::new(client.0.stderr.take().unwrap());
    line_with(&mut shown, "Verify return code").unwrap();
    assert!(client.types("R\n"));
    line_with(&mut said, "RENEGOTIATING").unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(!client.0.wait().unwrap().success(), "{rest}");
}

#[test]
fn tickets_allow_no_early_data() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path(), upstream(echo), "");
    let session = folder.path().join("session.pem");
    let written = session.display().to_string();
    let mut client = SClient::start(proxy.front, &["-tls1_3", "-sess_out", &written]);
    // Tickets come with the first bytes that are read.
    assert!(client.types("hello\n"));
    let mut text = String::new();
    proxy.until("a whole ticket", |_| {
        let shown = Command::new("openssl")
            .args(["sess_id", "-noout", "-text", "-in", &written])
            .output()
            .unwrap();
        text = String::from_utf8(shown.stdout).unwrap();
        shown.status.success()
    });
    assert!(text.contains("Max Early Data: 0"), "{text}");
}

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

fn connector(folder: &Path) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls_pki_types::CertificateDer::from_pem_file(folder.join("cert.pem"));
    roots.add(certificate.unwrap()).unwrap();
    let provider = anyam_proxy::tls::provider().clone();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

async fn connect(connector: &tokio_rustls::TlsConnector, to: SocketAddr) -> std::io::Result<Tls> {
    let tcp = tokio::net::TcpStream::connect(to).await?;
    let name = ServerName::try_from("proxy").unwrap();
    connector.connect(name, tcp).await
}

/// Handshakes of a storm, all begun together.
const STORM: usize = 120;
const HALF_OPEN: usize = 100;
/// What live traffic must get through meanwhile. Served in the order in which they came, a storm
/// would let it have a turn or two in all.
const LIVE: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_handshakes_leaves_live_connections_served() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path(), upstream(echo), "");
    let connector = connector(folder.path());
    let to = proxy.front;
    // These never finish.
    let mut half_open = Vec::new();
    for _ in 0..HALF_OPEN {
        let mut tcp = tokio::net::TcpStream::connect(to).await.unwrap();
        tcp.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        half_open.push(tcp);
    }
    let over = Arc::new(AtomicBool::new(false));
    let live = echoes_until(over.clone(), connector.clone(), to);
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..STORM {
        let connector = connector.clone();
        storm.spawn(async move { connect(&connector, to).await.map(drop) });
    }
    while let Some(done) = storm.join_next().await {
        done.unwrap().unwrap();
    }
    over.store(true, Relaxed);
    let answered = live.join().unwrap();
    assert!(answered >= LIVE, "{answered} answers during the storm");
    for mut tcp in half_open {
        let ended = tokio::time::timeout(TIMEOUT, tcp.read(&mut [0; 64])).await;
        assert!(
            !matches!(ended.unwrap(), Ok(1..)),
            "an answer to half a hello"
        );
    }
}

/// Echoes over one TLS connection, on a thread that no storm of clients keeps waiting; returns once
/// the connection stands. Its result: how many came back before it was over.
fn echoes_until(
    over: Arc<AtomicBool>,
    connector: tokio_rustls::TlsConnector,
    to: SocketAddr,
) -> std::thread::JoinHandle<usize> {
    let (ready, stands) = channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut live = connect(&connector, to).await.unwrap();
            ready.send(()).unwrap();
            let mut answered = 0;
            while !over.load(Relaxed) {
                live.write_all(b"ping").await.unwrap();
                live.read_exact(&mut [0; 4]).await.unwrap();
                answered += 1;
            }
            answered
        })
    });
    stands.recv_timeout(TIMEOUT).unwrap();
    thread
}

/// Resident memory of a process, bytes.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// More than buffers of one stalled connection can be.
const BOUND: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_in_the_middle_of_tls_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (ended, end) = channel();
    let flood = move |mut tcp: TcpStream| {
        // Zeros until the connection is closed.
        while tcp.write_all(&[0; 64 * 1024]).is_ok() {}
        let _ = ended.send(());
    };
    let proxy = start(folder.path(), upstream(flood), ", idle_timeout: 1s");
    let connector = connector(folder.path());
    let before = memory(proxy.pid());
    let mut client = connect(&connector, proxy.front).await.unwrap();
    client.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
    // From here on the client reads nothing: its window closes within a record.
    end.recv_timeout(TIMEOUT).unwrap();
    let grown = memory(proxy.pid()).saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more for one stalled client");
    // What it reads now ends, and not as if it were complete.
    let rest = client.read_to_end(&mut Vec::new()).await;
    assert!(rest.is_err(), "{rest:?}");
}
