//! Accepting connections: one loop per listening socket and worker.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::ListenerContext;
use super::conn;
use crate::config::listener::{ListenerDef, ListenerKey};
use crate::connection_limit::{self, ConnectionPermits};
use crate::socket;
use crate::worker::Worker;

/// Pause after descriptors or memory ran out; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts on `listener` (whose address and protocol are `key`) for as long as it is polled; each connection gets a
/// task of its own, which outlives this loop.
pub async fn run(worker: &Rc<ListenerContext>, listener: &TcpListener, key: ListenerKey) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                pause = FIRST_PAUSE;
                admit(worker, tcp, peer, key);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory. Retrying at once would only take CPU from the
                // connections whose end frees them.
                tracing::warn!(address = %key.address, %error, ?pause, "cannot accept connections for now");
                if let Some(listener) = worker.store.borrow().by_socket.get(&key) {
                    listener.def.metrics.accept_errors.inc();
                    if listener.def.closes_idle() {
                        worker.overload.idle.begin(&worker.timers);
                    }
                }
                worker.timers.sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn admit(worker: &Rc<ListenerContext>, tcp: TcpStream, peer: SocketAddr, key: ListenerKey) {
    let snapshot = worker.store.borrow();
    let Some(listener) = snapshot.by_socket.get(&key).cloned() else {
        return;
    };
    drop(snapshot);
    let metrics = &listener.def.metrics;
    let Some(permits) = enter(worker, &listener.def) else {
        metrics.refused.inc();
        socket::reset_on_close(&tcp);
        return;
    };
    metrics.connections.inc();
    let begin = conn::begin(worker.clone(), listener, tcp, (key.address, peer), permits);
    // Boxed: a future of its size is expensive to move.
    worker.serve((), Box::pin(begin));
}

/// The permits of one more connection, also one inside a tunnel. `None`: a limit is reached. From
/// nine tenths of a limit on, idle connections are closed.
pub(super) fn enter(worker: &Worker, def: &ListenerDef) -> Option<ConnectionPermits> {
    let permits = connection_limit::acquire_all(&def.connection_limits);
    let mut limits = def.connection_limits.iter();
    if limits.any(|limit| limit.is_nearly_full()) {
        worker.overload.idle.begin(&worker.timers);
    }
    permits
}

/// Errors that concern only the connection that was to be accepted, and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | TimedOut
    ) || matches!(
        error.raw_os_error(),
        Some(libc::EPROTO | libc::ENETDOWN | libc::EHOSTDOWN | libc::EHOSTUNREACH)
    )
}
