//! An HTTP/1 connection: requests one after the other, pipelined ones in order.
//!
//! Between requests it holds no buffer and waits on readiness and one timer.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::{BodyEvent, Framing, HeadLimits, RequestOptions, ServerConn, Spelling};
use crate::config::http::HttpConnectionManager;
use crate::dispatcher::timer::Timer;
use crate::http::connection::conn::Conn;
use crate::http::connection::io::Io;
use crate::http::forward::downstream::{DownstreamIo, H1Server};
use crate::http::request::error::{Failure, TimedOut};
use crate::http::request::handle::{Ended, Request, handle};
use crate::message::head::Head;
use crate::stream::Stream;

/// The longest wait: where nothing else limits it, conditions are checked again this often.
const LONG: Duration = Duration::from_secs(3600);
/// Up to this many bytes of a request's body are discarded before the connection is closed instead.
const DRAIN_BYTES: usize = 256 * 1024;
/// And for this long.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The result of waiting for a request.
enum Next {
    /// `input` has its first bytes.
    Begun(Instant),
    /// The client is gone, was idle for too long, or the connection drains.
    Over,
}

/// Serves a connection to its end.
pub async fn serve(conn: Rc<Conn>, stream: Stream, prefix: BytesMut) {
    let manager = conn.resolve().manager.clone();
    let limit = conn.downstream.listener.def.per_connection_buffer_limit;
    let io = Io::new(stream, prefix, conn.worker.buffers.clone()).bounded(limit);
    let mut server = H1Server::new(io, ServerConn::new(options(&manager)));
    let timer = conn.worker.timers.timer();
    let heads = &conn.worker.heads;
    let mut served = 0u32;
    loop {
        let begun = match next(&conn, &mut server, &timer, served).await {
            Next::Begun(at) => at,
            Next::Over => return close_idle(&mut server),
        };
        let mut head = heads.take();
        let framing = match read_head(&conn, &mut server, &timer, &mut head).await {
            Ok(Some(framing)) => Ok(framing),
            Ok(None) => return,
            Err(Failure::BadRequest(fault)) => Err(fault),
            Err(_) => {
                Box::pin(refuse_late(&conn, &mut server, head, begun)).await;
                return Box::pin(linger(&conn, server, &timer)).await;
            }
        };
        served = served.saturating_add(1);
        server.begin(framing.as_ref().is_ok_and(|f| f.expect_continue));
        let close = must_close(&conn, served, framing.as_ref().ok());
        let request = Request {
            framing,
            head,
            spare: heads.take(),
            start: begun,
        };
        let mut down = DownstreamIo::H1(&mut server);
        // Elsewhere, for as long as it runs: an idle connection does not pay for it.
        let handling = handle(&conn, &timer, &mut down, request, close);
        let ended = conn.worker.futures.place(handling).await;
        let Ended {
            clean,
            answered,
            heads: used,
            tunnel,
            ..
        } = ended;
        if let Some((head, spare)) = used {
            heads.put(head);
            heads.put(spare);
        }
        if let Some(tunnel) = tunnel {
            let Io { stream, input, .. } = server.io;
            return Box::pin(tunnel.relay(&conn, stream, input)).await;
        }
        if !answered {
            return;
        }
        if !clean {
            // A response cut short must not look complete: no orderly end.
            return;
        }
        // A client that still waits for 100 will not send its body.
        if !server.codec.body_done() && !server.expects_continue {
            Box::pin(drain_body(&mut server, &timer)).await;
        }
        if !server.codec.next(&server.io.input) {
            return Box::pin(linger(&conn, server, &timer)).await;
        }
    }
}

/// How requests are interpreted where `manager` serves them.
pub(crate) fn options(manager: &HttpConnectionManager) -> RequestOptions {
    RequestOptions {
        limits: HeadLimits {
            head_bytes: manager.max_request_headers_bytes,
            fields: manager.max_headers_count,
        },
        accept_http_10: manager.http1.accept_http_10,
        allow_absolute_url: manager.http1.allow_absolute_url,
        spelling: Spelling {
            preserve_case: manager.http1.preserve_case,
            // Decided where responses are received.
            forward_reason: true,
        },
    }
}

/// Whether the response to this request is the last one. A drain is checked when the response
/// begins.
fn must_close(conn: &Conn, served: u32, framing: Option<&Framing>) -> bool {
    let due = conn.limits().due(conn.downstream.since, None, served);
    let is_due = due.is_some_and(|at| at <= conn.worker.timers.now());
    framing.is_none() || is_due
}

