//! Traffic of every kind: what came back as it should is counted, everything else noted.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::LocalSet;

use super::clients::{
    grpc_stream, http1_requests, http2_requests, long_tcp, tcp_connections, websocket,
};

/// Between two exchanges of one client: load, not a flood.
pub const PAUSE: Duration = Duration::from_millis(4);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http1,
    Http2,
    /// One bidirectional stream that outlasts every change.
    GrpcStream,
    /// One connection that outlasts every change.
    WebSocket,
    /// Short connections.
    Tcp,
    /// One connection that outlasts every change.
    LongTcp,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Http1,
        Self::Http2,
        Self::GrpcStream,
        Self::WebSocket,
        Self::Tcp,
        Self::LongTcp,
    ];
}

/// Runs `what` on a thread and a runtime of its own, with sockets in the namespace.
pub fn on_thread<F: Future<Output = ()>>(
    host: &Namespace,
    what: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<()> {
    let host = host.clone();
    std::thread::spawn(move || {
        host.enter().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async { what().await });
    })
}

/// A head up to its empty line; what follows stays in `buffer`. `None`: the peer ended.
pub async fn read_head(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = buffer.split_off(at + 4);
            let head = std::mem::replace(buffer, rest);
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

#[derive(Default)]
pub struct Seen {
    counts: [AtomicU64; Kind::ALL.len()],
    /// The server that answered last, by kind.
    servers: Mutex<[String; Kind::ALL.len()]>,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Seen {
    pub fn note(&self, kind: Kind, server: Option<&str>) {
        self.counts[kind as usize].fetch_add(1, Relaxed);
        if let Some(server) = server {
            server.clone_into(&mut self.servers.lock().unwrap()[kind as usize]);
        }
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// Clients of every kind, until [`Traffic::finish`].
pub struct Traffic {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// `app`: the address of the service with routes; `pool`: of the one whose endpoints change.
    pub fn start(host: &Namespace, app: &str, pool: &str) -> Self {
        let seen = Arc::<Seen>::default();
        let at = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
        let (http1, http2) = (at(app, 8080), at(app, 8081));
        let tcp = at(pool, 8082);
        let shared = seen.clone();
        let thread = on_thread(host, move || async move {
            tokio::join!(
                client(Kind::Http1, &shared, || http1_requests(&shared, http1)),
                client(Kind::Http2, &shared, || http2_requests(&shared, http2)),
                client(Kind::GrpcStream, &shared, || grpc_stream(&shared, http2)),
                client(Kind::WebSocket, &shared, || websocket(&shared, http1)),
                client(Kind::Tcp, &shared, || tcp_connections(&shared, tcp)),
                client(Kind::LongTcp, &shared, || long_tcp(&shared, tcp)),
            );
        });
        Self {
            seen,
            thread: Some(thread),
        }
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.seen.counts[kind as usize].load(Relaxed)
    }

    /// Whether the last exchange of this kind was with `server`.
    pub fn reached(&self, kind: Kind, server: &str) -> bool {
        self.seen.servers.lock().unwrap()[kind as usize] == server
    }

    pub fn failures(&self) -> Vec<String> {
        self.seen.failures.lock().unwrap().clone()
    }

    /// Ends every stream in order; all that went wrong.
    pub fn finish(mut self) -> Vec<String> {
        self.seen.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.failures()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed already.
            let _ = thread.join();
        }
    }
}

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs a client to its end, which before the traffic is to end is a failure. The first exchange may
/// meet a mesh that is not complete yet: until one succeeded, it begins again.
async fn client<F: Future<Output = Outcome>>(kind: Kind, seen: &Seen, run: impl Fn() -> F) {
    loop {
        let outcome = run().await;
        if seen.is_over() && outcome.is_ok() {
            return;
        }
        if seen.counts[kind as usize].load(Relaxed) > 0 || seen.is_over() {
            let why = outcome.err().map_or("ended".into(), |e| e.to_string());
            return seen
                .failures
                .lock()
                .unwrap()
                .push(format!("{kind:?}: {why}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
