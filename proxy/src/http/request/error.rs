//! Why a request failed: the side at fault, the response, and how logs show it.
//!
//! One closed enum; status, response flag and details come from one match each.
//! Sources: Envoy's "Response flags" and "Response code details" references, RFC 9209 2.3.

use std::borrow::Cow;

use crate::message::fault::{Fault, FaultSide};
use crate::metrics::ResponseFlags;
use crate::upstream::connect;

/// What went wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    // By the client.
    /// The bytes are not acceptable HTTP.
    BadRequest(Fault),
    /// The client's connection ended.
    ClientGone,
    /// It reset the stream.
    ClientReset,
    /// Its head or its whole request did not arrive in time.
    RequestTimeout(TimedOut),
    /// Its body is larger than is waited for.
    TooLarge,
    /// Nothing moved for too long. `received`: its request had arrived in full.
    Idle {
        received: bool,
    },
    /// The stream lasted longer than it may. `received`: as above.
    StreamDuration {
        received: bool,
    },

    // By this proxy.
    /// No route matches.
    NoRoute,
    /// The cluster does not exist; with the status that the route configures.
    NoCluster(u16),
    /// The name of the policy, or `none`.
    Denied(Box<str>),
    UpgradeRefused,
    /// Memory is short, and the client does not take its response.
    Overloaded,
    /// The configuration cannot be applied to this request.
    Unsupported(&'static str),

    // By the upstream.
    /// No healthy endpoint.
    NoEndpoint,
    /// That of its strict session is gone; with the status that the filter configures.
    SessionEndpointGone(u16),
    /// A circuit breaker rejected it; the argument names the breaker.
    Overflow(&'static str),
    /// Why, in words.
    Connect(Box<str>),
    ConnectTimeout,
    /// It ended the connection before, or within, its response.
    Terminated,
    /// It reset the stream.
    Reset {
        /// With CANCEL, as a gRPC server does when a deadline has passed.
        cancelled: bool,
    },
    /// It reset the stream with REFUSED_STREAM: nothing was processed.
    Refused,
    BadResponse(Fault),
    /// HTTP/2 error of the connection.
    Protocol(Box<str>),
    ResponseTimeout,
    PerTryTimeout,
}

/// What was not received in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedOut {
    Head,
    Request,
}

impl TimedOut {
    /// Envoy's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Head => "request header timeout",
            Self::Request => "request timeout",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Downstream,
    Here,
    Upstream,
}

impl Failure {
    pub fn blame(&self) -> Blame {
        match self {
            Self::BadRequest(_)
            | Self::ClientGone
            | Self::ClientReset
            | Self::RequestTimeout(_)
            | Self::TooLarge
            | Self::Idle { .. }
            | Self::StreamDuration { .. } => Blame::Downstream,
            Self::NoRoute
            | Self::NoCluster(_)
            | Self::Denied(_)
            | Self::UpgradeRefused
            | Self::Overloaded
            | Self::Unsupported(_) => Blame::Here,
            Self::NoEndpoint
            | Self::SessionEndpointGone(_)
            | Self::Overflow(_)
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Terminated
            | Self::Reset { .. }
            | Self::Refused
            | Self::BadResponse(_)
            | Self::Protocol(_)
            | Self::ResponseTimeout
            | Self::PerTryTimeout => Blame::Upstream,
        }
    }

    /// Nothing of the request was given to an upstream, or it said so.
    pub fn reached_no_upstream(&self) -> bool {
        matches!(
            self,
            Self::NoEndpoint
                | Self::SessionEndpointGone(_)
                | Self::Connect(_)
                | Self::ConnectTimeout
                | Self::Refused
        )
    }

    /// A port that is declared with the wrong protocol causes such failures, too.
    pub fn may_be_misdeclared(&self) -> bool {
        matches!(
            self,
            Self::NoEndpoint
                | Self::Connect(_)
                | Self::Terminated
                | Self::Reset { .. }
                | Self::BadResponse(_)
                | Self::Protocol(_)
                | Self::BadRequest(Fault::Tls)
        )
    }

    /// Whether the client can still receive a response.
    pub fn can_be_answered(&self) -> bool {
        !matches!(self, Self::ClientGone | Self::ClientReset)
    }

