//! One check of a host: what is asked, and what the answer means.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{CheckCodec, CheckConnection, CheckDialler, DialError, KeptConnection};
use super::exchange::{CheckAnswer, CheckRequest, exchange};
use super::grpc;
use super::session::{CheckFailure, CheckResult, FailureKind};
use crate::config::cluster::Transport;
use crate::config::health::{HealthCheck, HealthProtocol, HttpHealthCheck, TcpHealthCheck};
use crate::http::forward::upstream::UpstreamIo;
use crate::message::head::HeaderId;
use crate::stream::Stream;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;

/// Bytes that are read of a TCP answer in which what is wanted does not come.
const MAX_RAW: usize = 128 << 10;

/// A host, and how it is checked.
pub struct Checked {
    pub cluster: Arc<Cluster>,
    pub config: Arc<HealthCheck>,
    pub endpoint: Arc<Endpoint>,
    pub dialler: CheckDialler,
}

impl Checked {
    /// Checks the host once, on `kept` where that is of use, and keeps the connection there. The
    /// caller bounds how long it takes.
    pub async fn check(&self, kept: &mut Option<KeptConnection>) -> CheckResult {
        let connection = kept.take().map(|kept| kept.connection);
        match self.attempt(connection).await {
            Ok((result, connection)) => {
                let connection = connection.filter(|_| self.config.reuse_connection);
                *kept = connection.and_then(|c| c.keep(&self.dialler.places));
                result
            }
            Err(why) => {
                let (cluster, host) = (&self.cluster.name, self.endpoint.check_address());
                tracing::debug!(%cluster, %host, %why, "a health check had no answer");
                CheckResult::Failed(CheckFailure::of(FailureKind::Network))
            }
        }
    }

    async fn attempt(
        &self,
        kept: Option<CheckConnection>,
    ) -> Result<(CheckResult, Option<CheckConnection>), DialError> {
        match &self.config.protocol {
            HealthProtocol::Http(http) => {
                let codec = match http.http2 {
                    true => CheckCodec::Http2,
                    false => CheckCodec::Http1,
                };
                let request = self.request(http, codec);
                let most = match http.receive.is_empty() {
                    true => 0,
                    false => http.response_buffer,
                };
                let (answer, left) = self.ask(kept, codec, &request, most).await?;
                Ok((self.judge(http, &answer), left))
            }
            HealthProtocol::Grpc(check) => {
                let host = check.authority.as_deref();
                let request = grpc::request(
                    check,
                    self.config.timeout,
                    &self.authority(host, CheckCodec::Http2),
                );
                let request = self.secured(request, |request| {
                    request.edit(&check.metadata, &self.endpoint);
                });
                let most = grpc::MAX_ANSWER;
                let (answer, left) = self.ask(kept, CheckCodec::Http2, &request, most).await?;
                Ok((grpc::judge(&answer), left))
            }
            HealthProtocol::Tcp(check) => self.tcp(check, kept).await,
        }
    }

    /// The authority of a check's requests: the cluster's name, where nothing else is configured. Over
    /// HTTP/2 that may not be possible, and then it is the host's address.
    fn authority(&self, configured: Option<&str>, codec: CheckCodec) -> String {
        let own = self.endpoint.check.as_deref();
        let own = own.and_then(|check| check.host_name.as_deref());
        if let Some(given) = own.or(configured) {
            return given.to_owned();
        }
        let name = &*self.cluster.name;
        let is_authority = ::http::uri::Authority::try_from(name).is_ok();
        match codec == CheckCodec::Http1 || is_authority {
            true => name.to_owned(),
            false => self.endpoint.check_address().to_string(),
        }
    }

    fn request(&self, check: &HttpHealthCheck, codec: CheckCodec) -> CheckRequest {
        let authority = self.authority(check.host.as_deref(), codec);
        let request = CheckRequest::new(check.method, &check.path, &authority);
        self.secured(request, |request| {
            request.body = check.send.clone();
            request.edit(&check.edits, &self.endpoint);
            if let Some(body) = &check.send {
                let length = body.len().to_string();
                request.head.set(HeaderId::ContentLength, length.as_bytes());
            }
        })
    }

    /// Completes a request by the scheme of its connection, and by `edit`.
    fn secured(
        &self,
        mut request: CheckRequest,
        edit: impl FnOnce(&mut CheckRequest),
    ) -> CheckRequest {
        let transport = match &self.config.transport_metadata {
            Some(metadata) => self.cluster.transport_for(metadata),
            None => self.endpoint.transport,
        };
        let transport = transport.and_then(|index| usize::try_from(index).ok());
        let entry = transport.and_then(|index| self.cluster.transport.get(index));
        let is_tls = entry.is_some_and(|entry| matches!(entry.transport, Transport::Tls(_)));
        request
            .head
            .set_scheme(if is_tls { b"https" } else { b"http" });
        edit(&mut request);
        request
    }

