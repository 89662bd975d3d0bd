//! envoy.config.core.v3.HealthCheck: active health checks of a cluster's endpoints.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::route::HeaderEdits;
use crate::log_sink::Sink;
use crate::matcher::StringMatch;

/// How the endpoints of a cluster are checked.
pub struct HealthCheck {
    /// How long a check may take, connecting included.
    pub timeout: Duration,
    pub intervals: CheckIntervals,
    pub jitter: CheckJitter,
    /// Failures in a row that make a healthy host unhealthy, where one alone does not.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make an unhealthy host healthy, but for its first check.
    pub healthy_threshold: u32,
    /// A connection serves more than one check.
    pub reuse_connection: bool,
    /// `tls_options`: offered by ALPN instead of the transport's own list.
    pub alpn: Option<Vec<Vec<u8>>>,
    /// `transport_socket_match_criteria`: chooses the transport instead of the endpoint's metadata.
    pub transport_metadata: Option<Vec<(Box<str>, Box<str>)>>,
    pub events: EventLog,
    pub protocol: HealthProtocol,
}

/// Times between the end of a check and the next one.
#[derive(Clone, Copy, Debug)]
pub struct CheckIntervals {
    /// After a success.
    pub healthy: Duration,
    /// After a success that did not yet make the host healthy.
    pub healthy_edge: Duration,
    /// After a failure.
    pub unhealthy: Duration,
    /// After a failure that did not yet make the host unhealthy.
    pub unhealthy_edge: Duration,
    /// In place of all of these while the cluster has never had a connection.
    pub no_traffic: Duration,
    /// As `no_traffic`, after a success that changed nothing or made the host healthy.
    pub no_traffic_healthy: Duration,
}

/// What is added to intervals, at random.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckJitter {
    /// Before the first check.
    pub initial: Duration,
    pub interval: Duration,
    /// Percent of the interval.
    pub percent: u32,
}

/// Where events are logged, and which.
#[derive(Default)]
pub struct EventLog {
    pub sinks: Vec<Arc<Sink>>,
    /// Every failure, not only a host's first.
    pub all_failures: bool,
    /// Every success.
    pub all_successes: bool,
}

pub enum HealthProtocol {
    Http(HttpHealthCheck),
    Grpc(GrpcHealthCheck),
    Tcp(TcpHealthCheck),
}

impl HealthProtocol {
    /// As events name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTP",
            Self::Grpc(_) => "GRPC",
            Self::Tcp(_) => "TCP",
        }
    }
}

/// envoy.config.core.v3.HealthCheck.HttpHealthCheck.
pub struct HttpHealthCheck {
    pub method: &'static str,
    pub path: Box<str>,
    /// The authority; `None`: the cluster's name.
    pub host: Option<Box<str>>,
    /// Sent as a body.
    pub send: Option<bytes::Bytes>,
    pub expected: Vec<StatusRange>,
    /// Unexpected statuses of which one alone makes no host unhealthy.
    pub retriable: Vec<StatusRange>,
    pub edits: HeaderEdits,
    /// What `x-envoy-upstream-healthchecked-cluster` of a response has to be.
    pub service_name: Option<StringMatch>,
    pub http2: bool,
    pub receive: Payloads,
    /// Bytes of a response's body in which `receive` is looked for.
    pub response_buffer: usize,
}

/// Statuses from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub start: u16,
    pub end: u16,
}

impl StatusRange {
    pub fn contains(&self, status: u16) -> bool {
        (self.start..self.end).contains(&status)
    }
}

/// grpc.health.v1.
pub struct GrpcHealthCheck {
    /// Empty: the server as a whole.
    pub service: Box<str>,
    /// `None`: the cluster's name.
    pub authority: Option<Box<str>>,
    pub metadata: HeaderEdits,
}

/// envoy.config.core.v3.HealthCheck.TcpHealthCheck.
pub struct TcpHealthCheck {
    pub send: Option<bytes::Bytes>,
    /// Empty: a connection suffices.
    pub receive: Payloads,
}

/// Byte strings that have to be found in this order, with anything between them.
#[derive(Clone, Debug, Default)]
pub struct Payloads(pub Vec<Box<[u8]>>);

impl Payloads {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them are in `bytes`.
    pub fn are_in(&self, mut bytes: &[u8]) -> bool {
        self.0.iter().all(|wanted| {
            let Some(at) = memchr::memmem::find(bytes, wanted) else {
                return false;
            };
            bytes = bytes
                .split_at(at.saturating_add(wanted.len()).min(bytes.len()))
                .1;
            true
        })
    }
}

/// envoy.config.endpoint.v3.Endpoint.HealthCheckConfig: how one endpoint is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointCheck {
    /// Checked at this port instead of its own.
    pub port: Option<u16>,
    pub address: Option<IpAddr>,
    /// The authority of its checks.
    pub host_name: Option<Box<str>>,
    /// It is not checked.
    pub disabled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_found_in_order() {
        let payloads = |all: &[&str]| Payloads(all.iter().map(|p| p.as_bytes().into()).collect());
        assert!(payloads(&[]).are_in(b""));
        assert!(payloads(&["ab", "cd"]).are_in(b"xabxxcdx"));
        assert!(payloads(&["ab", "ab"]).are_in(b"abab"));
        assert!(!payloads(&["ab", "ab"]).are_in(b"ab"));
        assert!(!payloads(&["cd", "ab"]).are_in(b"abcd"));
        assert!(!payloads(&["aba", "bab"]).are_in(b"abab"));
    }
}
