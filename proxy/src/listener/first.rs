//! A connection's first bytes: read once, looked at, handed on; and servers that speak first.
//!
//! While a client is silent nobody knows whether it waits for the server. If its silence can only
//! mean plain TCP to one place, the server is dialled meanwhile, and what it says is forwarded.
//! That costs a dial per silent client, so it waits a moment, unless this destination is known
//! for it.

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
use super::detect::{DetectedProtocol, Look, MAX_LOOK, detect};
use crate::config::listener::{Listener, ListenerFilters, TcpProxy};
use crate::tcp::dial::{Dialled, Origin, dial};

/// How long a client may be silent before its server is asked: longer than a client needs that
/// speaks first, shorter than a user notices.
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

/// The way a silent client's connection would go.
pub(super) struct ServerFirstCandidate {
    pub(crate) listener: Arc<Listener>,
    pub(crate) proxy: Arc<TcpProxy>,
    pub(crate) peer: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) original_dst: Option<SocketAddr>,
}

/// What came first.
pub(super) struct First {
    pub(crate) protocol: DetectedProtocol,
    /// What the client has said so far.
    pub(crate) prefix: BytesMut,
    /// The server that was dialled while the client was silent.
    pub(crate) dialled: Option<Dialled>,
}

/// Why there is nothing to go on with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DetectError {
    /// The client reset the connection.
    Gone,
    TimedOut,
}

/// Waits until it is known what a connection speaks, or its server says something.
pub(super) async fn first(
    worker: &Rc<ListenerContext>,
    tcp: &TcpStream,
    inspect: &ListenerFilters,
    silent: Option<ServerFirstCandidate>,
) -> Result<First, DetectError> {
    let look = Look {
        tls: inspect.tls,
        http: inspect.http,
    };
    let timer = worker.timers.timer();
    timer.set_or_clear(inspect.timeout);
    let dialled = RefCell::new(None);
    let mut prefix = BytesMut::new();
    let protocol = tokio::select! {
        // In this order: a client that has spoken needs no guess.
        biased;
        found = client_speaks(worker, tcp, look, &mut prefix) => found?,
        () = server_speaks(worker, silent, &dialled) => DetectedProtocol::Tcp,
        () = timer.expired() => match inspect.continue_on_timeout || dialled.borrow().is_some() {
            true => DetectedProtocol::Tcp,
            false => return Err(DetectError::TimedOut),
        },
    };
    Ok(First {
        protocol,
        prefix,
        dialled: dialled.into_inner(),
    })
}

async fn client_speaks(
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
            // A client that only listens is not HTTP.
            Ok(0) => return Ok(DetectedProtocol::Tcp),
            Ok(_) => {
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

/// Ready when the server has something to say; its connection is in `dialled` then, and also
/// when it was made but is still silent.
async fn server_speaks(
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
    };
    match dial(worker, &worker.pools, links, &silent.proxy, &origin).await {
        Ok(connection) => {
            connection.count_speculative();
            dialled.replace(Some(connection));
        }
        // The client may still say something that leads elsewhere; if not, the failure shows
        // when the connection is served.
        Err(_) => return pending().await,
    }
    poll_fn(|cx| match &*dialled.borrow() {
        Some(connection) => connection.stream.poll_read_ready(cx).map(drop),
        None => std::task::Poll::Pending,
    })
    .await;
    worker.server_first.remember(silent.destination);
}
