//! Whether, and when, a request is sent again: by the retry policy (Envoy's `x-envoy-retry-on`
//! reference), and without one after a kept connection turned out to be closed.

use std::sync::Arc;
use std::time::Duration;

use super::upstream::Staleness;
use crate::config::route::{RetryOn, RetryPolicy};
use crate::http::request::error::Failure;
use crate::http::request::matching;
use crate::message::head::{Head, HeaderId, Method};
use crate::metrics::ResponseFlags;
use crate::upstream::limits::{CircuitBreakers, Permit};

/// Closed idle connections that one request may run into before it counts as a failure.
const MAX_STALE: u32 = 8;

/// How one request was sent again because its kept connection had been closed. These are no retries:
/// no policy is needed, and no permit taken.
#[derive(Default)]
pub struct StaleResends {
    count: u32,
    /// One was without proof that the upstream had not processed the request.
    unproven: bool,
}

impl StaleResends {
    /// Whether a request, all of which can be sent again, may be. Without proof that the upstream
    /// has processed nothing of it that is allowed once, and only for a safe method: RFC 9110 9.2.2
    /// forbids it to proxies for methods that are not idempotent, and of the idempotent ones PUT and
    /// DELETE may undo what another client did between the two.
    pub fn allow(&self, stale: Staleness, method: Method) -> bool {
        self.count < MAX_STALE
            && match stale {
                Staleness::Proven => true,
                Staleness::Possible => !self.unproven && method.is_safe(),
                Staleness::None => false,
            }
    }

    /// The request is sent again.
    pub fn begin(&mut self, stale: Staleness) {
        self.count = self.count.saturating_add(1);
        self.unproven |= stale == Staleness::Possible;
    }
}

/// What to do with an attempt's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Forward this response.
    Accept,
    /// Forward this response: it is retriable, but retries are exhausted.
    Exhausted(ResponseFlags),
    /// Another attempt, after this long.
    Again(Duration),
}

/// The retries of one request.
pub struct Retries {
    policy: Option<Arc<RetryPolicy>>,
    begun: u32,
    /// Held while a retry runs.
    permit: Option<Permit>,
}

impl Retries {
    pub fn new(policy: Option<Arc<RetryPolicy>>) -> Self {
        Self {
            policy,
            begun: 0,
            permit: None,
        }
    }

    pub fn per_try_timeout(&self) -> Option<Duration> {
        self.policy.as_ref()?.per_try_timeout
    }

    pub fn per_try_idle_timeout(&self) -> Option<Duration> {
        self.policy.as_ref()?.per_try_idle_timeout
    }

    /// Endpoints that were tried are avoided.
    pub fn avoids_previous(&self) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| policy.avoid_previous_hosts)
    }

    /// The decision after an attempt: on a response's head, or on why there was none. `replayable`:
    /// all of the request can be sent again; else no permit is taken.
    pub fn after(
        &mut self,
        outcome: Result<&Head, &Failure>,
        replayable: bool,
        limits: &Arc<CircuitBreakers>,
    ) -> RetryDecision {
        let retriable = self.policy.as_ref().is_some_and(|policy| match outcome {
            Ok(head) => response_is_retriable(policy, head),
            Err(failure) => failure_is_retriable(policy.on, failure),
        });
        if retriable && replayable {
            self.again(limits)
        } else {
            RetryDecision::Accept
        }
    }

    fn again(&mut self, limits: &Arc<CircuitBreakers>) -> RetryDecision {
        let Some(policy) = &self.policy else {
            return RetryDecision::Accept;
        };
        if self.begun >= policy.num_retries {
            return RetryDecision::Exhausted(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        // The previous retry is over: its permit is released before this one takes one.
        self.permit = None;
        self.permit = limits.try_retry();
        if self.permit.is_none() {
            return RetryDecision::Exhausted(ResponseFlags::UPSTREAM_OVERFLOW);
        }
        self.begun = self.begun.saturating_add(1);
        RetryDecision::Again(back_off(policy, self.begun, fastrand::f64()))
    }
}

/// Fully jittered: anything up to `base * (2^n - 1)`, at most `max`. Over a floor half of that: its
/// mean stays near.
fn back_off(policy: &RetryPolicy, retry: u32, draw: f64) -> Duration {
    let factor = 2u32.saturating_pow(retry).saturating_sub(1);
    let bound = policy.back_off_base.saturating_mul(factor);
    let jitter = bound.min(policy.back_off_max).mul_f64(draw);
    match policy.back_off_floor.is_zero() {
        true => jitter,
        false => policy.back_off_floor.saturating_add(jitter.mul_f64(0.5)),
    }
}

fn failure_is_retriable(on: RetryOn, failure: &Failure) -> bool {
    let any = RetryOn::RESET | RetryOn::FIVE_XX | RetryOn::GATEWAY_ERROR;
    match failure {
        Failure::Connect(_) | Failure::ConnectTimeout => on.has(any | RetryOn::CONNECT_FAILURE),
        Failure::Refused => on.has(any | RetryOn::REFUSED_STREAM | RetryOn::RESET_BEFORE_REQUEST),
        Failure::Terminated
        | Failure::Reset { .. }
        | Failure::BadResponse(_)
        | Failure::Protocol(_)
        | Failure::PerTryTimeout => on.has(any),
        _ => false,
    }
}

fn response_is_retriable(policy: &RetryPolicy, head: &Head) -> bool {
    let (on, status) = (policy.on, head.status());
    // An upstream that reports overload is not retried, as in Envoy.
    if head.has(HeaderId::XEnvoyOverloaded) || head.has(HeaderId::XEnvoyRateLimited) {
        return false;
    }
    // The sidecar beside the app could not connect to it: the same as if we could not.
    let is_failure = status == 503 || head.get(HeaderId::GrpcStatus) == Some(b"14");
    let is_unprocessed = is_failure && head.has(HeaderId::XAnyamUnprocessed);
    is_unprocessed && on.has(RetryOn::CONNECT_FAILURE)
        || on.has(RetryOn::FIVE_XX) && (500..600).contains(&status)
        || on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status)
        || on.has(RetryOn::RETRIABLE_4XX) && status == 409
        || on.has(RetryOn::RETRIABLE_STATUS_CODES)
            && policy.retriable_status_codes.contains(&status)
        || on.has(RetryOn::RETRIABLE_HEADERS)
            && policy
                .retriable_headers
                .iter()
                .any(|header| matching::header(header, head))
        || grpc_is_retriable(on, head.get(HeaderId::GrpcStatus))
}

