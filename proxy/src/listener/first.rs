//! A connection's first bytes: read once, inspected, passed on; and server-first protocols.
//!
//! A silent client may be waiting for the server (MySQL, SMTP). If silence can only mean plain TCP
//! to one cluster, the server is dialled meanwhile and its first bytes are forwarded. That costs a
//! dial per silent client, so it starts after a delay, unless the destination is remembered as
//! server-first.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::ListenerContext;
use super::detect::{Look, MAX_LOOK, detect};
use crate::bug;
use crate::config::listener::{ListenerFilters, TcpProxy};
use crate::policy::DetectedProtocol;
use crate::snapshot::Listener;
use crate::tcp::dial::{Dialled, Origin, dial};

/// How long a client may be silent before its server is dialled: longer than a client-first client
/// needs, shorter than a user notices.
const SILENCE: Duration = Duration::from_millis(10);
/// Destinations that are remembered.
const REMEMBERED: usize = 1024;

/// Destinations whose servers speak first; the latest, per worker.
#[derive(Default)]
pub struct ServerFirstCache {
    known: RefCell<(HashSet<SocketAddr>, VecDeque<SocketAddr>)>,
}

impl ServerFirstCache {
    pub fn contains(&self, destination: SocketAddr) -> bool {
        self.known.borrow().0.contains(&destination)
    }

    fn remember(&self, destination: SocketAddr) {
        let (known, order) = &mut *self.known.borrow_mut();
        if !known.insert(destination) {
            return;
        }
        order.push_back(destination);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}

/// The cluster that a silent client's connection would use.
pub(super) struct ServerFirstCandidate {
    pub(crate) listener: Arc<Listener>,
    pub(crate) proxy: Arc<TcpProxy>,
    pub(crate) peer: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) original_dst: Option<SocketAddr>,
}

/// What inspection of the first bytes found.
pub(super) struct InspectResult {
    pub(crate) protocol: DetectedProtocol,
    /// Bytes read from the client so far.
    pub(crate) prefix: BytesMut,
    /// The server that was dialled while the client was silent.
    pub(crate) dialled: Option<Dialled>,
}

/// Why detection failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DetectError {
    /// The client reset the connection.
    Gone,
    TimedOut,
}

/// Waits until the protocol is detected, or the server sends bytes.
pub(super) async fn first(
    worker: &Rc<ListenerContext>,
    tcp: &TcpStream,
    inspect: &ListenerFilters,
    silent: Option<ServerFirstCandidate>,
) -> Result<InspectResult, DetectError> {
    let look = Look {
        tls: inspect.tls,
        http: inspect.http,
    };
    let timer = worker.timers.timer();
    timer.set_or_never(inspect.timeout);
    let dialled = RefCell::new(None);
    let mut prefix = BytesMut::new();
    let protocol = tokio::select! {
        // In this order: bytes of the client decide before the server's.
        biased;
        found = detect_client(worker, tcp, look, &mut prefix) => found?,
        () = await_server(worker, silent, &dialled) => DetectedProtocol::Tcp,
        () = timer.expired() => match inspect.continue_on_timeout || dialled.borrow().is_some() {
            true => DetectedProtocol::Tcp,
            false => return Err(DetectError::TimedOut),
        },
    };
    Ok(InspectResult {
        protocol,
        prefix,
        dialled: dialled.into_inner(),
    })
}

async fn detect_client(
    worker: &Rc<ListenerContext>,
    tcp: &TcpStream,
    look: Look,
    prefix: &mut BytesMut,
) -> Result<DetectedProtocol, DetectError> {
    loop {
        tcp.readable().await.map_err(|_| DetectError::Gone)?;
        if prefix.capacity() == 0 {
            *prefix = worker.buffers.take();
        }
        match tcp.try_read_buf(prefix) {
            // A client that closes its write side without a byte is not HTTP.
            Ok(0) => return Ok(DetectedProtocol::Tcp),
            Ok(_) => {
                bug::point("first_bytes");
                if let Some(protocol) = detect(prefix, look) {
                    return Ok(protocol);
                }
                // `detect` decides before the buffer is full.
                debug_assert!(prefix.len() < MAX_LOOK);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(DetectError::Gone),
        }
    }
}

/// Ready when the server has sent bytes; its connection is in `dialled` then, and also when it was
/// made but is still silent.
async fn await_server(
    worker: &Rc<ListenerContext>,
    silent: Option<ServerFirstCandidate>,
    dialled: &RefCell<Option<Dialled>>,
) {
    let Some(silent) = silent else {
        return pending().await;
    };
    if !worker.server_first.contains(silent.destination) {
        worker.timers.sleep(SILENCE).await;
    }
    let links = &silent.listener.clusters;
    let origin = Origin {
        peer: silent.peer,
        local: silent.destination,
        original_dst: silent.original_dst,
        sni: None,
        limit: silent.listener.def.upstream_limit.as_ref(),
    };
    // Boxed: few clients are silent, and the task of every connection would be larger by this.
    let dialling = Box::pin(dial(worker, &worker.pools, links, &silent.proxy, &origin));
    match dialling.await {
        Ok(connection) => {
            connection.count_speculative();
            dialled.replace(Some(connection));
        }
        // The client may still send bytes that select another chain; if not, the failure shows when
        // the connection is served.
        Err(_) => return pending().await,
    }
    poll_fn(|cx| match &*dialled.borrow() {
        Some(connection) => connection.stream.poll_read_ready(cx).map(drop),
        None => std::task::Poll::Pending,
    })
    .await;
    worker.server_first.remember(silent.destination);
}
