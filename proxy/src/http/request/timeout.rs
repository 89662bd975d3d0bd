//! How long a response may take.

use std::time::{Duration, Instant};

use super::stream_info::StreamInfo;
use crate::config::route::{Action, RouteAction};
use crate::message::head::{Head, HeaderId};

/// When the stream must end, even while bytes move: the route's `max_stream_duration`, else the
/// manager's.
pub fn end_of_stream(info: &StreamInfo) -> Option<Instant> {
    let own = match info.route.as_ref().map(|route| &route.action) {
        Some(Action::Forward(forward)) => forward.max_stream_duration,
        _ => None,
    };
    let most = own.unwrap_or(info.manager.max_stream_duration)?;
    info.start.checked_add(most)
}

/// The route's timeout, or the client's own (`grpc-timeout`) where the route honours it.
pub fn of(request: &Head, forward: &RouteAction) -> Option<Duration> {
    let asked = request.get(HeaderId::GrpcTimeout).and_then(grpc);
    match (forward.max_grpc_timeout, asked) {
        (Some(max), Some(asked)) if max.is_zero() => Some(asked),
        (Some(max), Some(asked)) => Some(asked.min(max)),
        _ => forward.timeout,
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, Timeout).
pub fn grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count.saturating_mul(3600)),
        b'M' => Duration::from_secs(count.saturating_mul(60)),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        assert_eq!(grpc(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc(b"2H"), Some(Duration::from_secs(7200)));
        for bad in [b"".as_slice(), b"m", b"123456789S", b"-1S", b"1x", b"1"] {
            assert_eq!(grpc(bad), None);
        }
    }
}
