//! The API server: its version, the APIs that it serves, and whether it takes part in aggregation.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Cluster, ClusterError, items, text};
use super::{PreCheck, version_of};

/// The oldest Kubernetes that the chart is for (`kubeVersion` in Chart.yaml).
const OLDEST: (u32, u32) = (1, 30);
/// The oldest kubelet that runs native sidecars without a feature gate.
const OLDEST_KUBELET: (u32, u32) = (1, 29);
/// APIs that the chart's objects and the control plane's calls are of.
const APIS: [&str; 9] = [
    "admissionregistration.k8s.io/v1",
    "apiextensions.k8s.io/v1",
    "apiregistration.k8s.io/v1",
    "apps/v1",
    "authentication.k8s.io/v1",
    "authorization.k8s.io/v1",
    "coordination.k8s.io/v1",
    "discovery.k8s.io/v1",
    "rbac.authorization.k8s.io/v1",
];
/// Where API servers publish the authority of their own client certificate.
const AUTHENTICATION: &str =
    "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

pub async fn version(cluster: &Cluster) -> Result<Vec<PreCheck>, ClusterError> {
    let found: Value = cluster.read("/version").await?;
    let version = text(&found, "/gitVersion");
    Ok(vec![
        PreCheck::ok(format!("API server: {}", cluster.place())),
        judged(version),
    ])
}

fn judged(version: &str) -> PreCheck {
    let (major, minor) = OLDEST;
    match version_of(version) {
        Some(found) if found >= OLDEST => PreCheck::ok(format!("Kubernetes {version}")),
        Some(_) => PreCheck::error(
            format!("Kubernetes {version} is too old: {major}.{minor} is the oldest"),
            "upgrade the cluster",
        ),
        None => PreCheck::warning(
            format!("Kubernetes says it is version `{version}`, which is none that is known"),
            format!("see that it is {major}.{minor} or later"),
        ),
    }
}

/// Whether all APIs are served, that of webhooks among them.
pub async fn served(cluster: &Cluster) -> Vec<PreCheck> {
    let groups: Value = match cluster.read("/apis").await {
        Ok(groups) => groups,
        Err(error) => return vec![PreCheck::unread("the APIs that are served", &error)],
    };
    let versions = items(&groups, "/groups").iter();
    let versions = versions.flat_map(|group| items(group, "/versions"));
    let served: BTreeSet<&str> = versions.map(|it| text(it, "/groupVersion")).collect();
    let missing: Vec<_> = APIS.iter().filter(|api| !served.contains(**api)).collect();
    if missing.is_empty() {
        let what = format!(
            "APIs: {} are served, webhooks and aggregation among them",
            APIS.len()
        );
        return vec![PreCheck::ok(what)];
    }
    let error = |api: &&&str| {
        let what = format!("the API {api} is not served");
        PreCheck::error(what, "enable it (--runtime-config of kube-apiserver)")
    };
    missing.iter().map(error).collect()
}

/// Whether the API server shows who it is to aggregated APIs: else none of their calls is accepted.
pub async fn aggregation(cluster: &Cluster) -> PreCheck {
    const SUBJECT: &str =
        "aggregation layer (ConfigMap kube-system/extension-apiserver-authentication)";
    let todo = "start kube-apiserver with --requestheader-client-ca-file, --requestheader-username-headers, \
                --proxy-client-cert-file and --proxy-client-key-file; until then `anyam` cannot look into the mesh";
    match cluster.find::<Value>(AUTHENTICATION).await {
        Ok(Some(found)) if !text(&found, "/data/requestheader-client-ca-file").is_empty() => {
            PreCheck::ok("aggregation layer: enabled")
        }
        Ok(_) => PreCheck::error(
            format!("{SUBJECT}: the API server has no client certificate for aggregated APIs"),
            todo,
        ),
        Err(error) => PreCheck::unread(SUBJECT, &error),
    }
}

fn kubelet(node: &Value) -> &str {
    text(node, "/status/nodeInfo/kubeletVersion")
}

/// Whether the kubelets run native sidecars.
pub async fn nodes(cluster: &Cluster) -> PreCheck {
    let nodes: Value = match cluster.read("/api/v1/nodes?limit=1000").await {
        Ok(nodes) => nodes,
        Err(error) => return PreCheck::unread("nodes", &error),
    };
    let (all, (major, minor)) = (items(&nodes, "/items"), OLDEST_KUBELET);
    let old: Vec<_> = all
        .iter()
        .filter(|node| version_of(kubelet(node)).is_some_and(|it| it < OLDEST_KUBELET))
        .map(|node| format!("{} ({})", text(node, "/metadata/name"), kubelet(node)))
        .take(5)
        .collect();
    match (old.is_empty(), all.is_empty()) {
        (true, true) => PreCheck::warning(
            "nodes: there are none, so nothing of the mesh would run",
            "add one",
        ),
        (true, false) => PreCheck::ok(format!(
            "nodes: {}, all of which run native sidecars",
            all.len()
        )),
        (false, _) => PreCheck::error(
            format!(
                "nodes: kubelets before {major}.{minor} run no native sidecars: {}",
                old.join(", ")
            ),
            "upgrade them, or set injection.proxy.sidecar=classic in the chart's values",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn the_oldest_version_is_the_charts() {
        let chart = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../deploy/helm/anyam/Chart.yaml"
        );
        let chart = std::fs::read_to_string(chart).unwrap();
        let (major, minor) = OLDEST;
        let expected = format!("kubeVersion: \">={major}.{minor}.0-0\"");
        assert!(chart.contains(&expected), "{chart}");
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kubernetes.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        assert!(docs.contains(&format!("Kubernetes {major}.{minor} or later")));
    }

    #[test]
    fn versions_are_judged() {
        for (version, expected) in [
            ("v1.34.4", Level::Ok),
            ("v1.30.0", Level::Ok),
            ("v1.29.9", Level::Error),
            ("v2.0.0", Level::Ok),
            ("nightly", Level::Warning),
        ] {
            assert_eq!(judged(version).level, expected, "{version}");
        }
    }
}
