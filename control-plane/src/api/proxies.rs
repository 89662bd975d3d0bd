//! The connected proxies and what each runs, joined from ADS streams and Inspect reports.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use time::OffsetDateTime;

use super::clock::{rfc3339, unix, wall};
use super::declared::DeclaredWorkload;
use crate::ads::registry::Stream;
use crate::ads::subscription::{ProtocolVariant, label};
use crate::inspect::agents::AgentStatus;
use crate::types::{Proxy, ProxyResources, Rejection};

/// One row per node: a proxy that reconnects may have two streams for a moment, the newest counts.
pub fn proxies(
    mut streams: Vec<Stream>,
    mut agents: Vec<AgentStatus>,
    workloads: &[DeclaredWorkload],
    now: Instant,
) -> Vec<Proxy> {
    let mut rows: BTreeMap<(String, String, String), Proxy> = BTreeMap::new();
    streams.sort_by_key(|stream| stream.since);
    agents.sort_by_key(|agent| agent.since);
    for stream in &streams {
        let row = of_stream(stream, now);
        rows.insert(
            (
                row.namespace.clone(),
                row.workload.clone(),
                row.node.clone(),
            ),
            row,
        );
    }
    for agent in &agents {
        let scope = &agent.node.scope;
        let key = (
            scope.namespace.clone(),
            scope.workload.clone(),
            agent.node.id.clone(),
        );
        let row = rows.entry(key).or_insert_with(|| Proxy {
            node: agent.node.id.clone(),
            namespace: scope.namespace.clone(),
            workload: scope.workload.clone(),
            address: agent.node.address.clone(),
            connected_since: rfc3339(wall(agent.since)),
            connected_seconds: now.saturating_duration_since(agent.since).as_secs(),
            ..Proxy::default()
        });
        add_report(row, agent);
    }
    let services: HashMap<(&str, &str), &Vec<String>> = workloads
        .iter()
        .map(|one| ((&*one.namespace, &*one.name), &one.services))
        .collect();
    for ((namespace, workload, _), row) in &mut rows {
        if let Some(services) = services.get(&(&**namespace, &**workload)) {
            row.services.clone_from(services);
        }
    }
    rows.into_values().collect()
}

/// The rows of several replicas: a node's ADS stream and its Inspect stream may be at different ones.
pub fn merged(all: impl IntoIterator<Item = Proxy>) -> Vec<Proxy> {
    let mut rows: BTreeMap<(String, String, String), Proxy> = BTreeMap::new();
    for row in all {
        let key = (
            row.namespace.clone(),
            row.workload.clone(),
            row.node.clone(),
        );
        let merged = match rows.remove(&key) {
            Some(known) => join(known, row),
            None => row,
        };
        rows.insert(key, merged);
    }
    rows.into_values().collect()
}

/// The one with the newest ADS stream, and what the other one knows beside it.
fn join(a: Proxy, b: Proxy) -> Proxy {
    let age = |row: &Proxy| (row.protocol.is_none(), row.connected_seconds);
    let (mut row, other) = if age(&a) <= age(&b) { (a, b) } else { (b, a) };
    row.draining |= other.draining;
    if row.rejected.is_none() {
        row.rejected = other.rejected;
    }
    if row.software.is_empty() {
        row.software = other.software;
    }
    // The proxy's own report is newer than its stream's first request.
    if other.inspectable && !row.inspectable {
        row.inspectable = true;
        let not_after = other.certificate_not_after;
        row.certificate_not_after = not_after.or(row.certificate_not_after);
        let left = other.certificate_expires_in_seconds;
        row.certificate_expires_in_seconds = left.or(row.certificate_expires_in_seconds);
        row.certificate_serial = other.certificate_serial.or(row.certificate_serial);
    }
    row
}

