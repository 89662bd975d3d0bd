//! Servers and clients of five kinds of traffic. The servers say who they are and echo; the
//! clients count what came back as it should and note everything else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

/// Between two exchanges of one client: load, not a flood.
const PAUSE: Duration = Duration::from_millis(4);
/// An exchange that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http1,
    Http2,
    /// One bidirectional stream that outlasts every change.
    GrpcStream,
    /// One connection that outlasts every change.
    WebSocket,
    /// Short connections.
    Tcp,
    /// One connection that outlasts every change.
    LongTcp,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Http1,
        Self::Http2,
        Self::GrpcStream,
        Self::WebSocket,
        Self::Tcp,
        Self::LongTcp,
    ];
}

/// Runs `what` on a thread and a runtime of its own, with sockets in the namespace.
fn on_thread<F: Future<Output = ()>>(
    host: &Namespace,
    what: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<()> {
    let host = host.clone();
    std::thread::spawn(move || {
        host.enter().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async { what().await });
    })
}

/// HTTP/1 with WebSockets on 8080, HTTP/2 with gRPC on 8081, TCP on 8082. Ends when dropped.
pub struct Servers {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    pub fn start(host: &Namespace, name: &'static str, address: Ipv4Addr) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = on_thread(host, move || async move {
            let bound = |port| async move { TcpListener::bind((address, port)).await.unwrap() };
            let (http1, http2, tcp) = (bound(8080).await, bound(8081).await, bound(8082).await);
            tokio::select! {
                () = accept(http1, move |tcp| serve_http1(tcp, name)) => {}
                () = accept(http2, move |tcp| serve_http2(tcp, name)) => {}
                () = accept(tcp, move |tcp| serve_tcp(tcp, name)) => {}
                _ = stopped => {}
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What failed there was seen by its clients.
            let _ = thread.join();
        }
    }
}

async fn accept<F, Fut>(listener: TcpListener, serve: F)
where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = io::Result<()>> + 'static,
{
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let served = serve(tcp);
        spawn_local(async move {
            // A client that goes away in the middle has noted why.
            let _ = served.await;
        });
    }
}

async fn serve_http1(mut tcp: TcpStream, name: &str) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut tcp, &mut buffer).await? {
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                          upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            tcp.write_all(answer.as_bytes()).await?;
            tcp.write_all(&buffer).await?;
            return echo(tcp).await;
        }
        let length = name.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
        tcp.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn serve_tcp(mut tcp: TcpStream, name: &str) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.write_all(format!("{name}\n").as_bytes()).await?;
    echo(tcp).await
}

async fn echo(mut tcp: TcpStream) -> io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        match tcp.read(&mut piece).await? {
            0 => return tcp.shutdown().await,
            count => tcp.write_all(&piece[..count]).await?,
        }
    }
}

async fn serve_http2(tcp: TcpStream, name: &'static str) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut connection = h2::server::handshake(tcp).await.map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(io::Error::other)?;
        spawn_local(async move {
            // The client has noted what went wrong.
            let _ = echo_stream(request.into_body(), respond, name).await;
        });
    }
    Ok(())
}

/// Echoes a body piece by piece, then says that all is well.
async fn echo_stream(
    mut body: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    name: &str,
) -> Result<(), h2::Error> {
    let response = http::Response::builder()
        .header("content-type", "application/grpc")
        .header("x-server", name)
        .body(())
        .unwrap();
    let mut send = respond.send_response(response, false)?;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        send.send_data(piece, false)?;
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    send.send_trailers(trailers)
}

