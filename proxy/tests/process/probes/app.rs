//! Apps with just enough HTTP/1 for a test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// An app and what it received.
pub struct App {
    pub port: u16,
    /// Each request's peer and head.
    pub requests: Receiver<(SocketAddr, String)>,
}

impl App {
    /// Answers each request by `answer`, which gets its head.
    pub fn start(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + Clone + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = channel();
        thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let (answer, sender) = (answer.clone(), sender.clone());
                thread::spawn(move || {
                    let head = head(&mut stream);
                    // The receiver is dropped when the test ends.
                    let _ = sender.send((peer, head.clone()));
                    answer(&head, &mut stream);
                });
            }
        });
        App { port, requests }
    }

    /// Answers with these bytes.
    pub fn answering(response: &'static str) -> Self {
        Self::start(move |_, stream| {
            let _ = stream.write_all(response.as_bytes());
        })
    }

    /// Accepts and never answers.
    pub fn silent() -> Self {
        Self::start(|_, stream| {
            // Ends with the connection.
            let _ = stream.read(&mut [0]);
        })
    }
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// The path of a request.
pub fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}