fn of_stream(stream: &Stream, now: Instant) -> Proxy {
    let scope = &stream.node.scope;
    let resources = stream.kinds.iter().map(|kind| ProxyResources {
        kind: label(&kind.type_url).to_owned(),
        sent_version: kind.sent_version.clone(),
        accepted_version: kind.accepted_version.clone(),
        count: kind.count as u64,
        subscribed_to_all: kind.all,
    });
    let rejected = stream
        .kinds
        .iter()
        .filter_map(|kind| Some((kind, kind.rejected.as_ref()?)));
    let rejected = rejected.max_by_key(|(_, rejected)| rejected.at);
    let newest = stream
        .kinds
        .iter()
        .filter_map(|kind| kind.accepted_at)
        .max();
    let mut row = Proxy {
        node: stream.node.id.clone(),
        namespace: scope.namespace.clone(),
        workload: scope.workload.clone(),
        address: stream.node.address.clone(),
        identity: stream
            .verified
            .as_ref()
            .map(|peer| peer.identity.to_string()),
        software: stream.node.software.clone(),
        protocol: Some(match stream.protocol {
            ProtocolVariant::Delta => "delta".into(),
            ProtocolVariant::Sotw => "sotw".into(),
        }),
        connected_since: rfc3339(wall(stream.since)),
        connected_seconds: now.saturating_duration_since(stream.since).as_secs(),
        synced: stream.kinds.iter().all(|kind| kind.synced),
        config_age_seconds: newest.map(|at| now.saturating_duration_since(at).as_secs()),
        resources: resources.collect(),
        rejected: rejected.map(|(kind, rejected)| Rejection {
            kind: label(&kind.type_url).to_owned(),
            version: rejected.version.clone(),
            message: rejected.message.clone(),
            at: rfc3339(wall(rejected.at)),
            seconds_ago: now.saturating_duration_since(rejected.at).as_secs(),
        }),
        ..Proxy::default()
    };
    if let Some(peer) = &stream.verified {
        expires(&mut row, peer.not_after);
        row.certificate_serial = Some(peer.serial.clone());
    }
    row
}

fn expires(row: &mut Proxy, not_after: i64) {
    let Some(at) = unix(not_after, 0) else { return };
    row.certificate_not_after = Some(rfc3339(at));
    let now = OffsetDateTime::now_utc().unix_timestamp();
    row.certificate_expires_in_seconds = Some(not_after.saturating_sub(now));
}

/// The proxy's own report is newer than its stream's first request.
fn add_report(row: &mut Proxy, agent: &AgentStatus) {
    row.inspectable = true;
    if row.software.is_empty() {
        row.software = format!("anyam-proxy {}", agent.version).trim().to_owned();
    }
    let Some((report, at)) = &agent.report else {
        return;
    };
    row.draining = report.draining;
    if let Some(not_after) = &report.certificate_not_after {
        expires(row, not_after.seconds);
    }
    if !report.certificate_serial.is_empty() {
        let serial = &report.certificate_serial;
        row.certificate_serial = Some(crate::text::bounded(serial));
    }
    if row.rejected.is_none() && !report.rejected.is_empty() {
        row.rejected = Some(Rejection {
            message: report.rejected.clone(),
            at: rfc3339(wall(*at)),
            seconds_ago: at.elapsed().as_secs(),
            ..Rejection::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_at_different_replicas_are_one_row() {
        let row = |node: &str| Proxy {
            node: node.into(),
            namespace: "shop".into(),
            workload: "web-0".into(),
            ..Proxy::default()
        };
        let ads = Proxy {
            protocol: Some("delta".into()),
            synced: true,
            connected_seconds: 50,
            certificate_serial: Some("old".into()),
            ..row("a")
        };
        let inspect = Proxy {
            inspectable: true,
            connected_seconds: 2,
            certificate_serial: Some("new".into()),
            ..row("a")
        };
        for both in [[ads.clone(), inspect.clone()], [inspect, ads.clone()]] {
            let rows = merged(both.into_iter().chain([row("b")]));
            assert_eq!(rows.len(), 2);
            let joined = &rows[0];
            assert!(joined.synced && joined.inspectable, "{joined:?}");
            assert_eq!(joined.connected_seconds, 50);
            assert_eq!(joined.certificate_serial.as_deref(), Some("new"));
        }
        // A proxy that has moved from one replica to another.
        let moved = Proxy {
            connected_seconds: 1,
            synced: false,
            ..ads.clone()
        };
        assert!(!merged([ads, moved])[0].synced);
    }
}
