//! The values of an access log line about one request or connection.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::matcher::HeaderName;
use crate::metadata::Metadata;
use crate::metrics::flags::ResponseFlags;

/// Headers or trailers that a format can read.
pub trait Headers {
    /// Calls `each` with every value of `name`, in order.
    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8]));
}

/// One finished request or TCP connection, borrowed from its owner. `None` renders as `-` in text
/// and `null` in JSON.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub start: SystemTime,
    /// First downstream byte to last.
    pub duration: Duration,
    /// First downstream byte to the last of the request.
    pub request_duration: Option<Duration>,
    /// First downstream byte to the first of the upstream's response.
    pub response_duration: Option<Duration>,
    /// Body bytes from downstream.
    pub bytes_received: u64,
    /// Body bytes to downstream.
    pub bytes_sent: u64,
    /// `HTTP/1.1`, `HTTP/2`; `None` for TCP.
    pub protocol: Option<&'static str>,
    /// 0 when no response head was sent, as Envoy prints it.
    pub code: u16,
    pub details: Option<&'a str>,
    pub termination_details: Option<&'a str>,
    pub flags: ResponseFlags,
    pub route: Option<&'a str>,
    pub cluster: Option<&'a str>,
    pub upstream_host: Option<SocketAddr>,
    pub upstream_local: Option<SocketAddr>,
    pub upstream_failure: Option<&'a str>,
    /// Of a local reply that is being made.
    pub local_reply_body: Option<&'a [u8]>,
    pub attempts: u32,
    /// The client: from `x-forwarded-for` where that is trusted.
    pub remote: Option<SocketAddr>,
    pub direct_remote: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub sni: Option<&'a str>,
    pub peer_uri_san: Option<&'a str>,
    pub local_uri_san: Option<&'a str>,
    pub peer_subject: Option<&'a str>,
    pub tls_version: Option<&'a str>,
    pub tls_cipher: Option<&'a str>,
    pub upstream_peer_uri_san: Option<&'a str>,
    pub connection_id: u64,
    /// The status of a gRPC call as Envoy logs it: a number that gRPC does not define too, and -1
    /// for a value that is no number.
    pub grpc_status: Option<i32>,
    pub method: Option<&'a [u8]>,
    pub path: Option<&'a [u8]>,
    pub authority: Option<&'a [u8]>,
    pub scheme: Option<&'a [u8]>,
    pub chain: Option<&'a str>,
    pub request: Option<&'a dyn Headers>,
    pub response: Option<&'a dyn Headers>,
    pub trailers: Option<&'a dyn Headers>,
    /// Dynamic metadata.
    pub metadata: Option<&'a Metadata>,
    /// It is a health check of this proxy.
    pub is_health_check: bool,
}

impl Record<'_> {
    /// As [`Record::begun`], of what has lasted for so long and ends now.
    pub fn lasted(duration: Duration) -> Self {
        let now = SystemTime::now();
        Self {
            duration,
            ..Self::begun(now.checked_sub(duration).unwrap_or(now))
        }
    }

    /// A record with nothing known but when it began.
    pub fn begun(start: SystemTime) -> Self {
        Self {
            start,
            duration: Duration::ZERO,
            request_duration: None,
            response_duration: None,
            bytes_received: 0,
            bytes_sent: 0,
            protocol: None,
            code: 0,
            details: None,
            termination_details: None,
            flags: ResponseFlags::NONE,
            route: None,
            cluster: None,
            upstream_host: None,
            upstream_local: None,
            upstream_failure: None,
            local_reply_body: None,
            attempts: 0,
            remote: None,
            direct_remote: None,
            local: None,
            sni: None,
            peer_uri_san: None,
            local_uri_san: None,
            peer_subject: None,
            tls_version: None,
            tls_cipher: None,
            upstream_peer_uri_san: None,
            connection_id: 0,
            grpc_status: None,
            method: None,
            path: None,
            authority: None,
            scheme: None,
            chain: None,
            request: None,
            response: None,
            trailers: None,
            metadata: None,
            is_health_check: false,
        }
    }
}
