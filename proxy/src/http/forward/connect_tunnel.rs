//! Tunnels (WebSocket, CONNECT) to a connection of their own: both ends left the codec, the L4 relay
//! moves their bytes, spliced when there are many and both are sockets.

use bytes::BytesMut;

use super::attempt::UpstreamResponse;
use super::upstream::UpstreamIo;
use crate::config::route::Action;
use crate::drain::Phase;
use crate::http::connection::conn::Conn;
use crate::http::filter::rbac;
use crate::http::request::stream_info;
use crate::http::request::stream_info::StreamInfo;
use crate::metrics::ResponseFlags;
use crate::relay;
use crate::relay::{Buffered, RelayEnd, RelayOptions, Side};
use crate::stream::Stream;
use crate::upstream::limits::Permit;

/// A request whose answer turned its connection into a tunnel.
pub struct Tunnelled {
    info: StreamInfo,
    answer: UpstreamResponse,
    /// Of the request, which lasts as long as the tunnel.
    _permit: Permit,
}

impl Tunnelled {
    pub fn new(info: StreamInfo, answer: UpstreamResponse, permit: Permit) -> Self {
        Self {
            info,
            answer,
            _permit: permit,
        }
    }

    /// Relays until both directions have ended, then reports the request.
    /// `early`: bytes of the client that were read already.
    pub async fn relay(self, conn: &Conn, mut down: Stream, early: BytesMut) {
        let Self {
            mut info,
            answer,
            _permit,
        } = self;
        let UpstreamIo::H1(client) = answer.lease.up else {
            return;
        };
        let mut up = client.io;
        let worker = &conn.worker;
        let most = info.downstream.listener.def.per_connection_buffer_limit;
        let context = worker.relay_context(most);
        let early = Buffered {
            from_down: early,
            from_up: up.input,
        };
        let request = &info;
        let must_end = move |_: &Stream| {
            *worker.drain.borrow() == Phase::Closing || rbac::revoked(conn, request).is_some()
        };
        let options = RelayOptions {
            idle: idle_timeout(&info),
            until: crate::http::request::timeout::end_of_stream(&info),
            must_end,
            // A request is one sample of histograms, at its end.
            flow: |_, _| {},
        };
        let outcome = relay::relay(context, &mut down, &mut up.stream, early, options).await;
        info.request_bytes = outcome.from_down;
        info.response_bytes = outcome.from_up;
        info.flags.insert(match outcome.ended {
            RelayEnd::Clean { .. } => ResponseFlags::NONE,
            RelayEnd::Reset { by: Side::Down } | RelayEnd::Failed { by: Side::Down, .. } => {
                ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION
            }
            RelayEnd::Reset { by: Side::Up } | RelayEnd::Failed { by: Side::Up, .. } => {
                ResponseFlags::UPSTREAM_CONNECTION_TERMINATION
            }
            RelayEnd::Idle => ResponseFlags::STREAM_IDLE_TIMEOUT,
            RelayEnd::Expired => ResponseFlags::DURATION_TIMEOUT,
            RelayEnd::Overloaded => ResponseFlags::OVERLOAD_MANAGER,
            RelayEnd::Cut | RelayEnd::Panicked => ResponseFlags::LOCAL_RESET,
        });
        info.times.whole = info.elapsed();
        stream_info::report(worker, &info);
    }
}

fn idle_timeout(info: &StreamInfo) -> Option<std::time::Duration> {
    let route = info.route.as_ref().map(|route| &route.action);
    let own = match route {
        Some(Action::Forward(forward)) => forward.idle_timeout,
        _ => None,
    };
    own.unwrap_or(info.manager.stream_idle_timeout)
}
