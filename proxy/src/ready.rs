//! `anyam-proxy wait`: waits until the sidecar of this network namespace is ready.
//!
//! A classic sidecar runs it as its `postStart` hook: the kubelet starts a pod's containers in
//! order, and the next one only after that hook has ended.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Between two requests: readiness is another process's, which has no event to wait for.
const PAUSE: Duration = Duration::from_millis(100);
/// Time-out for connecting, for reading and for writing.
const ANSWER: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 16 << 10;
const REQUEST: &[u8] =
    b"GET /healthz/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// The sidecar was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar whose readiness port is {port} was not ready within {within:?}: {why}")]
pub struct NotReady {
    port: u16,
    within: Duration,
    why: String,
}

/// Blocks the calling thread. `port`: the sidecar's readiness port on loopback.
///
/// # Errors
/// The sidecar was not ready in time; with the last answer.
pub fn wait(port: u16, within: Duration) -> Result<(), NotReady> {
    let began = Instant::now();
    loop {
        let Err(why) = ask(port) else {
            return Ok(());
        };
        if began.elapsed() >= within {
            return Err(NotReady { port, within, why });
        }
        thread::sleep(PAUSE);
    }
}

/// # Errors
/// Why it is not ready, in words.
fn ask(port: u16) -> Result<(), String> {
    let connect = |to: IpAddr| TcpStream::connect_timeout(&(to, port).into(), ANSWER);
    let connected = connect(Ipv4Addr::LOCALHOST.into());
    let connected = connected.or_else(|_| connect(Ipv6Addr::LOCALHOST.into()));
    let answer = connected.and_then(exchange);
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(body.trim().replace('\n', ", ")),
    }
}

fn exchange(mut tcp: TcpStream) -> io::Result<String> {
    tcp.set_read_timeout(Some(ANSWER))?;
    tcp.set_write_timeout(Some(ANSWER))?;
    tcp.write_all(REQUEST)?;
    let mut answer = String::new();
    tcp.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
