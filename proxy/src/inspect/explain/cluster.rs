//! The cluster that a hypothetical request is sent to, and its endpoints.

use std::sync::Arc;

use xds_proto::anyam::inspect::v1::decision::Outcome;

use super::{Decisions, ExplainContext};
use crate::config::balancing::SubsetCriteria;
use crate::config::cluster::Transport;
use crate::upstream::cluster::Cluster;

/// Texts for an unknown cluster and for one without endpoints.
pub(super) struct FailureTexts {
    pub(super) unknown: String,
    pub(super) no_endpoint: &'static str,
}

pub(super) fn cluster(
    name: &str,
    target: Option<(&Arc<Cluster>, Option<&Arc<SubsetCriteria>>)>,
    context: &ExplainContext<'_>,
    failing: &FailureTexts,
    decisions: &mut Decisions,
) {
    let Some((cluster, subset)) = target else {
        let why = format!("the cluster is not known (yet): {}", failing.unknown);
        return decisions.push("cluster", Outcome::Failed, name, why);
    };
    decisions.push(
        "cluster",
        Outcome::Chosen,
        &cluster.name,
        "the route leads here",
    );
    let set = cluster.endpoints.load();
    for (priority, group) in set.priorities.iter().enumerate() {
        for endpoint in &group.endpoints {
            let ejected = match endpoint.state.is_ejected() {
                true => ", ejected",
                false => "",
            };
            let failing = match endpoint.state.health.get() {
                flags if flags.is_awaited() => ", not checked yet",
                flags if flags.is_failed() => ", fails its health checks",
                flags if flags.is_degraded() => ", degraded by its health checks",
                _ => "",
            };
            let transport = match cluster.transport_of(endpoint) {
                Some(Transport::Tls(_)) => "mTLS",
                Some(Transport::RawBuffer) => "plaintext",
                None => "no transport fits, so it fails closed",
            };
            let why = format!(
                "{:?}{ejected}{failing}, priority {priority}, {} active, {transport}",
                endpoint.health,
                endpoint.state.active()
            );
            let subject = endpoint.address.to_string();
            decisions.push("endpoint", Outcome::Info, &subject, why);
        }
    }
    let what = crate::upstream::cluster::PickFor {
        exclude: &[],
        original_dst: context.original_dst,
        subset,
        ..Default::default()
    };
    match cluster.peek(what, &mut fastrand::Rng::new()) {
        Ok(picked) => {
            let why = match (picked.panic, cluster.lb.is_hash()) {
                (true, _) => "picked in panic: too few are healthy",
                (false, true) => {
                    "a pick now without a hash: what a call has of it chooses among all"
                }
                (false, false) => "a pick now",
            };
            let subject = picked.endpoint.address.to_string();
            decisions.push("endpoint", Outcome::Chosen, &subject, why);
        }
        Err(error) => decisions.push(
            "endpoint",
            Outcome::Failed,
            &cluster.name,
            format!("{error}: {}", failing.no_endpoint),
        ),
    }
}
