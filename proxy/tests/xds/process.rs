//! The proxy as a process, and requests to it.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ports::free_port;
use crate::running::Running;

/// A running proxy; ends when dropped.
pub struct Proxy {
    process: Running,
    admin: u16,
}

impl Proxy {
    /// Starts with `bootstrap`, and an admin port of its own.
    pub fn start(bootstrap: Value) -> Self {
        Self::draining_for(bootstrap, 1)
    }

    /// As [`Proxy::start`], with so many seconds for its end.
    pub fn draining_for(mut bootstrap: Value, seconds: u32) -> Self {
        let admin = free_port();
        bootstrap["admin"] = json!({"address": {"socket_address": {
            "address": "127.0.0.1", "port_value": admin}}});
        let process = Running::start(
            Command::new(env!("CARGO_BIN_EXE_anyam-proxy"))
                .args(["--config-yaml", &bootstrap.to_string(), "-l", "warn"])
                .args(["--concurrency", "2", "--drain-time-s", &seconds.to_string()])
                .stdin(Stdio::null()),
        );
        Self { process, admin }
    }

    /// An admin page: status and body. Waits until the admin port is open.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let address = ([127, 0, 0, 1], self.admin).into();
        loop {
            if let Some(answer) = ask(address, path).await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The value of a series (a name and its labels); 0 while there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin("/stats/prometheus").await;
        let value = text.lines().find_map(|line| line.strip_prefix(series));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        self.process.ended()
    }

    pub async fn is_live(&self) -> bool {
        self.admin("/ready").await == (200, "LIVE\n".into())
    }
}

/// One request on a connection of its own; `None`: no listener.
pub async fn ask(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The status a proxy's listener answers with; `None`: no listener.
pub async fn status(port: u16) -> Option<u16> {
    let answer = ask(([127, 0, 0, 1], port).into(), "/").await;
    answer.map(|(status, _)| status)
}

/// Sends requests until the port has a listener.
pub async fn first_status(port: u16) -> u16 {
    loop {
        if let Some(status) = status(port).await {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

/// An upstream that answers each connection once, with 200.
pub async fn upstream() -> SocketAddr {
    answering(|| 200).await
}

/// An upstream that answers each connection once, with the given status.
pub async fn answering(status: impl Fn() -> u16 + Send + 'static) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = status();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let answer = format!(
                    "HTTP/1.1 {status} Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}
