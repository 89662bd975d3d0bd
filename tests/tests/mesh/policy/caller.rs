//! A caller that spells its requests as it likes, by every way into a workload.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;
use anyam_proxy::dispatcher::buffer::Pool;
use anyam_proxy::tls::{
    ClientContext, ClientOptions, Dial, Handshaker, Identity, PeerRules, Rotating, TlsStream,
    TrustBundle, Versions,
};
use bytes::Bytes;
use http::{Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames;
use crate::traffic::within;

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Plaintext to the workload's address.
    Plain,
    /// mTLS of the mesh, spoken by the caller itself.
    Mtls,
    /// Inside a CONNECT stream on port 15008, with this `ALPN` header.
    Tunnel(Option<&'static str>),
    /// Through the caller's own sidecar.
    Sidecar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

impl Version {
    /// Of the mesh's mTLS.
    fn alpn(self) -> &'static str {
        match self {
            Version::Http1 => "anyam-http/1.1",
            Version::Http2 => "anyam-h2",
        }
    }
}

pub struct Ask<'a> {
    pub version: Version,
    pub method: &'a str,
    pub path: &'a str,
    pub host: &'a str,
    pub fields: &'a [(&'a str, &'a str)],
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Ask {
            version: Version::Http1,
            method: "GET",
            path: "/",
            host: "app.shop",
            fields: &[],
        }
    }
}

/// Status and body of an answer; of a connection that ended without one, 0.
pub type Answer = (u16, String);

pub struct Caller {
    /// Without a sidecar.
    pub outside: Namespace,
    /// With one.
    pub member: Namespace,
    /// Where the workload listens.
    pub app: SocketAddr,
    identity: Arc<Identity>,
    trust: Arc<TrustBundle>,
}

impl Caller {
    /// Shows what the sidecar with the state folder `state` does.
    pub fn new(outside: Namespace, member: Namespace, app: SocketAddr, state: &Path) -> Self {
        let text = std::fs::read(state.join("identity.json")).unwrap();
        let content: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let pem = |field: &str| content[field].as_str().unwrap().as_bytes().to_vec();
        let identity = Identity::from_pem(&pem("certificate_chain"), &pem("private_key")).unwrap();
        let trust = TrustBundle::from_pem(&pem("trust_bundle"), None).unwrap();
        Self {
            outside,
            member,
            app,
            identity: Arc::new(identity),
            trust: Arc::new(trust),
        }
    }

    fn host(&self, way: Way) -> &Namespace {
        match way {
            Way::Sidecar => &self.member,
            Way::Plain | Way::Mtls | Way::Tunnel(_) => &self.outside,
        }
    }

    pub fn ask(&self, way: Way, ask: &Ask<'_>) -> Answer {
        within(self.host(way), || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let asking = async { tokio::time::timeout(TIMEOUT, self.ask_by(way, ask)).await };
            tokio::task::LocalSet::new()
                .block_on(&runtime, asking)
                .unwrap_or_else(|_| panic!("{way:?} {} {}: no answer", ask.method, ask.path))
        })
    }

    async fn ask_by(&self, way: Way, ask: &Ask<'_>) -> Answer {
        match way {
            Way::Plain | Way::Sidecar => {
                speak(TcpStream::connect(self.app).await.unwrap(), ask).await
            }
            Way::Mtls => speak(self.tls(self.app.port(), ask.version.alpn()).await, ask).await,
            Way::Tunnel(alpn) => tunnelled(self.tls(15008, "h2").await, self.app, alpn, ask).await,
        }
    }

    /// Sends bytes and the end of sending, and returns what comes to the end.
    pub fn send(&self, way: Way, version: Version, bytes: &[u8]) -> Vec<u8> {
        within(self.host(way), || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let sending = async {
                match way {
                    Way::Mtls => {
                        exchange(
                            self.tls(self.app.port(), version.alpn()).await,
                            version,
                            bytes,
                        )
                        .await
                    }
                    _ => {
                        exchange(TcpStream::connect(self.app).await.unwrap(), version, bytes).await
                    }
                }
            };
            let sending = async { tokio::time::timeout(TIMEOUT, sending).await };
            tokio::task::LocalSet::new()
                .block_on(&runtime, sending)
                .unwrap_or_else(|_| panic!("{way:?}: no end after {}", bytes.escape_ascii()))
        })
    }

    async fn tls(&self, port: u16, alpn: &str) -> TlsStream {
        let context = Arc::new(ClientContext::new(ClientOptions {
            identity: Some(Rotating::new(Some(self.identity.clone()))),
            trust: Some(Rotating::new(Some(self.trust.clone()))),
            rules: PeerRules::default(),
            sni: None,
            alpn: vec![alpn.into()],
            versions: Versions::TLS13_ONLY,
        }));
        let tcp = TcpStream::connect((self.app.ip(), port)).await.unwrap();
        let handshaker = Handshaker::new(Pool::default(), 8);
        let stream = handshaker.connect(tcp, &context, &Dial::default()).await;
        stream.unwrap()
    }

    /// A plaintext connection that stays open after a request.
    pub fn keep_open(&self) -> std::net::TcpStream {
        use std::io::{Read, Write};
        within(&self.outside, || {
            let mut tcp = std::net::TcpStream::connect(self.app).unwrap();
            tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
            tcp.write_all(b"GET / HTTP/1.1\r\nHost: app.shop\r\n\r\n")
                .unwrap();
            let mut head = [0; 12];
            tcp.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            tcp
        })
    }
}

