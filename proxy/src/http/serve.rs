//! The entry of the HTTP path: one connection, from its first bytes to its end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::conn::Conn;
use super::observe::Downstream;
use super::{serve1, serve2};
use crate::config::http::{CodecType, HttpManager};
use crate::config::listener::{FilterChain, Listener};
use crate::stream::Stream;
use crate::telemetry::Calls;
use crate::worker::Worker;

/// How an HTTP/2 connection begins (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
    let Connection {
        mut stream,
        mut prefix,
        listener,
        chain,
        manager,
        peer,
        local,
        original_dst,
    } = connection;
    let tls = stream.tls_info().cloned();
    let caller = tls.as_ref().and_then(|tls| tls.peer.clone());
    let calls = Calls::new(worker, listener.clone(), peer.ip(), local.port(), caller);
    let downstream = Downstream {
        id: worker.next_connection_id(),
        listener,
        chain,
        peer,
        local,
        original_dst,
        tls,
        since: worker.timers.now(),
        timers: worker.timers.clone(),
        calls,
    };
    let conn = Rc::new(Conn::new(worker.clone(), downstream, manager.clone()));
    let Some(codec) = choose(&mut stream, &mut prefix, &conn, &manager).await else {
        return;
    };
    match codec {
        Codec::Http1 => serve1::serve(conn, stream, prefix).await,
        Codec::Http2 => Box::pin(serve2::serve(conn, stream, prefix)).await,
    }
}

#[derive(Clone, Copy)]
enum Codec {
    Http1,
    Http2,
}

/// The codec by configuration, ALPN, or the first bytes. `None`: the client went away first.
async fn choose(
    stream: &mut Stream,
    prefix: &mut BytesMut,
    conn: &Conn,
    manager: &HttpManager,
) -> Option<Codec> {
    match manager.codec {
        CodecType::Http1 => return Some(Codec::Http1),
        CodecType::Http2 => return Some(Codec::Http2),
        CodecType::Auto => {}
    }
    let alpn = stream.tls_info().and_then(|tls| tls.alpn.as_deref());
    match alpn {
        Some(b"h2" | b"anyam-h2" | b"anyam-h2-case") => return Some(Codec::Http2),
        Some(b"http/1.1" | b"http/1.0" | b"anyam-http/1.1") => return Some(Codec::Http1),
        _ => {}
    }
    let timer = conn.worker.timers.timer();
    timer.set_or_clear(manager.request_headers_timeout.or(manager.idle_timeout));
    loop {
        let seen = prefix.len().min(PREFACE.len());
        if prefix[..seen] != PREFACE[..seen] {
            return Some(Codec::Http1);
        }
        if seen == PREFACE.len() {
            return Some(Codec::Http2);
        }
        let reading = async {
            stream.read_ready().await?;
            prefix.reserve(PREFACE.len());
            tokio::io::AsyncReadExt::read_buf(stream, prefix).await
        };
        match timer.race(reading).await {
            Ok(Ok(1..)) => {}
            // The HTTP/1 loop says what is missing, if anything was begun.
            _ if !prefix.is_empty() => return Some(Codec::Http1),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    fn size<F: Future>(_: impl FnOnce(&'static Rc<Worker>, Connection) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection holds this much for as long as it is open.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size(serve) <= 2048, "{}", size(serve));
    }
}
