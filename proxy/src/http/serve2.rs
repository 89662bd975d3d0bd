//! An HTTP/2 connection: its streams, each a task of its own; its drain; its limits.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use h2::RecvStream;
use h2::server::SendResponse;

use super::conn::Conn;
use super::down::Down;
use super::h2::{Bounds, Budget, Chunk, Prefixed, RAPID, ServerStream, keepalive, request_in};
use super::handle::{Request, handle};
use crate::config::http::HttpManager;
use crate::stream::Stream;
use crate::timer::Timer;

/// Waits without a limit of their own are looked at this often all the same.
const LONG: Duration = Duration::from_secs(3600);
/// Bytes per stream that wait in h2 for the peer's window.
const SEND_BUFFER: usize = 256 * 1024;

/// Serves a connection to its end.
pub async fn serve(conn: Rc<Conn>, stream: Stream, prefix: BytesMut) {
    let manager = conn.resolve().manager.clone();
    let timer = conn.worker.timers.timer();
    let io = Prefixed { stream, prefix };
    let limit = conn.downstream.listener.def.per_connection_buffer_limit;
    let handshake = builder(&manager, limit).handshake::<_, Chunk>(io);
    timer.set_or_clear(manager.request_headers_timeout.or(manager.idle_timeout));
    let Ok(Ok(mut connection)) = timer.race(handshake).await else {
        return;
    };
    let ping = connection.ping_pong();
    let alive = keepalive(ping, &conn.worker.timers, &manager.http2);
    let accepting = accept(&conn, &mut connection, &timer);
    tokio::select! {
        () = accepting => {}
        () = alive => {}
    }
}

fn builder(manager: &HttpManager, buffer: usize) -> h2::server::Builder {
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

async fn accept(conn: &Rc<Conn>, connection: &mut Connection, timer: &Timer) {
    let open = Rc::new(Cell::new(0usize));
    let mut budget = Budget::new(conn.resolve().manager.http2.max_resets);
    let mut served = 0u32;
    let mut draining = false;
    let mut idle_since = timer.now();
    loop {
        let accepted = poll_fn(|cx| {
            if budget.is_exceeded() {
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            let accepted = connection.poll_accept(cx);
            if accepted.is_ready() {
                return accepted;
            }
            if open.get() > 0 {
                idle_since = timer.now();
            }
            if !draining && should_end(conn, served, open.get(), idle_since, timer.now()) {
                draining = true;
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            arm(conn, timer, open.get(), idle_since, draining);
            if timer.poll_expired(cx).is_ready() {
                if draining && open.get() == 0 {
                    // It was told, has nothing under way and does not go.
                    return Poll::Ready(None);
                }
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        let (request, respond) = match accepted {
            Some(Ok(accepted)) => accepted,
            Some(Err(_)) | None => return,
        };
        served = served.saturating_add(1);
        budget.begun();
        open.set(open.get() + 1);
        let (conn, open, rapid) = (conn.clone(), open.clone(), budget.counter());
        tokio::task::spawn_local(async move {
            let timers = &conn.worker.timers;
            let begun = timers.now();
            let given_up = timers.turns(stream(&conn, request, respond)).await;
            open.set(open.get() - 1);
            if given_up && timers.now().saturating_duration_since(begun) < RAPID {
                rapid.set(rapid.get() + 1);
            }
        });
    }
}

/// Whether the connection should end once its streams have.
fn should_end(conn: &Conn, served: u32, open: usize, idle_since: Instant, now: Instant) -> bool {
    let resolved = conn.resolve();
    let manager = &resolved.manager;
    let spent = manager
        .max_requests_per_connection
        .is_some_and(|max| served >= max);
    let old = manager
        .max_connection_duration
        .is_some_and(|max| conn.age() >= max);
    let idle = manager
        .idle_timeout
        .is_some_and(|max| open == 0 && now.saturating_duration_since(idle_since) >= max);
    spent || old || idle || conn.is_draining()
}

fn arm(conn: &Conn, timer: &Timer, open: usize, idle_since: Instant, draining: bool) {
    let manager = &conn.resolve().manager;
    if draining {
        if !timer.is_set() {
            timer.set(manager.drain_timeout);
        }
        return;
    }
    let now = timer.now();
    let left = |max: Duration, since| max.saturating_sub(now.saturating_duration_since(since));
    let idle = manager.idle_timeout.filter(|_| open == 0);
    let idle = idle.map(|max| left(max, idle_since));
    let lifetime = manager.max_connection_duration;
    let lifetime = lifetime.map(|max| left(max, conn.downstream.since));
    timer.set([idle, lifetime].into_iter().flatten().min().unwrap_or(LONG));
}

/// One stream. Says whether the client gave it up before it was answered.
async fn stream(
    conn: &Conn,
    request: http::Request<RecvStream>,
    respond: SendResponse<Chunk>,
) -> bool {
    let start = conn.worker.timers.now();
    let manager = conn.resolve().manager.clone();
    let (parts, body) = request.into_parts();
    let bounds = Bounds {
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
    let mut stream = ServerStream::new(body, respond, expects_continue, conn.spell);
    let timer = conn.worker.timers.timer();
    let request = Request {
        framing,
        head,
        spare: heads.take(),
        start,
    };
    let mut down = Down::H2(&mut stream);
    // Elsewhere: a task is moved twice while it is made, whatever it has room for.
    let handling = handle(conn, &timer, &mut down, request, false);
    let ended = conn.worker.rooms.place(handling).await;
    heads.put(ended.heads.0);
    heads.put(ended.heads.1);
    if let Some(tunnel) = ended.tunnel {
        if let Some(down) = stream.into_tunnel(&conn.worker.buffers) {
            Box::pin(tunnel.relay(conn, down.into(), BytesMut::new())).await;
        }
        return false;
    }
    // A response that came before its request had been read needs nothing more: dropping the stream
    // tells the client so (RFC 9113 8.1) after what is queued. A reset would overtake it.
    if !ended.clean && ended.answered {
        // gRPC tells by the code whether a call failed or was given up.
        stream.reset(match ended.cancelled {
            true => h2::Reason::CANCEL,
            false => h2::Reason::INTERNAL_ERROR,
        });
    }
    !ended.answered
}