    /// Status, response flag, details (Envoy's), proxy-status error (RFC 9209), one sentence.
    pub fn response(&self) -> FailureResponse {
        let (status, flags, details, error, reason) = self.row();
        FailureResponse {
            status,
            flags,
            details,
            error,
            reason: reason.into_owned(),
        }
    }

    fn row(&self) -> Row<'_> {
        use ResponseFlags as F;
        match self {
            Self::BadRequest(fault) => bad_request(*fault),
            Self::ClientGone => v(0, F::DOWNSTREAM_CONNECTION_TERMINATION, CLIENT_GONE),
            Self::ClientReset => v(0, F::DOWNSTREAM_REMOTE_RESET, CLIENT_RESET),
            Self::RequestTimeout(TimedOut::Head) => v(408, F::NONE, HEAD_LATE),
            Self::RequestTimeout(TimedOut::Request) => v(408, F::NONE, REQUEST_LATE),
            Self::TooLarge => v(413, F::NONE, TOO_LARGE),
            Self::Idle { received: true } => v(504, F::STREAM_IDLE_TIMEOUT, IDLE),
            Self::Idle { received: false } => v(408, F::STREAM_IDLE_TIMEOUT, IDLE),
            Self::StreamDuration { received } => {
                let status = if *received { 504 } else { 408 };
                v(status, F::NONE, STREAM_LATE)
            }
            Self::NoRoute => v(404, F::NO_ROUTE_FOUND, NO_ROUTE),
            Self::NoCluster(status) => v(*status, F::NO_CLUSTER_FOUND, NO_CLUSTER),
            Self::Denied(policy) => denied(policy),
            Self::UpgradeRefused => v(403, F::NONE, UPGRADE_REFUSED),
            Self::Overloaded => v(503, F::OVERLOAD_MANAGER, OVERLOADED),
            Self::Unsupported(what) => unsupported(what),
            Self::NoEndpoint => v(503, F::NO_HEALTHY_UPSTREAM, NO_ENDPOINT),
            Self::SessionEndpointGone(status) => v(*status, F::NO_HEALTHY_UPSTREAM, NO_ENDPOINT),
            Self::Overflow(which) => overflow(which),
            Self::Connect(why) => not_connected(why),
            Self::ConnectTimeout => v(503, F::UPSTREAM_CONNECTION_FAILURE, CONNECT_LATE),
            Self::Terminated => v(503, F::UPSTREAM_CONNECTION_TERMINATION, TERMINATED),
            Self::Reset { .. } => v(503, F::UPSTREAM_REMOTE_RESET, RESET),
            Self::Refused => v(503, F::UPSTREAM_REMOTE_RESET, REFUSED),
            Self::BadResponse(fault) => malformed(&format!("response is malformed: {fault}")),
            Self::Protocol(why) => malformed(&format!("broke HTTP/2: {why}")),
            Self::ResponseTimeout => v(504, F::UPSTREAM_REQUEST_TIMEOUT, RESPONSE_LATE),
            Self::PerTryTimeout => v(504, F::UPSTREAM_REQUEST_TIMEOUT, TRY_LATE),
        }
    }
}

fn bad_request(fault: Fault) -> Row<'static> {
    let words = (fault.details(), "http_request_error", fault.reason());
    let flags = match fault.is_of_manager() {
        true => ResponseFlags::NONE,
        false => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
    };
    v(fault.status(FaultSide::Downstream), flags, words)
}

fn denied(policy: &str) -> Row<'static> {
    let details = format!("rbac_access_denied_matched_policy[{}]", detail(policy));
    let reason = "RBAC: access denied".into();
    let error = "http_request_denied";
    (403, ResponseFlags::NONE, details.into(), error, reason)
}

fn unsupported(what: &'static str) -> Row<'static> {
    let words = ("unsupported", "proxy_configuration_error", what);
    v(501, ResponseFlags::NONE, words)
}

fn overflow(which: &str) -> Row<'static> {
    let reason = format!("upstream limit reached: {which}").into();
    let flags = ResponseFlags::UPSTREAM_OVERFLOW;
    (
        503,
        flags,
        before("overflow"),
        "connection_limit_reached",
        reason,
    )
}