/// Waits for the first bytes of a request.
async fn next(conn: &Conn, server: &mut H1Server, timer: &Timer, served: u32) -> Next {
    server.io.release();
    if !server.io.input.is_empty() {
        return Next::Begun(conn.worker.timers.now());
    }
    let (accepted, idle_since) = (conn.downstream.since, timer.now());
    let due = conn.limits().due(accepted, Some(idle_since), served);
    match due {
        Some(at) => timer.set_at(at),
        None => timer.set(LONG),
    }
    poll_fn(|cx| {
        // The first request of a new connection is served even while draining.
        let ends = if served > 0 {
            conn.is_draining()
        } else {
            conn.must_close()
        };
        if ends && server.io.poll_readable(cx).is_pending() {
            return Poll::Ready(Next::Over);
        }
        match server.io.poll_fill(cx) {
            Poll::Ready(Ok(1..)) => return Poll::Ready(Next::Begun(conn.worker.timers.now())),
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Over),
            Poll::Pending if conn.is_reclaimed(idle_since) => return Poll::Ready(Next::Over),
            Poll::Pending => {}
        }
        while timer.poll_expired(cx).is_ready() {
            if due.is_some() {
                return Poll::Ready(Next::Over);
            }
            timer.set(LONG);
        }
        Poll::Pending
    })
    .await
}

/// Reads a head. `None`: the client went away before it was complete.
async fn read_head(
    conn: &Conn,
    server: &mut H1Server,
    timer: &Timer,
    head: &mut Head,
) -> Result<Option<Framing>, Failure> {
    match server.codec.read_head(&mut server.io.input, head) {
        Ok(Some(framing)) => return Ok(Some(framing)),
        Ok(None) => {}
        Err(fault) => return Err(Failure::BadRequest(fault)),
    }
    let manager = conn.resolve().manager.clone();
    let limits = [
        manager.request_headers_timeout,
        manager.request_timeout,
        manager.stream_idle_timeout.or(manager.idle_timeout),
    ];
    timer.set_or_never(limits.into_iter().flatten().min());
    poll_fn(|cx| {
        loop {
            match server.io.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(None)),
                Poll::Pending => break,
            }
            match server.codec.read_head(&mut server.io.input, head) {
                Ok(Some(framing)) => return Poll::Ready(Ok(Some(framing))),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(Failure::BadRequest(fault))),
            }
        }
        let late = timer.poll_expired(cx);
        if late.is_pending() && conn.must_close() {
            return Poll::Ready(Ok(None));
        }
        late.map(|()| Err(Failure::RequestTimeout(TimedOut::Head)))
    })
    .await
}

/// Sends 408 to a client whose head did not arrive in time.
async fn refuse_late(conn: &Rc<Conn>, server: &mut H1Server, head: Box<Head>, start: Instant) {
    let timer = conn.worker.timers.timer();
    let mut down = DownstreamIo::H1(server);
    crate::http::request::refuse::refuse(
        conn,
        &timer,
        &mut down,
        head,
        start,
        &Failure::RequestTimeout(TimedOut::Head),
    )
    .await;
}

/// Reads what is left of the request's body, so that the connection can be used again.
async fn drain_body(server: &mut H1Server, timer: &Timer) {
    timer.set(DRAIN_TIME);
    let mut trailers = Head::new();
    let mut left = DRAIN_BYTES;
    let reading = poll_fn(|cx| {
        let mut down = DownstreamIo::H1(server);
        loop {
            match down.poll_body(cx, &mut trailers) {
                Poll::Ready(Ok(BodyEvent::Data(data))) if data.len() <= left => {
                    left = left.saturating_sub(data.len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    // A body that takes too long closes the connection, like one that is too long.
    let _ = timer.race(reading).await;
}

/// Closes an idle connection in order: with close_notify over TLS, as far as that can be written at
/// once.
fn close_idle(server: &mut H1Server) {
    let mut cx = Context::from_waker(Waker::noop());
    // Errors do not matter: the connection ends either way.
    let _ = server.io.poll_shutdown(&mut cx);
}

/// Closes a connection whose client may still be sending: FIN, then what arrives is read and
/// dropped for `delayed_close_timeout`, because a reset would take our last response with it.
async fn linger(conn: &Conn, mut server: H1Server, timer: &Timer) {
    timer.set(conn.resolve().manager.delayed_close_timeout);
    let closing = async {
        poll_fn(|cx| server.io.poll_shutdown(cx)).await?;
        let mut sink = BytesMut::with_capacity(4096);
        loop {
            sink.clear();
            if server.io.stream.read_buf(&mut sink).await? == 0 {
                return Ok::<(), std::io::Error>(());
            }
            // Yields to other tasks if a client sends without pause, and then checks the timer.
            tokio::task::consume_budget().await;
        }
    };
    let _ = timer.race(closing).await;
}
