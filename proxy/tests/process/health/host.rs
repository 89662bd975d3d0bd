//! A host whose answers to health checks follow a script. When a check arrives, what the checker
//! knows by the results before is written down: its page of clusters is read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::proxy::ask;
use crate::running::TIMEOUT;

/// What is done with one check.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// An answer, over HTTP without a body.
    Status(u16),
    /// An answer with this header.
    With(u16, &'static str),
    /// 200 with this body.
    Body(&'static str),
    /// These bytes, and nothing else.
    Bytes(&'static str),
    /// The connection is ended.
    Close,
    Reset,
    /// Nothing comes.
    Silent,
    /// A head, or a body, that has no end, at once.
    EndlessHead,
    /// The same, a little at a time.
    SlowBody,
}

/// How checks are recognised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http,
    /// A check is a message of four bytes.
    Raw,
}

/// See the module.
pub struct ScriptedHost {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    checks: Mutex<Receiver<Arrived>>,
}

/// A check, when it arrived.
#[derive(Debug)]
pub struct Arrived {
    /// What is known of the host by the results of those before.
    pub flags: String,
    /// Its lines, sorted.
    pub request: Vec<String>,
}

struct Shared {
    script: Vec<Step>,
    speaks: Speaks,
    count: Mutex<usize>,
    arrived: Sender<Arrived>,
    /// Of the proxy that checks.
    admin: OnceLock<SocketAddr>,
    address: SocketAddr,
}

impl ScriptedHost {
    /// After its script it answers as in the last step.
    pub fn start(speaks: Speaks, script: &[Step]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, checks) = channel();
        let shared = Arc::new(Shared {
            script: script.to_vec(),
            speaks,
            count: Mutex::new(0),
            arrived,
            admin: OnceLock::new(),
            address,
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let (tcp, shared) = (tcp.unwrap(), serving.clone());
                std::thread::spawn(move || shared.serve(tcp));
            }
        });
        Self {
            address,
            shared,
            checks: Mutex::new(checks),
        }
    }

    /// Where the proxy that checks it has its pages.
    pub fn is_checked_by(&self, admin: SocketAddr) {
        self.shared.admin.set(admin).unwrap();
    }

    /// The next check.
    pub fn next(&self) -> Arrived {
        self.checks.lock().unwrap().recv_timeout(TIMEOUT).unwrap()
    }

    /// The next checks, so many.
    pub fn take(&self, count: usize) -> Vec<Arrived> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// The health flags of an endpoint, on the page of a proxy.
pub fn flags(admin: SocketAddr, endpoint: SocketAddr) -> Option<String> {
    let request = "GET /clusters HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let page = ask(admin, request).ok()?;
    let start = format!("::{endpoint}::health_flags::");
    let (_, rest) = page.split_once(&start)?;
    Some(rest.lines().next()?.trim().to_owned())
}

impl Shared {
    fn serve(&self, mut tcp: TcpStream) {
        let mut pending = Vec::new();
        while let Some(request) = self.read(&mut tcp, &mut pending) {
            let flags = self
                .admin
                .get()
                .and_then(|admin| flags(*admin, self.address));
            let step = {
                let mut count = self.count.lock().unwrap();
                let step = self.script.get(*count).or(self.script.last());
                *count += 1;
                *step.unwrap()
            };
            let mut request: Vec<String> = request.lines().map(str::to_owned).collect();
            request.sort();
            // The test may have seen enough.
            let _ = self.arrived.send(Arrived {
                flags: flags.unwrap_or_default(),
                request,
            });
            if self.act(&mut tcp, step).is_none() {
                return;
            }
        }
    }

    /// The next check; `None`: the connection ended.
    fn read(&self, tcp: &mut TcpStream, pending: &mut Vec<u8>) -> Option<String> {
        loop {
            let end = match self.speaks {
                Speaks::Raw => (pending.len() >= 4).then_some(4),
                Speaks::Http => {
                    let end = pending.windows(4).position(|four| four == b"\r\n\r\n");
                    end.map(|at| at + 4)
                }
            };
            if let Some(end) = end {
                let request = pending.drain(..end).collect();
                return Some(String::from_utf8(request).unwrap());
            }
            let mut piece = [0; 4096];
            match tcp.read(&mut piece) {
                Ok(count @ 1..) => pending.extend_from_slice(&piece[..count]),
                _ => return None,
            }
        }
    }

    /// `None`: the connection is over.
    fn act(&self, tcp: &mut TcpStream, step: Step) -> Option<()> {
        let head = |status: u16, more: &str| format!("HTTP/1.1 {status} A\r\n{more}\r\n\r\n");
        match step {
            Step::Status(status) => {
                let head = head(status, "content-length: 0");
                tcp.write_all(head.as_bytes()).ok()
            }
            Step::With(status, header) => {
                let head = head(status, &format!("content-length: 0\r\n{header}"));
                tcp.write_all(head.as_bytes()).ok()
            }
            Step::Body(body) => {
                let head = head(200, &format!("content-length: {}", body.len()));
                tcp.write_all(format!("{head}{body}").as_bytes()).ok()
            }
            Step::Bytes(bytes) => tcp.write_all(bytes.as_bytes()).ok(),
            Step::Close => None,
            Step::Reset => {
                rustix::net::sockopt::set_socket_linger(&*tcp, Some(Duration::ZERO)).unwrap();
                None
            }
            Step::Silent => {
                // Until the checker gives up.
                let _ = tcp.read(&mut [0; 16]);
                None
            }
            Step::EndlessHead => {
                let _ = tcp.write_all(b"HTTP/1.1 200 A\r\n");
                while tcp.write_all(&[b'a'; 1 << 10]).is_ok() {}
                None
            }
            Step::SlowBody => {
                let _ = tcp.write_all(b"HTTP/1.1 200 A\r\ntransfer-encoding: chunked\r\n\r\n");
                // Until the checker closes: reading ends then, and else once a chunk is due.
                let pace = Duration::from_millis(5);
                tcp.set_read_timeout(Some(pace)).unwrap();
                while tcp.write_all(b"1\r\na\r\n").is_ok() && tcp.read(&mut [0]).is_err() {}
                None
            }
        }
    }
}