fn not_connected(why: &str) -> Row<'static> {
    let details = before(&format!("remote_connection_failure|{}", detail(why)));
    let words = why.strip_prefix(connect::DELAYED).unwrap_or(why);
    let reason = format!("upstream connect error: {words}").into();
    let flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
    (503, flags, details, "connection_refused", reason)
}

fn malformed(what: &str) -> Row<'static> {
    let reason = format!("upstream {what}").into();
    let flags = ResponseFlags::UPSTREAM_PROTOCOL_ERROR;
    (
        502,
        flags,
        before("protocol_error"),
        "http_protocol_error",
        reason,
    )
}

/// How a failure shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureResponse {
    /// 0: no response can be sent.
    pub status: u16,
    pub flags: ResponseFlags,
    pub details: Cow<'static, str>,
    /// `error` of the proxy-status header.
    pub error: &'static str,
    /// For people, in the body.
    pub reason: String,
}

/// Details, proxy-status error, sentence.
type Words = (&'static str, &'static str, &'static str);

const CLIENT_GONE: Words = (
    "downstream_remote_disconnect",
    "connection_terminated",
    "the client went away",
);
const CLIENT_RESET: Words = (
    "http2.remote_reset",
    "connection_terminated",
    "the client reset the stream",
);
const HEAD_LATE: Words = (
    "request_header_timeout",
    "http_request_error",
    "request headers did not arrive in time",
);
const REQUEST_LATE: Words = (
    "request_overall_timeout",
    "http_request_error",
    "request timeout",
);
const TOO_LARGE: Words = (
    "request_payload_too_large",
    "http_request_error",
    "Payload Too Large",
);
const IDLE: Words = (
    "stream_idle_timeout",
    "connection_timeout",
    "stream timeout",
);
const STREAM_LATE: Words = (
    "max_duration_timeout",
    "connection_timeout",
    "downstream duration timeout",
);
const NO_ROUTE: Words = (
    "route_not_found",
    "destination_not_found",
    "no route matches this request",
);
const NO_CLUSTER: Words = (
    "cluster_not_found",
    "destination_not_found",
    "the route's cluster is not known",
);
const UPGRADE_REFUSED: Words = (
    "upgrade_failed",
    "http_request_denied",
    "this upgrade is not allowed here",
);
const OVERLOADED: Words = (
    "overload",
    "proxy_internal_error",
    "the proxy has little memory left",
);
const NO_ENDPOINT: Words = (
    "no_healthy_upstream",
    "destination_unavailable",
    "no healthy upstream",
);
const CONNECT_LATE: Words = (
    "upstream_reset_before_response_started{connection_timeout}",
    "connection_timeout",
    "upstream connect timeout",
);
const TERMINATED: Words = (
    "upstream_reset_before_response_started{connection_termination}",
    "connection_terminated",
    "upstream closed the connection before it answered",
);
const RESET: Words = (
    "upstream_reset_before_response_started{remote_reset}",
    "connection_terminated",
    "upstream reset the stream before it answered",
);
const REFUSED: Words = (
    "upstream_reset_before_response_started{remote_refused_stream_reset}",
    "connection_terminated",
    "upstream refused the stream",
);
const RESPONSE_LATE: Words = (
    "response_timeout",
    "http_response_timeout",
    "upstream request timeout",
);
const TRY_LATE: Words = (
    "upstream_per_try_timeout",
    "http_response_timeout",
    "upstream request timeout, per try",
);

type Row<'a> = (
    u16,
    ResponseFlags,
    Cow<'static, str>,
    &'static str,
    Cow<'a, str>,
);

fn v<'a>(status: u16, flags: ResponseFlags, (details, error, reason): Words) -> Row<'a> {
    (status, flags, details.into(), error, reason.into())
}

fn before(reason: &str) -> Cow<'static, str> {
    format!("upstream_reset_before_response_started{{{reason}}}").into()
}

/// Words as Envoy writes them in details: no spaces.
pub fn detail(words: &str) -> String {
    words.replace(char::is_whitespace, "_")
}

/// Details with the declaration of a port, as Envoy adds a reason: within braces, without spaces.
pub fn with_declaration(details: &str, declared_by: &str) -> String {
    let why = detail(&format!("declared by {declared_by}"));
    match details.strip_suffix('}') {
        Some(open) => format!("{open}|{why}}}"),
        None => format!("{details}{{{why}}}"),
    }
}