/// Over HTTP/2 the caller stays until its requests are answered: the end of its bytes cancels them.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    version: Version,
    bytes: &[u8],
) -> Vec<u8> {
    let mut answer = Vec::new();
    // The peer may refuse before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    if version == Version::Http2 {
        let asked = frames::asked(bytes);
        while !frames::are_answered(&asked, &answer) {
            if !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
                return answer;
            }
        }
    }
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// The address of a workload without IPv6.
pub fn app(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(address.into(), 8080)
}

fn http1(ask: &Ask<'_>) -> String {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\n",
        ask.method, ask.path, ask.host
    );
    for (name, value) in ask.fields {
        text += &format!("{name}: {value}\r\n");
    }
    text + "Connection: close\r\n\r\n"
}

fn parsed(answer: &[u8]) -> Answer {
    let answer = String::from_utf8_lossy(answer);
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

async fn speak<S>(mut stream: S, ask: &Ask<'_>) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match ask.version {
        Version::Http1 => {
            let mut answer = Vec::new();
            stream.write_all(http1(ask).as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            // A reset after the answer does not take it back.
            let _ = stream.read_to_end(&mut answer).await;
            parsed(&answer)
        }
        Version::Http2 => speak_h2(stream, ask).await,
    }
}

async fn speak_h2<S>(stream: S, ask: &Ask<'_>) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(connection);
    let mut send: h2::client::SendRequest<Bytes> = send.ready().await.unwrap();
    let uri = Uri::builder()
        .scheme("http")
        .authority(ask.host)
        .path_and_query(ask.path)
        .build()
        .unwrap();
    let mut head = Request::builder().method(ask.method).uri(uri);
    for (name, value) in ask.fields {
        head = head.header(*name, *value);
    }
    let mut head = head.body(()).unwrap();
    let upgrade = head.method() == Method::CONNECT;
    if upgrade {
        let websocket = h2::ext::Protocol::from_static("websocket");
        head.extensions_mut().insert(websocket);
        while !send.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    }
    let (answer, _stream) = send.send_request(head, !upgrade).unwrap();
    let answer = answer.await.unwrap();
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        text.extend_from_slice(&piece);
        let _ = body.flow_control().release_capacity(piece.len());
    }
    (status, String::from_utf8_lossy(&text).into_owned())
}

/// HTTP/1 inside of a CONNECT stream; where that is refused, the refusal.
async fn tunnelled(stream: TlsStream, to: SocketAddr, alpn: Option<&str>, ask: &Ask<'_>) -> Answer {
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(connection);
    let mut send: h2::client::SendRequest<Bytes> = send.ready().await.unwrap();
    let uri = Uri::builder().authority(to.to_string()).build().unwrap();
    let mut head = Request::builder().method(Method::CONNECT).uri(uri);
    if let Some(alpn) = alpn {
        head = head.header("alpn", alpn);
    }
    let (answer, mut up) = send.send_request(head.body(()).unwrap(), false).unwrap();
    let answer = answer.await.unwrap();
    if answer.status() != 200 {
        return (answer.status().as_u16(), String::new());
    }
    up.send_data(http1(ask).into(), false).unwrap();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        text.extend_from_slice(&piece);
        let _ = body.flow_control().release_capacity(piece.len());
    }
    parsed(&text)
}
