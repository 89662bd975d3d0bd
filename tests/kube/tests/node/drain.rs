//! A node is drained under load, as for its maintenance.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyam_tests_kube::{Cluster, Kubectl, until};

use crate::mesh;
use crate::shop::{Shop, WEB};

const TIMEOUT: Duration = Duration::from_secs(60);

const BUDGET: &str = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
";

/// A node that accepts pods again when the test ends, however it ends.
struct Cordoned<'a>(&'a Cluster, &'a str);

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        self.0.try_kubectl(&["uncordon", self.1]);
    }
}

/// Evicts the pods of a selector from a node. On a cluster's only node, replacements wait until it is
/// uncordoned, which is done once a budget forbids to evict more.
fn drain(cluster: &Cluster, node: &str, selector: &str) {
    let cordoned = Cordoned(cluster, node);
    let selector = format!("--pod-selector={selector}");
    let arguments = [
        "drain",
        node,
        &selector,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=120s",
    ];
    let mut command = cluster.kubectl_command(&arguments);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut waits = Some(cordoned);
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("violate the pod's disruption budget") {
            drop(waits.take());
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(child.wait().unwrap().success(), "{said}");
}

/// Drains each node that has such pods, and returns the pods' names.
fn evict(cluster: &Cluster, selector: &str) -> BTreeSet<String> {
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{'\\n'}{end}";
    let get = [
        "get",
        "pods",
        "--all-namespaces",
        "--selector",
        selector,
        "--output",
        columns,
    ];
    let text = cluster.kubectl(&get);
    let pods: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    assert!(pods.len() >= 2, "{selector}: {text}");
    for node in pods.iter().map(|(_, node)| *node).collect::<BTreeSet<_>>() {
        drain(cluster, node, selector);
    }
    pods.into_iter().map(|(pod, _)| pod.to_owned()).collect()
}

#[tokio::test]
async fn a_drained_node_loses_no_request() {
    let cluster = Cluster::alone();
    let shop = Shop::in_the_mesh(&cluster).await;
    shop.namespace.apply(BUDGET);
    until("the budget to be counted", TIMEOUT, async || {
        let allowed = "--output=jsonpath={.status.disruptionsAllowed}";
        match &*shop.namespace.kubectl(&["get", "pdb/web", allowed]) {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let load = shop.load(WEB);
    let evicted = evict(&cluster, &format!("app=web,shop={}", shop.namespace.name));
    shop.namespace.rolled_out("web");
    let pods = shop.pod_names("web");
    assert!(pods.iter().all(|pod| !evicted.contains(pod)), "{pods:?}");
    // The control plane has a budget by the chart.
    evict(&cluster, "app.kubernetes.io/name=anyam-control");
    mesh::rolled_out(&cluster);
    load.end().lost_nothing();
}
