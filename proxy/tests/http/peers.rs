//! Upstreams and clients that send exactly what a test writes.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens and gives each connection to `serve`, with its number.
pub async fn listen<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            tokio::spawn(serve(tcp, number));
        }
    });
    address
}

/// An HTTP/1 upstream: answers each request's head (as text, body by Content-Length after it)
/// with what `answer` makes of it.
pub async fn h1<F>(answer: F) -> SocketAddr
where
    F: Fn(&str) -> String + Clone + Send + Sync + 'static,
{
    listen(move |mut tcp, _| {
        let answer = answer.clone();
        async move {
            let mut buffer = Vec::new();
            while let Some(request) = read_message(&mut tcp, &mut buffer).await {
                let response = answer(&request);
                if tcp.write_all(response.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// One message with a body by Content-Length or chunked, as text; `None` at the end.
pub async fn read_message(tcp: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = message_end(buffer) {
            let rest = buffer.split_off(end);
            let message = std::mem::replace(buffer, rest);
            return Some(String::from_utf8(message).unwrap());
        }
        let mut piece = [0; 16 * 1024];
        match tcp.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.extend_from_slice(&piece[..count]),
        }
    }
}

fn message_end(buffer: &[u8]) -> Option<usize> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        let last = find(&buffer[head..], b"0\r\n")?;
        let tail = head + last + 3;
        return Some(tail + find(&buffer[tail - 2..], b"\r\n\r\n")? + 2);
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |value| value.trim().parse::<usize>().unwrap());
    (buffer.len() >= head + length).then_some(head + length)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

pub fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A raw client.
pub struct Client {
    pub tcp: TcpStream,
    pub buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self {
            tcp,
            buffer: Vec::new(),
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.tcp.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next response.
    pub async fn receive(&mut self) -> String {
        let message = read_message(&mut self.tcp, &mut self.buffer).await;
        message.unwrap_or_else(|| {
            panic!(
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.buffer)
            )
        })
    }

    pub async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        self.receive().await
    }

    /// Everything until the end.
    pub async fn rest(mut self) -> String {
        let mut rest = std::mem::take(&mut self.buffer);
        let _ = self.tcp.read_to_end(&mut rest).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")
}

/// An HTTP/2 upstream: every stream is given to `serve`.
pub async fn h2<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> Fut
        + Clone
        + Send
        + Sync
        + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    listen(move |tcp, _| {
        let serve = serve.clone();
        async move {
            let mut builder = h2::server::Builder::new();
            builder.enable_connect_protocol();
            let Ok(mut connection) = builder.handshake::<_, Bytes>(tcp).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(request, respond));
            }
        }
    })
    .await
}

/// Answers a request with `status`, and its body's data as they come.
pub async fn echo_body(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    status: u16,
) {
    let response = http::Response::builder().status(status).body(()).unwrap();
    let mut send = respond.send_response(response, false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        send.send_data(data, false).unwrap();
    }
    let _ = send.send_data(Bytes::new(), true);
}

/// An HTTP/2 client's connection.
pub async fn h2_client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

/// All of a body, its window opened as it comes.
pub async fn read_all(body: &mut h2::RecvStream) -> Vec<u8> {
    try_read_all(body).await.unwrap()
}

/// As [`read_all`], of a stream that may be reset.
pub async fn try_read_all(body: &mut h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        all.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok(all)
}
