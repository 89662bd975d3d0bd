//! Answers failures that have no request.

use std::time::Instant;

use super::error::Failure;
use super::handle::Exchange;
use super::stream_info::{self, StreamInfo};
use crate::dispatcher::timer::Timer;
use crate::http::connection::conn::Conn;
use crate::http::forward::downstream::DownstreamIo;
use crate::message::head::Head;

/// Answers a failure that occurred before there was a request to handle.
pub async fn refuse(
    conn: &Conn,
    timer: &Timer,
    down: &mut DownstreamIo<'_>,
    head: Box<Head>,
    start: Instant,
    failure: &Failure,
) {
    let resolved = conn.resolve();
    let manager = resolved.manager.clone();
    let spare = conn.worker.heads.take();
    let info = StreamInfo::new(conn.downstream.clone(), manager, start, head, spare);
    let mut exchange = Exchange {
        conn,
        resolved,
        timer,
        down,
        info,
        body: None,
        close: true,
        started: false,
        tunnel: None,
    };
    // Whether it could be sent changes nothing: the connection ends.
    let _ = exchange.fail(failure).await;
    let mut info = exchange.info;
    info.times.whole = info.elapsed();
    stream_info::report(&conn.worker, &info);
    conn.worker.heads.put(info.request);
    conn.worker.heads.put(info.response);
}
