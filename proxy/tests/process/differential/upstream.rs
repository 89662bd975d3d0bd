//! What stands behind both proxies: the path says what it does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::net::sockopt::set_socket_linger;

use crate::filters::upstream::chunked;
use crate::proxy::upstream;

/// Does by the last segment of the path: `close`, `reset`, `garbage`, `silent`, `short`, `coding`,
/// `unknown-status`, `fail`; else it answers with what it got, byte by byte, and the lines that
/// `x-answer` has, separated by `|`.
pub fn scripted() -> SocketAddr {
    upstream(serve)
}

/// An address that refuses connections: a socket is bound to it, and does not listen, for as long as
/// the descriptor is open.
pub fn refusing() -> (SocketAddr, rustix::fd::OwnedFd) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
    (address, socket)
}

/// An address at which connections are neither accepted nor refused.
pub fn unanswering() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let listener = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    // One connection fills the queue.
    let waiting = vec![TcpStream::connect(address).unwrap()];
    (address, waiting, listener)
}

fn serve(tcp: TcpStream) {
    let mut writer = tcp.try_clone().unwrap();
    let mut reader = BufReader::new(tcp);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(reader.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let path = path.split('?').next().unwrap().to_owned();
        let value = |name: &str| {
            let line = head.split("\r\n").find(|line| line.starts_with(name))?;
            Some(line[name.len() + 2..].to_owned())
        };
        let mut body = Vec::new();
        if let Some(length) = value("content-length") {
            body.resize(length.parse().unwrap(), 0);
            if reader.read_exact(&mut body).is_err() {
                return;
            }
        } else if value("transfer-encoding").is_some() {
            match chunked(&mut reader) {
                Some(read) => body = read,
                None => return,
            }
        }
        let answer = match path.rsplit('/').next().unwrap() {
            "close" => return,
            "reset" => {
                set_socket_linger(&writer, Some(std::time::Duration::ZERO)).unwrap();
                return;
            }
            "garbage" => return drop(writer.write_all(b"garbage\r\n\r\n")),
            // Until the proxy gives up.
            "silent" => return drop(reader.read(&mut [0])),
            "short" => {
                let part = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
                return drop(writer.write_all(part));
            }
            "coding" => {
                let part = b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc";
                return drop(writer.write_all(part));
            }
            "fail" => "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno".to_owned(),
            "empty" => "HTTP/1.1 204 Nothing\r\nx-from: app\r\n\r\n".to_owned(),
            _ => {
                let text = format!("{head}{}", String::from_utf8_lossy(&body));
                let more = value("x-answer").unwrap_or_default().replace('|', "\r\n");
                let more = match more.as_str() {
                    "" => String::new(),
                    more => format!("{more}\r\n"),
                };
                format!(
                    "HTTP/1.1 200 OK\r\n{more}content-length: {}\r\n\r\n{text}",
                    text.len()
                )
            }
        };
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
