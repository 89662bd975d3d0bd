//! The entry of the HTTP path: serves one connection from its first bytes to its end.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;

use super::conn::{Conn, Readmit};
use crate::config::http::{CodecType, HttpConnectionManager};
use crate::config::listener::FilterChain;
use crate::http::pool::Pools;
use crate::http::request::stream_info::Downstream;
use crate::http::{h1, h2};
use crate::policy::DetectedProtocol;
use crate::snapshot::Listener;
use crate::stream::Stream;
use crate::telemetry::Calls;
use crate::worker::Worker;

/// How an HTTP/2 connection begins (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose chain ends in an HTTP connection manager.
pub struct HttpConnection {
    pub stream: Stream,
    /// Read already, while detecting; the first bytes of the first message.
    pub prefix: BytesMut,
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    /// As detected at admission.
    pub protocol: DetectedProtocol,
    pub manager: Arc<HttpConnectionManager>,
    /// The source of its requests' upstream connections.
    pub pools: Rc<Pools>,
    /// The socket's other end.
    pub peer: SocketAddr,
    /// The client's destination: the original one, else the socket's local address.
    pub local: SocketAddr,
    /// The destination before the redirect, where it is known.
    pub original_dst: Option<SocketAddr>,
    /// Called with each newer snapshot.
    pub readmit: Readmit,
}

/// Serves a connection to its end, keeping `held` so long. Never fails: what goes wrong is
/// answered, logged and counted.
///
/// Each codec is a task of its own: what an idle connection holds is its codec's loop.
pub fn serve(worker: &Rc<Worker>, connection: HttpConnection, held: impl Sized + 'static) {
    let HttpConnection {
        stream,
        prefix,
        listener,
        chain,
        protocol,
        manager,
        pools,
        peer,
        local,
        original_dst,
        readmit,
    } = connection;
    let tls = stream.tls_info().cloned().map(Rc::new);
    let caller = tls.as_ref().and_then(|tls| tls.peer.clone());
    let calls = Calls::new(
        &worker.callers,
        listener.clone(),
        peer.ip(),
        local.port(),
        caller,
    );
    let downstream = Downstream {
        id: worker.next_connection_id(),
        listener,
        chain,
        protocol,
        peer,
        local,
        original_dst,
        tls,
        since: worker.timers.now(),
        timers: worker.timers.clone(),
        calls,
        client_cert: Default::default(),
    };
    let codec = known(&stream, &manager);
    let conn = Conn::new(worker.clone(), pools, downstream, manager, readmit);
    let conn = Rc::new(conn);
    match codec {
        Some(codec) => run(codec, conn, stream, prefix, held),
        None => worker.serve((), async move {
            if let Some((codec, stream, prefix)) = listen(stream, prefix, &conn).await {
                run(codec, conn, stream, prefix, held);
            }
        }),
    }
}

fn run(codec: Codec, conn: Rc<Conn>, stream: Stream, prefix: BytesMut, held: impl Sized + 'static) {
    let worker = conn.worker.clone();
    match codec {
        Codec::Http1 => worker.serve(held, h1::serve::serve(conn, stream, prefix)),
        Codec::Http2 => worker.serve(held, h2::serve::serve(conn, stream, prefix)),
    }
}

#[derive(Clone, Copy)]
enum Codec {
    Http1,
    Http2,
}

/// The codec by configuration or ALPN. `None`: the first bytes decide.
fn known(stream: &Stream, manager: &HttpConnectionManager) -> Option<Codec> {
    match manager.codec {
        CodecType::Http1 => return Some(Codec::Http1),
        CodecType::Http2 => return Some(Codec::Http2),
        CodecType::Auto => {}
    }
    match stream.tls_info()?.alpn.as_deref()? {
        b"h2" | b"anyam-h2" | b"anyam-h2-case" => Some(Codec::Http2),
        b"http/1.1" | b"http/1.0" | b"anyam-http/1.1" => Some(Codec::Http1),
        _ => None,
    }
}

/// The codec by the first bytes. `None`: the client went away before.
async fn listen(
    mut stream: Stream,
    mut prefix: BytesMut,
    conn: &Conn,
) -> Option<(Codec, Stream, BytesMut)> {
    let manager = conn.resolve().manager.clone();
    let timer = conn.worker.timers.timer();
    let since = timer.now();
    timer.set_or_never(manager.request_headers_timeout.or(manager.idle_timeout));
    loop {
        if prefix.starts_with(PREFACE) {
            return Some((Codec::Http2, stream, prefix));
        }
        if !PREFACE.starts_with(&prefix) {
            return Some((Codec::Http1, stream, prefix));
        }
        let reading = async {
            stream.read_ready().await?;
            prefix.reserve(PREFACE.len());
            tokio::io::AsyncReadExt::read_buf(&mut stream, &mut prefix).await
        };
        let reading = async {
            let mut reading = pin!(conn.unless_closed(reading));
            poll_fn(|cx| match reading.as_mut().poll(cx) {
                Poll::Pending if conn.is_reclaimed(since) => Poll::Ready(None),
                polled => polled,
            })
            .await
        };
        match timer.race(reading).await {
            Ok(Some(Ok(1..))) => {}
            Ok(None) => return None,
            // The HTTP/1 loop answers a head that was begun and not completed.
            _ if !prefix.is_empty() => return Some((Codec::Http1, stream, prefix)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budgets;
    use crate::dispatcher::timer::Timer;
    use crate::http::forward::downstream::DownstreamIo;
    use crate::http::request::handle::{Request, handle};

    fn size<F: Future>(_: impl FnOnce(Rc<Conn>, Stream, BytesMut) -> F) -> usize {
        size_of::<F>()
    }

    fn of_exchange<'a, F: Future>(
        _: impl FnOnce(&'a Conn, &'a Timer, &'a mut DownstreamIo<'a>, Request, bool) -> F,
    ) -> usize {
        size_of::<F>()
    }

    /// Every connection holds this much for as long as it is open, and a request while it lasts.
    #[test]
    fn connections_and_requests_are_small() {
        let budgets = budgets::of("size");
        for (name, size) in [
            ("http1-connection", size(h1::serve::serve)),
            ("http2-connection", size(h2::serve::serve)),
            ("http-exchange", of_exchange(handle)),
        ] {
            println!("size         {name:<24} {size:10}");
            let most = budgets[name];
            assert!(size as f64 <= most, "{name}: {size} bytes, at most {most}");
        }
    }
}
