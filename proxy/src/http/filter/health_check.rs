//! Health checks of this proxy, answered or passed on; and the mark by which every response says that
//! they fail. Source: Envoy's "Health check" filter.

use bytes::Bytes;

use super::FilterState;
use crate::config::filter::{HealthCheckFilter, HealthCheckMode};
use crate::http::request::headers::{self, HeadSide};
use crate::http::request::local_reply::{self, Reply};
use crate::http::request::matching;
use crate::http::request::stream_info::StreamInfo;
use crate::message::head::Head;
use crate::metrics::ResponseFlags;
use crate::snapshot::{Snapshot, Store};

const DEGRADED: &[u8] = b"x-envoy-degraded";

/// What is answered to a health check.
struct Health {
    status: u16,
    details: &'static str,
    degraded: bool,
}

impl Health {
    fn of(status: u16, details: &'static str) -> Self {
        Self {
            status,
            details,
            degraded: false,
        }
    }
}

pub fn on_request(
    filter: &HealthCheckFilter,
    place: usize,
    info: &mut StreamInfo,
    store: &Store,
) -> Option<Reply> {
    let fits = |matcher| matching::header(matcher, &info.request);
    if !filter.headers.iter().all(fits) {
        return None;
    }
    let health = health(filter, info, store);
    let state = FilterState::HealthCheck {
        is_answered: health.is_some(),
    };
    info.filters.states.push((place, state));
    health.map(|health| answer(info, &health))
}

/// What this proxy answers; `None`: the upstream does.
fn health(filter: &HealthCheckFilter, info: &StreamInfo, store: &Store) -> Option<Health> {
    let is_failed = filter.switch.is_failed();
    match &filter.mode {
        _ if is_failed => Some(Health::of(503, "health_check_failed")),
        HealthCheckMode::PassThrough(kept) => {
            let (status, degraded) = kept.as_ref()?.get(info.now())?;
            Some(Health {
                degraded,
                ..Health::of(status, "health_check_cached")
            })
        }
        HealthCheckMode::Answer(clusters) => Some(of_clusters(clusters, &store.borrow())),
    }
}

/// As in Envoy, the first cluster of which too few endpoints are healthy decides.
fn of_clusters(clusters: &[(crate::config::Name, u8)], snapshot: &Snapshot) -> Health {
    let mut details = "health_check_ok";
    for (name, percent) in clusters {
        details = "health_check_ok_cluster_healthy";
        let Some(cluster) = snapshot.clusters.get(name) else {
            return Health::of(503, "health_check_failed_no_cluster_found");
        };
        let metrics = &cluster.metrics;
        let (total, wanted) = (metrics.members.get(), i64::from(*percent));
        let healthy = metrics.members_healthy.get();
        let available = healthy.saturating_add(metrics.members_degraded.get());
        if total == 0 && wanted > 0 {
            return Health::of(503, "health_check_failed_cluster_empty");
        }
        if available.saturating_mul(100) < total.saturating_mul(wanted) {
            return Health::of(503, "health_check_failed_cluster_unhealthy");
        }
    }
    Health::of(200, details)
}

fn answer(info: &mut StreamInfo, health: &Health) -> Reply {
    if !(200..300).contains(&health.status) {
        info.flags.insert(ResponseFlags::FAILED_LOCAL_HEALTH_CHECK);
    }
    if info.is_grpc {
        return local_reply::answer(info, health.status, None, "", health.details);
    }
    info.details = health.details.into();
    let mut head = Head::new();
    head.set_version(info.version);
    head.set_status(health.status);
    if health.degraded {
        head.append_named(DEGRADED, b"");
    }
    let reply = local_reply::finish(info, head, Bytes::new());
    headers::edit(info, HeadSide::Response, None);
    reply
}

pub fn on_response(filter: &HealthCheckFilter, place: usize, info: &mut StreamInfo) {
    if let Some(FilterState::HealthCheck { is_answered }) = info.filters.state(place) {
        if let (HealthCheckMode::PassThrough(Some(kept)), false) = (&filter.mode, *is_answered) {
            let degraded = info.response.get_by_name(DEGRADED).is_some();
            kept.set(info.response.status(), degraded, info.now());
        }
        let name = b"x-envoy-upstream-healthchecked-cluster";
        let cluster = filter.local_cluster.as_bytes();
        info.response.set_named(name, cluster);
    }
    if filter.switch.is_failed() {
        let name = b"x-envoy-immediate-health-check-fail";
        info.response.set_named(name, b"true");
    }
}
