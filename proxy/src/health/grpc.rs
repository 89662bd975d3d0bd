//! grpc.health.v1.Health/Check: the request, and what its answer means.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use xds_proto::grpc::health::v1::health_check_response::ServingStatus;
use xds_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

use super::exchange::{CheckAnswer, CheckRequest};
use super::session::{CheckFailure, CheckResult, FailureKind};
use crate::config::health::GrpcHealthCheck;
use crate::message::head::{Head, HeaderId};

/// Bytes of an answer that are read; a message has a few.
pub const MAX_ANSWER: usize = 4 << 10;
/// The largest number that `grpc-timeout` may have.
const LONGEST: u128 = 99_999_999;
/// Of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

pub fn request(check: &GrpcHealthCheck, timeout: Duration, authority: &str) -> CheckRequest {
    let mut request = CheckRequest::new("POST", "/grpc.health.v1.Health/Check", authority);
    let head = &mut request.head;
    head.append(HeaderId::ContentType, b"application/grpc");
    let limit = format!("{}m", timeout.as_millis().min(LONGEST));
    head.append_named(b"grpc-timeout", limit.as_bytes());
    request.te_trailers = true;
    request.body = Some(message(check));
    request
}

fn message(check: &GrpcHealthCheck) -> Bytes {
    let message = HealthCheckRequest {
        service: check.service.to_string(),
    };
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(0));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// Whether a host serves.
pub fn judge(answer: &CheckAnswer) -> CheckResult {
    match serves(answer) {
        true => CheckResult::Passed { degraded: false },
        false => CheckResult::Failed(CheckFailure::of(FailureKind::Active)),
    }
}

fn serves(answer: &CheckAnswer) -> bool {
    let kind = answer.head.get(HeaderId::ContentType).unwrap_or_default();
    let is_grpc = kind.strip_prefix(b"application/grpc");
    if answer.head.status() != 200 || !is_grpc.is_some_and(|rest| matches!(rest, [] | [b'+', ..])) {
        return false;
    }
    let status = |head: &Head| head.get_by_name(b"grpc-status") == Some(b"0");
    status(&answer.trailers) && said(&answer.body) == Some(ServingStatus::Serving)
}

/// What the only message says.
fn said(body: &[u8]) -> Option<ServingStatus> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let [compressed, length @ ..] = prefix else {
        return None;
    };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *compressed != 0 || message.len() != usize::try_from(length).ok()? {
        return None;
    }
    let response = HealthCheckResponse::decode(message).ok()?;
    Some(response.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, kind: &[u8], body: &[u8], grpc_status: &[u8]) -> CheckAnswer {
        let mut answer = CheckAnswer::default();
        answer.head.set_status(status);
        answer.head.append(HeaderId::ContentType, kind);
        answer.body = body.to_vec();
        if !grpc_status.is_empty() {
            answer.trailers.append_named(b"grpc-status", grpc_status);
        }
        answer
    }

    #[test]
    fn only_serving_is_healthy() {
        let serving = [0, 0, 0, 0, 2, 8, 1];
        let grpc = b"application/grpc";
        assert!(serves(&answer(200, grpc, &serving, b"0")));
        assert!(serves(&answer(
            200,
            b"application/grpc+proto",
            &serving,
            b"0"
        )));
        for (status, kind, body, grpc_status) in [
            (503, &grpc[..], &serving[..], &b"0"[..]),
            (200, b"text/html", &serving, b"0"),
            (200, b"application/grpc-web", &serving, b"0"),
            (200, grpc, &serving, b""),
            (200, grpc, &serving, b"14"),
            (200, grpc, b"", b"0"),
            (200, grpc, &serving[..6], b"0"),
            // NOT_SERVING, SERVICE_UNKNOWN, no field at all.
            (200, grpc, &[0, 0, 0, 0, 2, 8, 2], b"0"),
            (200, grpc, &[0, 0, 0, 0, 2, 8, 3], b"0"),
            (200, grpc, &[0, 0, 0, 0, 0], b"0"),
            // Compressed; two messages; a length that is not so; no protobuf.
            (200, grpc, &[1, 0, 0, 0, 2, 8, 1], b"0"),
            (200, grpc, &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1], b"0"),
            (200, grpc, &[0, 255, 255, 255, 255, 8, 1], b"0"),
            (200, grpc, &[0, 0, 0, 0, 2, 255, 255], b"0"),
        ] {
            assert!(
                !serves(&answer(status, kind, body, grpc_status)),
                "{body:?}"
            );
        }
    }

    #[test]
    fn the_service_and_the_time_are_sent() {
        let check = GrpcHealthCheck {
            service: "shop".into(),
            authority: None,
            metadata: crate::config::route::HeaderEdits::default(),
        };
        let request = request(&check, Duration::from_millis(1500), "a");
        assert_eq!(request.body.unwrap()[..], *b"\0\0\0\0\x06\x0a\x04shop");
        assert_eq!(
            request.head.get_by_name(b"grpc-timeout"),
            Some(&b"1500m"[..])
        );
    }
}
