//! Fault injection: delays, aborts, slow responses; by configuration or by headers of the request.
//! Source: Envoy's "Fault Injection" filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::FilterState;
use crate::config::Name;
use crate::config::filter::{AbortStatus, FaultInjection, FilterConfig, Percent};
use crate::config::route::Route;
use crate::http::request::local_reply;
use crate::http::request::local_reply::Reply;
use crate::http::request::matching;
use crate::http::request::plan;
use crate::http::request::stream_info::StreamInfo;
use crate::message::head::Head;
use crate::metrics::ResponseFlags;

/// A stream with a fault, counted while it lasts.
pub struct ActiveFault(Arc<AtomicU32>);

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The settings that apply to a request.
pub fn settings<'a>(
    own: &'a FaultInjection,
    of_route: Option<&'a FilterConfig>,
) -> &'a FaultInjection {
    match of_route {
        Some(FilterConfig::Fault(of_route)) => of_route,
        _ => own,
    }
}

/// The filter's state for one request.
pub struct Injector<'a> {
    pub fault: &'a FaultInjection,
    /// How many streams of the filter have a fault.
    pub active: &'a Arc<AtomicU32>,
    pub name: &'a Name,
    pub place: usize,
}

impl Injector<'_> {
    /// Whether the filter's conditions (cluster, nodes, headers) match this request.
    pub fn matches(&self, info: &StreamInfo, route: Option<&Route>) -> bool {
        let fault = self.fault;
        let cluster_fits = fault.upstream_cluster.as_ref().is_none_or(|wanted| {
            let cluster = route.and_then(|route| plan::cluster_name(route, info, info.draw));
            cluster.is_some_and(|name| *name == *wanted.as_bytes())
        });
        let node_fits = fault.downstream_nodes.is_empty()
            || info
                .request
                .get_by_name(b"x-envoy-downstream-service-node")
                .is_some_and(|node| {
                    let mut nodes = fault.downstream_nodes.iter();
                    nodes.any(|wanted| *wanted.as_bytes() == *node)
                });
        let fits = |matcher| matching::header(matcher, &info.request);
        cluster_fits && node_fits && fault.headers.iter().all(fits)
    }

    /// The delay to inject, if any; also sets the response's rate limit.
    pub fn delay(&mut self, info: &mut StreamInfo) -> Option<Duration> {
        self.slow_response(info);
        let delay = self.fault.delay.as_ref()?;
        let asked = delay.fixed.or_else(|| {
            let millis = number(&info.request, b"x-envoy-fault-delay-request");
            millis.map(Duration::from_millis)
        });
        let asked = asked.filter(|asked| !asked.is_zero())?;
        let percent = match delay.fixed {
            Some(_) => delay.percent,
            None => at_most(
                delay.percent,
                &info.request,
                b"x-envoy-fault-delay-request-percentage",
            ),
        };
        if !percent.draw() || !self.begin(info) {
            return None;
        }
        info.flags.insert(ResponseFlags::DELAY_INJECTED);
        info.filters.set_metadata(self.name, &self.fault.metadata);
        Some(asked)
    }

    /// The answer to a request that is to fail.
    pub fn abort(&mut self, info: &mut StreamInfo) -> Option<Reply> {
        let abort = self.fault.abort.as_ref()?;
        let (status, percent) = match abort.status {
            Some(status) => (status, abort.percent),
            None => (
                asked_status(&info.request)?,
                at_most(
                    abort.percent,
                    &info.request,
                    b"x-envoy-fault-abort-request-percentage",
                ),
            ),
        };
        if !percent.draw() || !self.begin(info) {
            return None;
        }
        info.flags.insert(ResponseFlags::FAULT_INJECTED);
        info.filters.set_metadata(self.name, &self.fault.metadata);
        let (status, grpc) = match status {
            AbortStatus::Http(status) => (status, None),
            AbortStatus::Grpc(code) => (200, Some(code)),
        };
        let text = String::from_utf8_lossy(&abort.body);
        Some(local_reply::answer(
            info,
            status,
            grpc,
            &text,
            "fault_filter_abort",
        ))
    }

    fn slow_response(&mut self, info: &mut StreamInfo) {
        let Some(rate) = &self.fault.response_rate else {
            return;
        };
        let (kib, percent) = match rate.fixed {
            Some(kib) => (Some(kib), rate.percent),
            None => (
                number(&info.request, b"x-envoy-fault-throughput-response"),
                at_most(
                    rate.percent,
                    &info.request,
                    b"x-envoy-fault-throughput-response-percentage",
                ),
            ),
        };
        if let Some(kib @ 1..) = kib
            && percent.draw()
            && self.begin(info)
        {
            info.filters.response_body.get_or_insert_default().rate = Some(kib);
        }
    }

    /// Counts the stream among those with a fault, once; false: there are as many as may be.
    fn begin(&self, info: &mut StreamInfo) -> bool {
        if info.filters.state(self.place).is_some() {
            return true;
        }
        let most = self.fault.max_active.unwrap_or(u32::MAX);
        let counted = self.active.fetch_update(Relaxed, Relaxed, |active| {
            (active < most).then(|| active.saturating_add(1))
        });
        if counted.is_err() {
            return false;
        }
        let state = FilterState::Fault(ActiveFault(self.active.clone()));
        info.filters.states.push((self.place, state));
        true
    }
}

/// The status that the request's headers set.
fn asked_status(request: &Head) -> Option<AbortStatus> {
    let http = number(request, b"x-envoy-fault-abort-request");
    if let Some(Ok(status @ 200..=599)) = http.map(u16::try_from) {
        return Some(AbortStatus::Http(status));
    }
    let grpc = number(request, b"x-envoy-fault-abort-grpc-request")?;
    u32::try_from(grpc).ok().map(AbortStatus::Grpc)
}

/// The share that the request's headers set, at most the one configured.
fn at_most(percent: Percent, request: &Head, name: &[u8]) -> Percent {
    let asked = number(request, name).and_then(|asked| u32::try_from(asked).ok());
    Percent {
        numerator: asked.map_or(percent.numerator, |asked| asked.min(percent.numerator)),
        ..percent
    }
}

/// A header's value as a number.
fn number(request: &Head, name: &[u8]) -> Option<u64> {
    let digits = request.get_by_name(name)?;
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| all_digits)?;
    text.parse().ok()
}