fn grpc_is_retriable(on: RetryOn, status: Option<&[u8]>) -> bool {
    match status {
        Some(b"1") => on.has(RetryOn::GRPC_CANCELLED),
        Some(b"4") => on.has(RetryOn::GRPC_DEADLINE_EXCEEDED),
        Some(b"8") => on.has(RetryOn::GRPC_RESOURCE_EXHAUSTED),
        Some(b"13") => on.has(RetryOn::GRPC_INTERNAL),
        Some(b"14") => on.has(RetryOn::GRPC_UNAVAILABLE),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            on,
            num_retries: 2,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: vec![418],
            retriable_headers: Vec::new(),
            back_off_floor: Duration::ZERO,
            back_off_base: Duration::from_millis(25),
            back_off_max: Duration::from_millis(250),
            avoid_previous_hosts: false,
        }
    }

    fn head(status: u16) -> Head {
        let mut head = Head::new();
        head.set_status(status);
        head
    }

    #[test]
    fn a_request_is_sent_again_once_without_proof_and_then_only_if_it_is_safe() {
        use Staleness::{None, Possible, Proven};
        let mut resends = StaleResends::default();
        for method in [Method::Get, Method::Head, Method::Options, Method::Trace] {
            assert!(resends.allow(Possible, method));
        }
        for method in [
            Method::Post,
            Method::Put,
            Method::Delete,
            Method::Patch,
            Method::Connect,
            Method::Other,
        ] {
            assert!(!resends.allow(Possible, method), "{method:?}");
            assert!(resends.allow(Proven, method), "{method:?}");
        }
        assert!(!resends.allow(None, Method::Get));
        resends.begin(Possible);
        assert!(!resends.allow(Possible, Method::Get));
        for _ in 1..MAX_STALE {
            assert!(resends.allow(Proven, Method::Post));
            resends.begin(Proven);
        }
        assert!(!resends.allow(Proven, Method::Get));
    }

    #[test]
    fn conditions() {
        let retriable = |on, status| response_is_retriable(&policy(on), &head(status));
        assert!(retriable(RetryOn::FIVE_XX, 500));
        assert!(!retriable(RetryOn::GATEWAY_ERROR, 500));
        assert!(retriable(RetryOn::GATEWAY_ERROR, 503));
        assert!(retriable(RetryOn::RETRIABLE_STATUS_CODES, 418));
        assert!(!retriable(RetryOn::FIVE_XX, 418));
        assert!(failure_is_retriable(
            RetryOn::CONNECT_FAILURE,
            &Failure::ConnectTimeout
        ));
        assert!(!failure_is_retriable(
            RetryOn::CONNECT_FAILURE,
            &Failure::Reset { cancelled: false }
        ));
        assert!(!failure_is_retriable(
            RetryOn::FIVE_XX,
            &Failure::Overflow("requests")
        ));
    }

    #[test]
    fn attempts_and_waits_are_bounded() {
        let limits = CircuitBreakers::new(crate::config::cluster::Thresholds::default());
        let mut retries = Retries::new(Some(Arc::new(policy(RetryOn::FIVE_XX))));
        for _ in 0..2 {
            let RetryDecision::Again(wait) = retries.after(Ok(&head(503)), true, &limits) else {
                panic!("no retry");
            };
            assert!(wait <= Duration::from_millis(250));
        }
        let decision = retries.after(Ok(&head(503)), true, &limits);
        assert!(matches!(decision, RetryDecision::Exhausted(_)));
        let limits = CircuitBreakers::new(crate::config::cluster::Thresholds::default());
        let mut retries = Retries::new(Some(Arc::new(policy(RetryOn::FIVE_XX))));
        let decision = retries.after(Ok(&head(503)), false, &limits);
        assert_eq!(decision, RetryDecision::Accept);
        assert_eq!(limits.active_retries(), 0);
        let long = policy(RetryOn::FIVE_XX);
        assert_eq!(back_off(&long, 31, 1.0), Duration::from_millis(250));
        assert_eq!(back_off(&long, 1, 0.0), Duration::ZERO);
        let minimum = RetryPolicy {
            back_off_floor: long.back_off_base,
            ..long
        };
        assert_eq!(back_off(&minimum, 1, 0.0), Duration::from_millis(25));
        assert_eq!(back_off(&minimum, 31, 1.0), Duration::from_millis(150));
    }
}
