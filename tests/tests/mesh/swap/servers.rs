//! Servers that send their name and echo.

use std::io;
use std::net::Ipv4Addr;
use std::thread::JoinHandle;

use anyam_cli::demo::netns::Namespace;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::traffic::{on_thread, read_head};

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

/// Echoes a body piece by piece, then ends with a status of success.
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
