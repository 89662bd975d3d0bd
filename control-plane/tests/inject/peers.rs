//! Idle and slow peers of the webhook, which need no credential to connect.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::webhook::{NAME, Server, pod, review};

/// For what must happen at once.
const TIMEOUT: Duration = Duration::from_secs(20);

fn head(length: usize) -> String {
    format!("POST /inject HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_body_without_end_is_not_read() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let head =
        format!("POST /inject HTTP/1.1\r\nhost: {NAME}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let (mut read, mut write) = tokio::io::split(stream);
    let answered = async {
        let mut status = [0; 12];
        read.read_exact(&mut status).await.unwrap();
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    // Without a bound this would write for ever.
    let writing = async {
        while write.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<String>().await
    };
    let status = tokio::select! { status = answered => status, status = writing => status };
    assert_eq!(status, "413");
}

#[tokio::test]
async fn plaintext_and_idle_connections_do_not_disturb_others() {
    let server = Server::start().await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(server.running.address).await.unwrap());
    }
    let mut plain = TcpStream::connect(server.running.address).await.unwrap();
    plain
        .write_all(b"POST /inject HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"));
    let response = server.review("/inject", &pod(), |_| {}).await;
    assert!(response["patch"].is_string());
    // They are closed by themselves.
    let first = silent.first_mut().unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(20), first.read(&mut [0])).await;
    assert_eq!(closed.unwrap().unwrap_or(0), 0);
}

/// The limit of connections from one address, each after its handshake and without a request.
#[tokio::test]
async fn idle_connections_make_room_for_a_review() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..70 {
        idle.push(server.connect().await);
    }
    let response = server.review("/inject", &pod(), |_| {}).await;
    assert!(response["patch"].is_string());
    // The oldest connection was closed, the newest was not.
    let mut byte = [0];
    let first = idle.first_mut().unwrap().read(&mut byte);
    let closed = tokio::time::timeout(TIMEOUT, first).await.unwrap();
    assert_eq!(closed.unwrap_or(0), 0);
    let last = idle.last_mut().unwrap();
    last.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut status = [0; 12];
    last.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 404");
}

/// The first half of 60 bodies of 2 MiB each: not all of them are kept.
#[tokio::test]
async fn bodies_that_never_end_are_bounded_together() {
    let server = Server::start().await;
    let (half, whole) = (vec![b' '; 1 << 20], 2 << 20);
    let mut slow = Vec::new();
    for _ in 0..60 {
        let mut stream = server.connect().await;
        stream.write_all(head(whole).as_bytes()).await.unwrap();
        // One that is closed for others meanwhile cannot be written to.
        let _ = stream.write_all(&half).await;
        slow.push(stream);
    }
    let response = server.review("/inject", &pod(), |_| {}).await;
    assert!(response["patch"].is_string());
    let text = String::from_utf8(server.metrics.render(0, 0, 0).unwrap()).unwrap();
    let mut lines = text.lines();
    let refused = "anyam_control_connections_refused_total{reason=\"webhook\"} ";
    let refused = lines.find_map(|line| line.strip_prefix(refused)).unwrap();
    assert!(refused.parse::<u32>().unwrap() >= 8, "{refused}");
}

/// Two bytes of text each, and more than a hundred of memory.
#[tokio::test]
async fn a_body_of_many_values_is_refused_unread() {
    let server = Server::start().await;
    let mut pod = pod();
    pod["spec"]["x"] = json!(vec![0; 60_000]);
    let (status, said) = server
        .post("/inject", review(&pod).to_string().as_bytes())
        .await;
    assert_eq!(status, 413);
    assert!(said.contains("50000 JSON values"), "{said}");
    // A text of that length with fewer values is not refused.
    pod["spec"]["x"] = "[,{,[,{".repeat(20_000).into();
    let response = server.review("/inject", &pod, |_| {}).await;
    assert!(response["patch"].is_string());
}
