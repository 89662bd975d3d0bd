//! A proxy's report: its configuration versions and their age, and the traffic since the last
//! report.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use xds_proto::anyam::inspect::v1 as pb;
use xds_proto::google::protobuf::Timestamp;

use crate::admin::Admin;
use crate::drain::Drain;
use crate::metrics::ResponseFlags;
use crate::metrics::edge::{Edge, EdgeKey, Reporter};
use crate::metrics::edges::Edges;

/// Counts of an edge when last reported.
#[derive(Clone, Default)]
struct Before {
    requests: u64,
    failures: u64,
    denied: u64,
    opened: u64,
    closed: u64,
    sent: u64,
    received: u64,
    latency: Vec<u64>,
    flags: Vec<u64>,
}

/// Turns totals into deltas. Deltas that were reported over a broken stream may be lost: these
/// counts are for display, the exact ones are Prometheus metrics.
#[derive(Default)]
pub(super) struct Deltas {
    before: HashMap<EdgeKey, (Weak<Edge>, Before)>,
}

impl Deltas {
    /// Edges on which something happened since the last call.
    pub(super) fn take(&mut self, edges: &Edges) -> Vec<pb::Edge> {
        let all = edges.all();
        // Drops edges that were evicted.
        self.before.retain(|_, (edge, _)| edge.strong_count() > 0);
        all.iter().filter_map(|edge| self.of(edge)).collect()
    }

    fn of(&mut self, edge: &Arc<Edge>) -> Option<pb::Edge> {
        let counts = &edge.counts;
        let now = Before {
            requests: counts.requests.load(Relaxed),
            failures: counts.failures.load(Relaxed),
            denied: counts.denied.load(Relaxed),
            opened: counts.opened.load(Relaxed),
            closed: counts.closed.load(Relaxed),
            sent: counts.bytes_sent.load(Relaxed),
            received: counts.bytes_received.load(Relaxed),
            latency: counts.latency.iter().map(|c| c.load(Relaxed)).collect(),
            flags: counts.flags.iter().map(|c| c.load(Relaxed)).collect(),
        };
        let same = Arc::downgrade(edge);
        let before = self
            .before
            .insert(edge.key.clone(), (same.clone(), now.clone()))
            // Another edge of this key began anew.
            .filter(|(edge, _)| edge.ptr_eq(&same));
        let before = before.map(|(_, before)| before).unwrap_or_default();
        let since = |now: &[u64], before: &[u64]| -> Vec<u64> {
            let before = before.iter().chain(std::iter::repeat(&0));
            let pairs = now.iter().zip(before);
            pairs.map(|(now, old)| now.saturating_sub(*old)).collect()
        };
        let raised = ResponseFlags::all_short_names().zip(since(&now.flags, &before.flags));
        let key = &edge.key;
        let delta = pb::Edge {
            reporter: match key.reporter {
                Reporter::Source => pb::Reporter::Source,
                Reporter::Destination => pb::Reporter::Destination,
            } as i32,
            source_workload: key.source.workload.clone(),
            source_namespace: key.source.namespace.clone(),
            source_identity: key.source.principal.clone(),
            destination_service: key.service.host.clone(),
            destination_namespace: key.destination.namespace.clone(),
            destination_workload: key.destination.workload.clone(),
            destination_identity: key.destination.principal.clone(),
            protocol: key.protocol.label().to_owned(),
            security: if key.mutual_tls { "mutual_tls" } else { "none" }.to_owned(),
            destination_version: key.destination.version.clone(),
            requests: now.requests.saturating_sub(before.requests),
            failures: now.failures.saturating_sub(before.failures),
            denied: now.denied.saturating_sub(before.denied),
            connections_opened: now.opened.saturating_sub(before.opened),
            connections_closed: now.closed.saturating_sub(before.closed),
            bytes_sent: now.sent.saturating_sub(before.sent),
            bytes_received: now.received.saturating_sub(before.received),
            latency: since(&now.latency, &before.latency),
            response_flags: raised
                .filter(|(_, count)| *count > 0)
                .map(|(flag, count)| (flag.to_owned(), count))
                .collect(),
        };
        let counts = [
            delta.requests,
            delta.denied,
            delta.connections_opened,
            delta.connections_closed,
            delta.bytes_sent,
            delta.bytes_received,
        ];
        counts.iter().any(|count| *count > 0).then_some(delta)
    }
}

/// The report itself.
pub(super) fn report(admin: &Admin, drain: &Drain, edges: Vec<pb::Edge>) -> pb::Report {
    let state = admin
        .xds
        .as_ref()
        .map(|xds| xds.state())
        .unwrap_or_default();
    let resources = state.versions.into_iter();
    let resources = resources.map(|(kind, (version, count))| pb::ResourceVersion {
        type_url: kind.type_url().to_owned(),
        version,
        count,
    });
    let identity = admin
        .identity
        .as_ref()
        .map(|status| status.borrow().clone());
    let identity = identity.unwrap_or_default();
    pb::Report {
        resources: resources.collect(),
        config_received: state.last_received.map(timestamp),
        snapshot: admin.store.load().generation,
        certificate_not_after: identity.not_after.map(timestamp),
        certificate_serial: identity.serial,
        rejected: state.rejected.unwrap_or_default(),
        edges,
        draining: !drain.is_healthy(),
    }
}

pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        // Below a thousand million.
        nanos: since.subsec_nanos() as i32,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Registry;
    use crate::metrics::edge::{Peer, RequestProtocol, RequestSample, Service};

    #[test]
    fn flags_are_reported_by_name_and_only_once() {
        let edges = Edges::new(Arc::new(Registry::new().unwrap()));
        let edge = edges.get(EdgeKey {
            reporter: Reporter::Source,
            source: Peer::default(),
            destination: Peer::default(),
            service: Service::default(),
            mutual_tls: true,
            protocol: RequestProtocol::Http,
        });
        let raise = |flags| {
            edge.record(&RequestSample {
                code: 503,
                grpc: -1,
                flags,
                duration: Duration::from_millis(1),
                request_bytes: 0,
                response_bytes: 0,
                denied: false,
            });
        };
        let mut deltas = Deltas::default();
        let mut reported = || {
            let delta = deltas.take(&edges).into_iter().next();
            delta.map(|edge| edge.response_flags).unwrap_or_default()
        };
        raise(ResponseFlags::NONE);
        assert!(reported().is_empty());
        raise(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        raise(ResponseFlags::UPSTREAM_CONNECTION_FAILURE | ResponseFlags::UPSTREAM_OVERFLOW);
        let first = reported();
        assert_eq!((first.len(), first["UF"], first["UO"]), (2, 2, 1));
        edge.tcp_closed(ResponseFlags::UPSTREAM_REMOTE_RESET, false, false);
        let second = reported();
        assert_eq!((second.len(), second["UR"]), (1, 1));
        assert!(reported().is_empty());
    }
}
