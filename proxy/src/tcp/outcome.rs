//! How a relay ended, as access logs show it.

use crate::metrics::ResponseFlags;
use crate::relay::{Ended, RelayOutcome, Side};

/// Envoy's response flags and details for a relay's end.
pub(super) fn flags_and_details(outcome: &RelayOutcome) -> (ResponseFlags, Option<&'static str>) {
    match &outcome.ended {
        Ended::Clean { .. } => (ResponseFlags::NONE, None),
        Ended::Reset { by: Side::Down } => (
            ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
            Some("downstream_reset"),
        ),
        Ended::Reset { by: Side::Up } => {
            (ResponseFlags::UPSTREAM_REMOTE_RESET, Some("upstream_reset"))
        }
        Ended::Failed { by: Side::Down, .. } => (
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            Some("downstream_failed"),
        ),
        Ended::Failed { by: Side::Up, .. } => (
            ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Some("upstream_failed"),
        ),
        Ended::Idle => (ResponseFlags::STREAM_IDLE_TIMEOUT, Some("idle_timeout")),
        Ended::Expired => (
            ResponseFlags::DURATION_TIMEOUT,
            Some("max_connection_duration_reached"),
        ),
        Ended::Overloaded => (ResponseFlags::OVERLOAD_MANAGER, Some("overload")),
        Ended::Cut => (ResponseFlags::LOCAL_RESET, Some("closed_by_proxy")),
    }
}
