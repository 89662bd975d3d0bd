//! Local rate limits: a token a request, from the bucket of the descriptor that fits it or the
//! default one. Source: Envoy's "Local rate limit" filter.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{FilterState, descriptor};
use crate::config::filter::{Buckets, FilterConfig, LocalRateLimit};
use crate::config::route::Route;
use crate::http::connection::conn::Conn;
use crate::http::request::headers;
use crate::http::request::headers::HeadSide;
use crate::http::request::local_reply;
use crate::http::request::local_reply::Reply;
use crate::http::request::stream_info::StreamInfo;
use crate::message::head::HeaderId;
use crate::metrics::ResponseFlags;
use crate::token_bucket::TokenBucket;

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Buckets that belong to one downstream connection, by the limit they are for.
#[derive(Default)]
pub struct ConnectionBuckets(RefCell<Vec<(Arc<LocalRateLimit>, Rc<Buckets>)>>);

impl ConnectionBuckets {
    fn of(&self, limit: &Arc<LocalRateLimit>, now: std::time::Instant) -> Rc<Buckets> {
        let mut known = self.0.borrow_mut();
        if let Some((_, buckets)) = known.iter().find(|(of, _)| Arc::ptr_eq(of, limit)) {
            return buckets.clone();
        }
        // Drops the buckets of limits that are no longer configured or in use.
        known.retain(|(of, _)| Arc::strong_count(of) > 1);
        let fresh = Rc::new(Buckets::new(limit.default, &limit.descriptors, now));
        known.push((limit.clone(), fresh.clone()));
        fresh
    }
}

/// The bucket that a request was checked against, for the headers of its response.
pub struct CheckedLimit {
    limit: Arc<LocalRateLimit>,
    /// The connection's buckets; `None`: those of the process.
    own: Option<Rc<Buckets>>,
    /// Of a descriptor; `None`: the default one.
    descriptor: Option<usize>,
}

impl CheckedLimit {
    fn bucket(&self) -> Option<&TokenBucket> {
        let buckets = self.own.as_deref().unwrap_or(&self.limit.buckets);
        match self.descriptor {
            Some(at) => buckets.descriptors.get(at),
            None => buckets.default.as_ref(),
        }
    }
}

/// The limit that applies.
pub fn limit<'a>(
    own: &'a Arc<LocalRateLimit>,
    of_route: Option<&'a FilterConfig>,
) -> &'a Arc<LocalRateLimit> {
    match of_route {
        Some(FilterConfig::LocalRateLimit(of_route)) => of_route,
        _ => own,
    }
}

/// One request to be checked.
pub struct LimitCheck<'a> {
    pub limit: &'a Arc<LocalRateLimit>,
    pub route: Option<&'a Route>,
    /// Chooses among weighted clusters.
    pub draw: u64,
    /// Of the filter in its chain.
    pub place: usize,
}

/// Takes a token for the request. `Some`: there is none, and it is refused.
pub fn on_request(asked: LimitCheck<'_>, info: &mut StreamInfo, conn: &Conn) -> Option<Reply> {
    let LimitCheck { limit, place, .. } = asked;
    if !limit.enabled.draw() {
        return None;
    }
    let own = limit
        .per_connection
        .then(|| conn.buckets.of(limit, info.now()));
    let buckets = own.as_deref().unwrap_or(&limit.buckets);
    let result = evaluate(&asked, buckets, info)?;
    let counted = CheckedLimit {
        limit: limit.clone(),
        own,
        descriptor: result.descriptor,
    };
    info.filters
        .states
        .push((place, FilterState::LocalRateLimit(counted)));
    if result.allowed {
        return None;
    }
    if !limit.enforced.draw() {
        headers::apply(info, HeadSide::Request, &limit.request_headers);
        return None;
    }
    info.flags.insert(ResponseFlags::RATE_LIMITED);
    let grpc = limit.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
    let text = "local_rate_limited";
    let reply = local_reply::answer(info, limit.status, grpc, text, text);
    headers::apply(info, HeadSide::Response, &limit.response_headers);
    Some(reply)
}

struct LimitResult {
    allowed: bool,
    descriptor: Option<usize>,
}

/// `None`: nothing limits this request.
fn evaluate(asked: &LimitCheck<'_>, buckets: &Buckets, info: &StreamInfo) -> Option<LimitResult> {
    let now = info.now();
    let mut fitting: SmallVec<[usize; 4]> = SmallVec::new();
    if !asked.limit.descriptors.is_empty() {
        descriptor::fitting(asked, info, &mut fitting);
    }
    let mut allowed = true;
    let mut by = fitting.first().copied();
    for at in &fitting {
        let shadow = asked.limit.descriptors.get(*at).is_some_and(|d| d.shadow);
        let bucket = buckets.descriptors.get(*at)?;
        if !bucket.take(now) && !shadow {
            (allowed, by) = (false, Some(*at));
            break;
        }
    }
    if allowed
        && (fitting.is_empty() || asked.limit.always_default)
        && let Some(bucket) = &buckets.default
        && !bucket.take(now)
    {
        (allowed, by) = (false, None);
    }
    if by.is_none() && buckets.default.is_none() {
        return None;
    }
    Some(LimitResult {
        allowed,
        descriptor: by,
    })
}

pub fn on_response(place: usize, info: &mut StreamInfo) {
    let now = info.now();
    let is_refused = info.flags.contains(ResponseFlags::RATE_LIMITED);
    let StreamInfo {
        filters, response, ..
    } = info;
    let Some(FilterState::LocalRateLimit(counted)) = filters.state(place) else {
        return;
    };
    let Some(bucket) = counted.bucket() else {
        return;
    };
    let mut buffer = itoa::Buffer::new();
    // As Envoy: no headers for a bucket that never holds a token.
    if counted.limit.x_headers && bucket.refill().max > 0 {
        let left = bucket.left(now);
        let reset = if left > 0 {
            0
        } else {
            seconds(bucket.wait(now))
        };
        let most = buffer.format(bucket.refill().max);
        response.set_named(b"x-ratelimit-limit", most.as_bytes());
        response.set_named(b"x-ratelimit-remaining", buffer.format(left).as_bytes());
        response.set_named(b"x-ratelimit-reset", buffer.format(reset).as_bytes());
    }
    if counted.limit.retry_after
        && is_refused
        && response.status() == 429
        && !response.has(HeaderId::RetryAfter)
    {
        let after = buffer.format(seconds(bucket.wait(now)).max(1));
        response.set(HeaderId::RetryAfter, after.as_bytes());
    }
}

/// Whole seconds, a part of one counting as one.
fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}