    /// The answer to a request, and the connection where it can serve another check.
    async fn ask(
        &self,
        kept: Option<CheckConnection>,
        codec: CheckCodec,
        request: &CheckRequest,
        most: usize,
    ) -> Result<(CheckAnswer, Option<CheckConnection>), DialError> {
        match self.open(kept, codec).await? {
            CheckConnection::Http1(mut client) => {
                client.begin();
                let mut up = UpstreamIo::H1(client);
                let answer = exchange(&mut up, request, most).await.map_err(described)?;
                let UpstreamIo::H1(mut client) = up else {
                    return Ok((answer, None));
                };
                let reusable = client.codec.next(&client.io.input);
                client.io.release();
                let left = reusable.then_some(CheckConnection::Http1(client));
                Ok((answer, left))
            }
            CheckConnection::Http2(connected) => {
                let stream = connected.open().await.map_err(described)?;
                let mut up = UpstreamIo::H2(Box::new(stream));
                let answer = exchange(&mut up, request, most).await.map_err(described)?;
                drop(up);
                Ok((answer, Some(CheckConnection::Http2(connected))))
            }
            CheckConnection::Raw(_) => Err("this connection speaks no HTTP".into()),
        }
    }

    /// The kept connection, if it can still be used, else a new one.
    async fn open(
        &self,
        kept: Option<CheckConnection>,
        codec: CheckCodec,
    ) -> Result<CheckConnection, DialError> {
        let usable = match kept {
            // One that received GOAWAY opens no stream.
            Some(CheckConnection::Http2(connected)) => {
                let opens = !connected.is_closed() && connected.ready().await.is_ok();
                opens.then_some(CheckConnection::Http2(connected))
            }
            other => other,
        };
        match usable {
            Some(connection) => Ok(connection),
            None => {
                let dialler = &self.dialler;
                let dialling = dialler.connect(&self.cluster, &self.endpoint, &self.config, codec);
                dialling.await
            }
        }
    }

    /// What an answer says of its host.
    fn judge(&self, check: &HttpHealthCheck, answer: &CheckAnswer) -> CheckResult {
        let (head, status) = (&answer.head, answer.head.status());
        let failed = |retriable, excludes| {
            CheckResult::Failed(CheckFailure {
                retriable,
                excludes,
                status: Some(status),
                ..CheckFailure::of(FailureKind::Active)
            })
        };
        let excludes = head.get_by_name(IMMEDIATE_FAIL).is_some();
        if !check.receive.are_in(&answer.body) {
            return failed(false, excludes);
        }
        let is_in = |ranges: &[crate::config::health::StatusRange]| {
            ranges.iter().any(|range| range.contains(status))
        };
        if !is_in(&check.expected) {
            return failed(is_in(&check.retriable), excludes);
        }
        if let Some(wanted) = &check.service_name {
            if let Some(checks) = &self.cluster.checks {
                checks.metrics.verify_cluster.inc();
            }
            let name = head.get_by_name(b"x-envoy-upstream-healthchecked-cluster");
            if !wanted.matches(name.unwrap_or_default()) {
                return failed(false, false);
            }
        }
        CheckResult::Passed {
            degraded: head.get_by_name(b"x-envoy-degraded").is_some(),
        }
    }

    async fn tcp(
        &self,
        check: &TcpHealthCheck,
        kept: Option<CheckConnection>,
    ) -> Result<(CheckResult, Option<CheckConnection>), DialError> {
        let CheckConnection::Raw(mut stream) = self.open(kept, CheckCodec::Raw).await? else {
            return Err("this connection speaks HTTP".into());
        };
        let passed = CheckResult::Passed { degraded: false };
        // As in Envoy: a connection suffices, and nothing is sent on it.
        if check.receive.is_empty() {
            return Ok((passed, None));
        }
        converse(&mut stream, check).await?;
        Ok((passed, Some(CheckConnection::Raw(stream))))
    }
}

/// The header by which a host asks for no more requests.
pub const IMMEDIATE_FAIL: &[u8] = b"x-envoy-immediate-health-check-fail";

/// Sends, and reads until all that is wanted has come.
async fn converse(stream: &mut Stream, check: &TcpHealthCheck) -> Result<(), DialError> {
    let failed = |error: std::io::Error| DialError::from(error.to_string());
    if let Some(send) = &check.send {
        let mut send: Bytes = send.clone();
        stream.write_all_buf(&mut send).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
    }
    let mut received = Vec::new();
    while !check.receive.are_in(&received) {
        if received.len() >= MAX_RAW {
            return Err("it sends much, and not what is wanted".into());
        }
        if stream.read_buf(&mut received).await.map_err(failed)? == 0 {
            return Err("it ended the connection".into());
        }
    }
    Ok(())
}

fn described(failure: crate::http::request::error::Failure) -> DialError {
    format!("{failure:?}").into()
}
