//! What an error of the h2 crate means for an exchange with an upstream.

use crate::http::request::error::Failure;

pub(crate) fn blame_server(error: h2::Error) -> Failure {
    if error.is_io() {
        return Failure::Terminated;
    }
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Failure::Refused,
        // Whatever its reason, GOAWAY ends only streams above its last stream id, which the peer
        // has not processed (RFC 9113 6.8). The others end with the connection.
        _ if error.is_go_away() && error.is_remote() => Failure::Refused,
        _ if error.is_library() => Failure::Protocol(error.to_string().into()),
        _ if error.is_go_away() => Failure::Terminated,
        reason => Failure::Reset {
            cancelled: reason == Some(h2::Reason::CANCEL),
        },
    }
}
