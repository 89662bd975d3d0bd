//! One client of each kind: runs until the traffic is over, or returns what came instead.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::traffic::{Kind, Outcome, PAUSE, Seen, read_head};

/// An exchange that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(20);

async fn soon<T, E: Into<Box<dyn std::error::Error>>>(
    what: impl Future<Output = Result<T, E>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let answered = tokio::time::timeout(TIMEOUT, what).await;
    answered
        .map_err(|_| format!("nothing for {TIMEOUT:?}"))?
        .map_err(Into::into)
}

pub async fn http1_requests(seen: &Seen, to: SocketAddr) -> Outcome {
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

pub async fn http2_requests(seen: &Seen, to: SocketAddr) -> Outcome {
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

pub async fn grpc_stream(seen: &Seen, to: SocketAddr) -> Outcome {
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

pub async fn websocket(seen: &Seen, to: SocketAddr) -> Outcome {
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

pub async fn long_tcp(seen: &Seen, to: SocketAddr) -> Outcome {
    let mut tcp = TcpStream::connect(to).await?;
    soon(read_name(&mut tcp)).await?;
    exchange(seen, Kind::LongTcp, tcp).await
}

pub async fn tcp_connections(seen: &Seen, to: SocketAddr) -> Outcome {
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
