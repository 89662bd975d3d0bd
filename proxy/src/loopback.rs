//! One HTTP request to the sidecar of this network namespace, by commands that run beside it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::time::Duration;

/// Time-out for connecting, for reading and for writing.
const ANSWER: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 16 << 10;

/// Sends `METHOD TARGET` to a port on loopback, and blocks the calling thread until it is answered.
///
/// # Errors
/// Nothing listens or answers in time, in words; or the body of an answer that is not 200.
pub fn request(port: u16, line: &str) -> Result<(), String> {
    let connect = |to: IpAddr| TcpStream::connect_timeout(&(to, port).into(), ANSWER);
    let connected = connect(Ipv4Addr::LOCALHOST.into());
    let connected = connected.or_else(|_| connect(Ipv6Addr::LOCALHOST.into()));
    let answer = connected.and_then(|tcp| exchange(tcp, line));
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(body.trim().replace('\n', ", ")),
    }
}

fn exchange(mut tcp: TcpStream, line: &str) -> io::Result<String> {
    tcp.set_read_timeout(Some(ANSWER))?;
    tcp.set_write_timeout(Some(ANSWER))?;
    let request = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes())?;
    let mut answer = String::new();
    tcp.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