/// A head up to its empty line; what follows stays in `buffer`. `None`: the peer ended.
async fn read_head(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = buffer.split_off(at + 4);
            let head = std::mem::replace(buffer, rest);
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

#[derive(Default)]
struct Seen {
    counts: [AtomicU64; Kind::ALL.len()],
    /// Who answered last, by kind.
    servers: Mutex<[String; Kind::ALL.len()]>,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Seen {
    fn note(&self, kind: Kind, server: Option<&str>) {
        self.counts[kind as usize].fetch_add(1, Relaxed);
        if let Some(server) = server {
            server.clone_into(&mut self.servers.lock().unwrap()[kind as usize]);
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// Clients of every kind, until [`Traffic::finish`].
pub struct Traffic {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// `app`: the address of the service with routes; `pool`: of the one whose endpoints change.
    pub fn start(host: &Namespace, app: &str, pool: &str) -> Self {
        let seen = Arc::<Seen>::default();
        let at = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
        let (http1, http2) = (at(app, 8080), at(app, 8081));
        let tcp = at(pool, 8082);
        let shared = seen.clone();
        let thread = on_thread(host, move || async move {
            tokio::join!(
                client(Kind::Http1, &shared, || http1_requests(&shared, http1)),
                client(Kind::Http2, &shared, || http2_requests(&shared, http2)),
                client(Kind::GrpcStream, &shared, || grpc_stream(&shared, http2)),
                client(Kind::WebSocket, &shared, || websocket(&shared, http1)),
                client(Kind::Tcp, &shared, || tcp_connections(&shared, tcp)),
                client(Kind::LongTcp, &shared, || long_tcp(&shared, tcp)),
            );
        });
        Self {
            seen,
            thread: Some(thread),
        }
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.seen.counts[kind as usize].load(Relaxed)
    }

    /// Whether the last exchange of this kind was with `server`.
    pub fn reached(&self, kind: Kind, server: &str) -> bool {
        self.seen.servers.lock().unwrap()[kind as usize] == server
    }

    pub fn failures(&self) -> Vec<String> {
        self.seen.failures.lock().unwrap().clone()
    }

    /// Ends every stream in order; all that went wrong.
    pub fn finish(mut self) -> Vec<String> {
        self.seen.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.failures()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed already.
            let _ = thread.join();
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs a client to its end, which before the traffic is to end is a failure. The first exchange may
/// meet a mesh that is not complete yet: until one succeeded, it begins again.
async fn client<F: Future<Output = Outcome>>(kind: Kind, seen: &Seen, run: impl Fn() -> F) {
    loop {
        let outcome = run().await;
        if seen.is_over() && outcome.is_ok() {
            return;
        }
        if seen.counts[kind as usize].load(Relaxed) > 0 || seen.is_over() {
            let why = outcome.err().map_or("ended".into(), |e| e.to_string());
            return seen
                .failures
                .lock()
                .unwrap()
                .push(format!("{kind:?}: {why}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn soon<T, E: Into<Box<dyn std::error::Error>>>(
    what: impl Future<Output = Result<T, E>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let answered = tokio::time::timeout(PATIENCE, what).await;
    answered
        .map_err(|_| format!("nothing for {PATIENCE:?}"))?
        .map_err(Into::into)
}

async fn http1_requests(seen: &Seen, to: SocketAddr) -> Outcome {
    let mut tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while !seen.is_over() {
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")
            .await?;
        let head = soon(read_head(&mut tcp, &mut buffer)).await?;
        let head = head.ok_or("the connection ended")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(head.into());
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .ok_or("no length")?
            .parse()?;
        while buffer.len() < length {
            if soon(tcp.read_buf(&mut buffer)).await? == 0 {
                return Err("the body was cut".into());
            }
        }
        let body = String::from_utf8(buffer.drain(..length).collect())?;
        seen.note(Kind::Http1, Some(&body));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn open_http2(to: SocketAddr) -> Result<h2::client::SendRequest<Bytes>, io::Error> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let (send, connection) = h2::client::handshake(tcp).await.map_err(io::Error::other)?;
    spawn_local(async move {
        // How it ended shows on its streams.
        let _ = connection.await;
    });
    Ok(send)
}

fn call() -> http::Request<()> {
    http::Request::post("http://app/shop.v1.Echo/Say")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// A message as gRPC frames it: not compressed, its length, its bytes.
fn message(number: u64) -> Bytes {
    let mut framed = vec![0, 0, 0, 0, 8];
    framed.extend_from_slice(&number.to_be_bytes());
    framed.into()
}

/// Reads exactly `length` bytes of a stream.
async fn read_exactly(body: &mut h2::RecvStream, length: usize) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while all.len() < length {
        let piece = body.data().await.ok_or("the stream ended")?;
        let piece = piece.map_err(|error| error.to_string())?;
        let released = body.flow_control().release_capacity(piece.len());
        released.map_err(|error| error.to_string())?;
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

async fn end_of_call(mut body: h2::RecvStream) -> Outcome {
    if let Some(piece) = soon(async { body.data().await.transpose() }).await? {
        return Err(format!("unexpected {piece:?}").into());
    }
    let trailers = soon(body.trailers()).await?.unwrap_or_default();
    match trailers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        _ => Err(format!("trailers {trailers:?}").into()),
    }
}

async fn http2_requests(seen: &Seen, to: SocketAddr) -> Outcome {
    let mut send = open_http2(to).await?;
    let mut number = 0;
    while !seen.is_over() {
        number += 1;
        send = soon(send.ready()).await?;
        let (response, mut stream) = send.send_request(call(), false)?;
        stream.send_data(message(number), true)?;
        let response = soon(response).await?;
        if response.status() != 200 || response.headers().get("grpc-status").is_some() {
            return Err(format!("{response:?}").into());
        }
        let server = response.headers()["x-server"].to_str()?.to_owned();
        let mut body = response.into_body();
        if soon(read_exactly(&mut body, 13)).await? != message(number) {
            return Err("another message came back".into());
        }
        end_of_call(body).await?;
        seen.note(Kind::Http2, Some(&server));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn grpc_stream(seen: &Seen, to: SocketAddr) -> Outcome {
    let send = open_http2(to).await?;
    let mut send = soon(send.ready()).await?;
    let (response, mut stream) = send.send_request(call(), false)?;
    let response = soon(response).await?;
    if response.status() != 200 || response.headers().get("grpc-status").is_some() {
        return Err(format!("{response:?}").into());
    }
    let mut body = response.into_body();
    let mut number = 0;
    while !seen.is_over() {
        number += 1;
        stream.send_data(message(number), false)?;
        if soon(read_exactly(&mut body, 13)).await? != message(number) {
            return Err("another message came back".into());
        }
        seen.note(Kind::GrpcStream, None);
        tokio::time::sleep(PAUSE).await;
    }
    stream.send_data(Bytes::new(), true)?;
    end_of_call(body).await
}

async fn websocket(seen: &Seen, to: SocketAddr) -> Outcome {
    let mut tcp = TcpStream::connect(to).await?;
    let request = "GET /chat HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tcp.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::new();
    let head = soon(read_head(&mut tcp, &mut buffer)).await?;
    let head = head.ok_or("the connection ended")?;
    if !head.starts_with("HTTP/1.1 101 ") {
        return Err(head.into());
    }
    exchange(seen, Kind::WebSocket, tcp).await
}

async fn long_tcp(seen: &Seen, to: SocketAddr) -> Outcome {
    let mut tcp = TcpStream::connect(to).await?;
    soon(read_name(&mut tcp)).await?;
    exchange(seen, Kind::LongTcp, tcp).await
}

async fn tcp_connections(seen: &Seen, to: SocketAddr) -> Outcome {
    while !seen.is_over() {
        let mut tcp = TcpStream::connect(to).await?;
        let name = soon(read_name(&mut tcp)).await?;
        round_trip(&mut tcp, 1).await?;
        end(tcp).await?;
        seen.note(Kind::Tcp, Some(&name));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The line that a TCP server begins with.
async fn read_name(tcp: &mut TcpStream) -> io::Result<String> {
    let mut name = String::new();
    loop {
        match tcp.read_u8().await? {
            b'\n' => return Ok(name),
            byte => name.push(byte.into()),
        }
    }
}

/// Echoes on one connection until the end.
async fn exchange(seen: &Seen, kind: Kind, mut tcp: TcpStream) -> Outcome {
    let mut number = 0;
    while !seen.is_over() {
        number += 1;
        round_trip(&mut tcp, number).await?;
        seen.note(kind, None);
        tokio::time::sleep(PAUSE).await;
    }
    end(tcp).await
}

async fn round_trip(tcp: &mut TcpStream, number: u64) -> Outcome {
    tcp.write_u64(number).await?;
    match soon(tcp.read_u64()).await? {
        back if back == number => Ok(()),
        back => Err(format!("{back} came back for {number}").into()),
    }
}

/// Our end, then the server's, with nothing in between.
async fn end(mut tcp: TcpStream) -> Outcome {
    tcp.shutdown().await?;
    match soon(tcp.read(&mut [0])).await? {
        0 => Ok(()),
        _ => Err("a stray byte".into()),
    }
}
