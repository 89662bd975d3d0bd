//! What is wrong with this mesh, and what to do about it.

use std::collections::HashSet;

use super::declared::DeclaredWorkload;
use crate::types::{Check, Edges, FileError, Finding, Objects, Proxies, Severity};

/// A certificate this close to its end was not renewed at half-life, and not since.
const SOON: i64 = 3600;
const ROOT_SOON: i64 = 30 * 24 * 3600;
/// Below this many requests a share is not significant.
const ENOUGH: u64 = 20;

/// Everything a check looks at.
pub struct Facts<'a> {
    pub objects: &'a Objects,
    pub findings: Vec<Finding>,
    pub workloads: &'a [DeclaredWorkload],
    pub proxies: &'a Proxies,
    pub edges: &'a Edges,
    /// In seconds; `None`: it is not looked at.
    pub root_expires_in: Option<i64>,
    pub unreachable_replicas: Vec<String>,
}

fn finding(
    severity: Severity,
    what: impl Into<String>,
    location: impl Into<String>,
    todo: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        what: what.into(),
        location: location.into(),
        todo: todo.into(),
        namespace: String::new(),
    }
}

pub fn check(facts: Facts<'_>) -> Check {
    let Facts {
        objects,
        mut findings,
        workloads,
        proxies,
        edges,
        root_expires_in,
        unreachable_replicas,
    } = facts;
    manifests(objects, &mut findings);
    match &unreachable_replicas[..] {
        [] => connections(workloads, proxies, &mut findings),
        unreachable => replicas(unreachable, &mut findings),
    }
    configuration(proxies, &mut findings);
    traffic(edges, &mut findings);
    if let Some(left) = root_expires_in.filter(|left| *left < ROOT_SOON) {
        findings.push(finding(
            Severity::Warning,
            format!("the mesh's root certificate ends in {} days", left / 86400),
            "<state-dir>/ca/root.crt",
            "rotate the root before it ends",
        ));
    }
    findings.sort_by(|a, b| (a.severity, &a.location).cmp(&(b.severity, &b.location)));
    let count = |number: usize, what: &str| format!("{number} {what}");
    let mut checked = vec![
        count(objects.objects.len(), "objects"),
        count(workloads.len(), "workloads"),
        count(proxies.proxies.len(), "proxies"),
        count(edges.edges.len(), "edges"),
    ];
    checked.extend(root_expires_in.map(|_| "root certificate".to_owned()));
    Check {
        findings,
        checked,
        unreachable_replicas,
    }
}

fn manifests(objects: &Objects, findings: &mut Vec<Finding>) {
    for FileError {
        file,
        line,
        field,
        message,
        namespace: _,
    } in &objects.file_errors
    {
        let place = match (line, &**field) {
            (0, "") => file.clone(),
            (0, field) => format!("{file}: {field}"),
            (line, "") => format!("{file}:{line}"),
            (line, field) => format!("{file}:{line}: {field}"),
        };
        let todo = "correct the file; its last valid version stays in service until then";
        findings.push(finding(Severity::Error, message.clone(), place, todo));
    }
    for object in &objects.objects {
        for condition in object
            .conditions
            .iter()
            .filter(|condition| !condition.status)
        {
            let name = format!("{} {}/{}", object.kind, object.namespace, object.name);
            let what = format!(
                "{name}: {} ({} is False: {})",
                condition.message, condition.kind, condition.reason
            );
            let todo = "change the object so that the condition holds";
            findings.push(finding(Severity::Warning, what, object.file.clone(), todo));
        }
    }
}

/// Whether all sidecars are connected is not known then.
fn replicas(unreachable: &[String], findings: &mut Vec<Finding>) {
    for replica in unreachable {
        let what = format!(
            "a replica of the control plane did not answer ({replica}): its proxies and their traffic are missing here"
        );
        let todo = "see whether its pod runs, and whether a NetworkPolicy lets replicas reach port 15444 of each other";
        findings.push(finding(Severity::Warning, what, replica.clone(), todo));
    }
}

fn connections(workloads: &[DeclaredWorkload], proxies: &Proxies, findings: &mut Vec<Finding>) {
    let connected: HashSet<(&str, &str)> = proxies
        .proxies
        .iter()
        .map(|proxy| (&*proxy.namespace, &*proxy.workload))
        .collect();
    let expected = workloads.iter().filter(|workload| workload.sidecar);
    for workload in expected.filter(|one| !connected.contains(&(&*one.namespace, &*one.name))) {
        findings.push(finding(
            Severity::Warning,
            format!(
                "no proxy of Workload {}/{} is connected",
                workload.namespace, workload.name
            ),
            workload.file.clone(),
            "start its sidecar, or say `sidecar: false` if it has none",
        ));
    }
}

fn configuration(proxies: &Proxies, findings: &mut Vec<Finding>) {
    for proxy in &proxies.proxies {
        let place = format!("proxy of {}/{}", proxy.namespace, proxy.workload);
        if let Some(rejected) = &proxy.rejected {
            findings.push(finding(
                Severity::Error,
                format!("it rejected {}: {}", rejected.kind, rejected.message),
                place.clone(),
                "change the object the message points at; the last valid configuration stays in force",
            ));
        }
        match proxy.certificate_expires_in_seconds {
            Some(left) if left <= 0 => findings.push(finding(
                Severity::Error,
                "its certificate has ended",
                place,
                "see the proxy's log for why renewal fails; give it a new join token",
            )),
            // Short-lived ones are always close to their end; those that renew are not stuck.
            Some(left) if left < SOON && proxy.connected_seconds > 12 * 3600 => {
                findings.push(finding(
                    Severity::Warning,
                    format!(
                        "its certificate ends in {} minutes and was not renewed",
                        left / 60
                    ),
                    place,
                    "see the proxy's log for why renewal fails",
                ));
            }
            _ => {}
        }
    }
}

fn traffic(edges: &Edges, findings: &mut Vec<Finding>) {
    for edge in &edges.edges {
        let place = format!(
            "{}/{} → {}/{}",
            edge.source_namespace,
            edge.source_workload,
            edge.destination_namespace,
            edge.destination_service
        );
        let signals = &edge.signals;
        if signals.denied > 0 {
            findings.push(finding(
                Severity::Info,
                format!("{} requests were denied by authorisation", signals.denied),
                place.clone(),
                "if it should be allowed, add a rule to an AuthorizationPolicy; `anyam explain` shows which decided",
            ));
        }
        if signals.requests >= ENOUGH && signals.failures.saturating_mul(20) > signals.requests {
            findings.push(finding(
                Severity::Warning,
                format!(
                    "{} of {} requests failed",
                    signals.failures, signals.requests
                ),
                place.clone(),
                "`anyam tap` shows them live with who ended each and why",
            ));
        }
        if !edge.mtls && (signals.requests > 0 || signals.connections_opened > 0) {
            findings.push(finding(
                Severity::Warning,
                "traffic without mutual TLS",
                place,
                "give both ends a sidecar, or set the MeshPolicy's mode to strict to refuse it",
            ));
        }
    }
    if edges.dropped > 0 {
        findings.push(finding(
            Severity::Info,
            format!("{} edges are not shown", edges.dropped),
            "live graph",
            "more pairs of workloads talk than are kept; read the rest from Prometheus",
        ));
    }
}
