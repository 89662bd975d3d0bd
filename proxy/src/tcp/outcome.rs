//! How access logs report the end of a relay.

use crate::metrics::ResponseFlags;
use crate::relay::{RelayEnd, RelayOutcome, Side};

/// Envoy's response flags and details for a relay's end.
pub(super) fn flags_and_details(outcome: &RelayOutcome) -> (ResponseFlags, Option<&'static str>) {
    match &outcome.ended {
        RelayEnd::Clean { .. } => (ResponseFlags::NONE, None),
        RelayEnd::Reset { by: Side::Down } => (
            ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
            Some("downstream_reset"),
        ),
        RelayEnd::Reset { by: Side::Up } => {
            (ResponseFlags::UPSTREAM_REMOTE_RESET, Some("upstream_reset"))
        }
        RelayEnd::Failed { by: Side::Down, .. } => (
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            Some("downstream_failed"),
        ),
        RelayEnd::Failed { by: Side::Up, .. } => (
            ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Some("upstream_failed"),
        ),
        RelayEnd::Idle => (ResponseFlags::STREAM_IDLE_TIMEOUT, Some("idle_timeout")),
        RelayEnd::Expired => (
            ResponseFlags::DURATION_TIMEOUT,
            Some("max_connection_duration_reached"),
        ),
        RelayEnd::Overloaded => (ResponseFlags::OVERLOAD_MANAGER, Some("overload")),
        RelayEnd::Cut => (ResponseFlags::LOCAL_RESET, Some("closed_by_proxy")),
        RelayEnd::Panicked => (ResponseFlags::LOCAL_RESET, Some("panicked")),
    }
}
