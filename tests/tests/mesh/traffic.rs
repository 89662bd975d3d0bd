//! Calls from a program in a namespace: [`get`] once, [`Load`] again and again.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;

/// Longer than a sidecar waits for the control plane's answer about a destination.
const ANSWER: Duration = Duration::from_secs(15);

/// Runs `what` in the namespace, on a thread of its own.
pub fn within<T: Send>(host: &Namespace, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            host.enter().unwrap();
            what()
        });
        thread.join().unwrap()
    })
}

/// One HTTP/1 request on a connection of its own, as a program at `host` would send it; the
/// answer's status and body.
pub fn get(host: &Namespace, to: &str, path: &str) -> io::Result<(u16, String)> {
    let to: SocketAddr = to.parse().unwrap();
    within(host, || ask(to, path))
}

fn ask(to: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Requests one after the other, each on a connection of its own, until dropped.
pub struct Load {
    answered: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(host: &Namespace, to: &str) -> Self {
        let (host, to) = (host.clone(), to.parse().unwrap());
        let mut load = Self {
            answered: Arc::default(),
            failures: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (answered, failures) = (load.answered.clone(), load.failures.clone());
        let stop = load.stop.clone();
        load.thread = Some(std::thread::spawn(move || {
            host.enter().unwrap();
            while !stop.load(Ordering::Relaxed) {
                match ask(to, "/") {
                    Ok((200, _)) => _ = answered.fetch_add(1, Ordering::Relaxed),
                    other => failures.lock().unwrap().push(format!("{other:?}")),
                }
            }
        }));
        load
    }
}

impl Load {
    /// Requests answered with 200 so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How requests failed so far.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the load was seen as too few answers.
            let _ = thread.join();
        }
    }
}
