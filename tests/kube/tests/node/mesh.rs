//! The mesh, installed by the chart.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyam_tests_kube::{Cluster, Helm, HelmVersion, Kubectl, until};

const TIMEOUT: Duration = Duration::from_secs(60);
pub const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
pub const NAMESPACE: &str = "anyam-system";
/// The tag of the images in `target/images/next`, to which the mesh is upgraded.
pub const NEXT: &str = "next";

static INSTALLED: Mutex<bool> = Mutex::new(false);

/// Installs it, unless a test of this process did, and waits until its pods are ready.
///
/// # Panics
/// When an image or the chart is refused, or pods are not ready within 2 minutes.
pub fn install(cluster: &Cluster) {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return;
    }
    for image in ["proxy", "control"] {
        cluster.load(&format!("{TREE}/target/images/{image}.tar"));
        cluster.load(&format!("{TREE}/target/images/{NEXT}/{image}.tar"));
    }
    let values = "image.registry=localhost,networkPolicy.enabled=true";
    helm(
        cluster,
        "upgrade",
        &["--install", "--create-namespace", "--set", values],
    );
    *installed = true;
}

/// A test has uninstalled it: the next one that needs it installs it again.
pub fn uninstalled() {
    *INSTALLED.lock().unwrap_or_else(PoisonError::into_inner) = false;
}

/// Runs Helm 4 on the release, and waits until its pods are ready.
///
/// # Panics
/// When it fails, or takes more than 2 minutes.
pub fn helm(cluster: &Cluster, verb: &str, more: &[&str]) {
    let mut all = more.to_vec();
    all.extend(["--wait", "--timeout", "120s"]);
    let output = Helm::new(HelmVersion::V4).release(cluster.kubeconfig(), verb, &all);
    assert_eq!(output.status, Some(0), "{verb} {more:?}: {output:?}");
}

/// kubectl in the control plane's namespace.
///
/// # Panics
/// When it fails.
pub fn kubectl(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut all = vec!["--namespace", NAMESPACE];
    all.extend(arguments);
    cluster.kubectl(&all)
}

/// Waits until the control plane consists of new pods that are all ready.
///
/// # Panics
/// When that takes more than 2 minutes.
pub fn rolled_out(cluster: &Cluster) {
    let deployment = "deployment/anyam-control";
    kubectl(
        cluster,
        &["rollout", "status", deployment, "--timeout=120s"],
    );
}

/// Waits until no replica is left that ends. One serves on for some seconds, and the API server may ask
/// it for the sidecars of new pods.
///
/// # Panics
/// When that takes more than a minute.
pub async fn old_replicas_ended(cluster: &Cluster) {
    until("the old replicas to end", TIMEOUT, async || {
        let deleted = "--output=jsonpath={.items[*].metadata.deletionTimestamp}";
        let selector = "--selector=app.kubernetes.io/name=anyam-control";
        match &*kubectl(cluster, &["get", "pods", selector, deleted]) {
            "" => Ok(()),
            some => Err(some.to_owned()),
        }
    })
    .await;
}
