//! An app that answers with what it received.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyam_cli::demo::netns::Namespace;

use crate::traffic::within;

const PORT: u16 = 8080;

/// Serves HTTP/1 on port 8080 of a namespace until dropped.
pub struct Mirror {
    host: Namespace,
    stop: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    pub fn start(host: &Namespace) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(Mutex::new(Vec::new()));
        let (stopped, at, seen) = (stop.clone(), host.clone(), received.clone());
        let listener = within(&at, || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap()
        });
        let thread = std::thread::spawn(move || {
            for tcp in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let seen = seen.clone();
                std::thread::spawn(move || {
                    // A client that leaves ends only its own connection.
                    let _ = tcp.and_then(|tcp| serve(tcp, &seen));
                });
            }
        });
        Self {
            host: host.clone(),
            stop,
            received,
            thread: Some(thread),
        }
    }

    /// The heads of all requests since the last call.
    pub fn received(&self) -> Vec<String> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }
}

fn serve(mut tcp: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        while let Some((head_end, end)) = message(&received) {
            let rest = received.split_off(end);
            let mut head = std::mem::replace(&mut received, rest);
            head.truncate(head_end);
            seen.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&head).into_owned());
            let length = head.len();
            write!(tcp, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")?;
            tcp.write_all(&head)?;
        }
        let mut piece = [0; 4096];
        match tcp.read(&mut piece)? {
            0 => return Ok(()),
            count => received.extend_from_slice(&piece[..count]),
        }
    }
}

/// Where the head of the first message ends, and where its body does.
fn message(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mut end = head;
    if field("transfer-encoding:").is_some() {
        loop {
            let line = bytes[end..].windows(2).position(|two| two == b"\r\n")?;
            let size = std::str::from_utf8(&bytes[end..end + line]).ok()?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).ok()?;
            end += line + 2;
            if size == 0 {
                break;
            }
            end = end.checked_add(size)?.checked_add(2)?;
            bytes.get(..end)?;
        }
        // Trailers, if there are any, and the empty line.
        loop {
            let line = bytes[end..].windows(2).position(|two| two == b"\r\n")?;
            end += line + 2;
            if line == 0 {
                break;
            }
        }
    } else if let Some(length) = field("content-length:") {
        end = end.checked_add(length.trim().parse::<usize>().ok()?)?;
        bytes.get(..end)?;
    }
    Some((head, end))
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it from its wait for the next connection.
        within(&self.host, || {
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT));
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
