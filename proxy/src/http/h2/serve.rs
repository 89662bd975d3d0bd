//! An HTTP/2 connection: its streams, each a task of its own; its drain; its limits.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::BytesMut;
use h2::RecvStream;
use h2::server::SendResponse;

use super::{
    HeadBounds, Prefixed, RAPID, ResetLimiter, ServerStream, WireState, keepalive, request_in,
};
use crate::config::http::HttpConnectionManager;
use crate::dispatcher::timer::Timer;
use crate::http::connection::conn::Conn;
use crate::http::forward::downstream::DownstreamIo;
use crate::http::request::handle::{Request, handle};
use crate::lifecycle::{ConnectionStatus, EndStep, Lifecycle, OpenStream, OpenStreams};
use crate::stream::Stream;
use crate::stream::chunk::Chunk;

/// Bytes per stream that wait in h2 for the peer's window.
const SEND_BUFFER: usize = 256 * 1024;

/// Serves a connection to its end.
pub async fn serve(conn: Rc<Conn>, stream: Stream, prefix: BytesMut) {
    let manager = conn.resolve().manager.clone();
    let timer = conn.worker.timers.timer();
    let listener = &conn.downstream.listener.def;
    let io = Prefixed::server(stream, prefix, &listener.metrics.http2_floods);
    let wire = io.state().clone();
    let limit = listener.per_connection_buffer_limit;
    let handshake = conn.unless_closed(builder(&manager, limit).handshake::<_, Chunk>(io));
    timer.set_or_never(manager.request_headers_timeout.or(manager.idle_timeout));
    let Ok(Some(Ok(mut connection))) = timer.race(handshake).await else {
        return;
    };
    let ping = connection.ping_pong();
    let alive = keepalive(ping, &conn.worker.timers, &manager.http2);
    let accepting = accept(&conn, &mut connection, &wire, &timer);
    tokio::select! {
        () = accepting => {}
        () = alive => {}
    }
}

fn builder(manager: &HttpConnectionManager, buffer: usize) -> h2::server::Builder {
    let options = &manager.http2;
    let head = u32::try_from(manager.max_request_headers_bytes).unwrap_or(u32::MAX);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_frame_size(options.max_frame_size)
        .max_header_list_size(head)
        .max_pending_accept_reset_streams(options.max_resets)
        .max_concurrent_reset_streams(options.max_resets)
        .max_local_error_reset_streams(Some(options.max_resets))
        .max_send_buffer_size(SEND_BUFFER.min(buffer));
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

type Connection = h2::server::Connection<Prefixed, Chunk>;

/// Takes streams until the connection has ended.
async fn accept(conn: &Rc<Conn>, connection: &mut Connection, wire: &Rc<WireState>, timer: &Timer) {
    let open = Rc::new(OpenStreams::default());
    let mut budget = ResetLimiter::new(conn.resolve().manager.http2.max_resets);
    let mut life = Lifecycle::new(conn.downstream.since, timer.now());
    let mut served = 0u32;
    loop {
        let accepted = poll_fn(|cx| {
            loop {
                if budget.is_exceeded() {
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                } else if conn.must_close() {
                    connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                }
                let accepted = connection.poll_accept(cx);
                if accepted.is_ready() {
                    return accepted;
                }
                open.register(cx);
                let seen = ConnectionStatus {
                    open: open.open(),
                    served,
                    is_draining: conn.is_draining()
                        || open.open() == 0 && conn.is_reclaimed(life.idle_since()),
                };
                let drain_timeout = conn.resolve().manager.drain_timeout;
                match ready!(life.poll(cx, timer, &conn.limits(), drain_timeout, seen)) {
                    EndStep::Close => {
                        // The GOAWAY names the last stream that was served. The client has not
                        // acknowledged the first GOAWAY, so this one is written once, without
                        // waiting.
                        connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                        let _ = connection.poll_accept(cx);
                        return Poll::Ready(None);
                    }
                    EndStep::GoAway => connection.graceful_shutdown(),
                }
            }
        })
        .await;
        let (request, mut respond) = match accepted {
            Some(Ok(accepted)) => accepted,
            Some(Err(_)) | None => return,
        };
        budget.begun();
        if life.refuses_streams(timer.now()) {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            budget.rapid();
            continue;
        }
        served = served.saturating_add(1);
        let (conn, stream_open, rapid) = (conn.clone(), OpenStream::of(&open), budget.counter());
        let wire = wire.clone();
        tokio::task::spawn_local(async move {
            let timers = &conn.worker.timers;
            let begun = timers.now();
            let given_up = timers
                .with_cached_clock(stream(&conn, request, respond, wire))
                .await;
            drop(stream_open);
            if given_up && timers.now().saturating_duration_since(begun) < RAPID {
                rapid.set(rapid.get().saturating_add(1));
            }
        });
    }
}

/// One stream. Returns whether the client reset it before the response.
async fn stream(
    conn: &Conn,
    request: http::Request<RecvStream>,
    respond: SendResponse<Chunk>,
    wire: Rc<WireState>,
) -> bool {
    let start = conn.worker.timers.now();
    let manager = conn.resolve().manager.clone();
    let (parts, body) = request.into_parts();
    let bounds = HeadBounds {
        bytes: manager.max_request_headers_bytes,
        fields: manager.max_headers_count,
    };
    let heads = &conn.worker.heads;
    let mut head = heads.take();
    let ended = body.is_end_stream();
    let framing = request_in(&mut head, parts, ended, bounds, conn.spell);
    if framing.is_err() {
        head.clear();
    }
    let expects_continue = framing.as_ref().is_ok_and(|f| f.expect_continue);
    let mut stream = ServerStream::new(body, respond, expects_continue, conn.spell, wire);
    let timer = conn.worker.timers.timer();
    let request = Request {
        framing,
        head,
        spare: heads.take(),
        start,
    };
    let mut down = DownstreamIo::H2(&mut stream);
    // Boxed: spawning a task moves its future twice, so the future is kept small.
    let handling = handle(conn, &timer, &mut down, request, false);
    let ended = conn.worker.futures.place(handling).await;
    if let Some((head, spare)) = ended.heads {
        heads.put(head);
        heads.put(spare);
    }
    if let Some(tunnel) = ended.tunnel {
        if let Some(down) = stream.into_tunnel(&conn.worker.buffers) {
            Box::pin(tunnel.relay(conn, down.into(), BytesMut::new())).await;
        }
        return false;
    }
    // After a response that was complete before the request was read, dropping the stream sends
    // RST_STREAM(NO_ERROR) (RFC 9113 8.1) behind what is queued. A reset here would overtake it.
    if !ended.clean && ended.answered {
        // It would drop what is queued of a response that has begun: the connection writes that first.
        tokio::task::yield_now().await;
        // gRPC clients distinguish failure from cancellation by the code.
        stream.reset(match ended.cancelled {
            true => h2::Reason::CANCEL,
            false => h2::Reason::INTERNAL_ERROR,
        });
    }
    !ended.answered
}
