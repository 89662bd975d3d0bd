//! Pods with sidecars and pods without.

use std::time::Duration;

use anyam_tests_kube::{Cluster, until};

use crate::mesh;
use crate::shop::Shop;

const TIMEOUT: Duration = Duration::from_secs(60);

pub const STRICT: &str = "
apiVersion: mesh.anyam.dev/v1alpha1
kind: MeshPolicy
metadata: {name: strict}
spec: {mtls: {mode: Strict}}
";

#[tokio::test]
async fn labelled_namespaces_use_mtls_after_a_restart() {
    let cluster = Cluster::shared();
    mesh::install(&cluster);
    let shop = Shop::open(&cluster, true);
    let outside = Shop::open(&cluster, false);
    assert_eq!(shop.containers("web"), ["anyam-init", "anyam-proxy", "app"]);
    assert_eq!(outside.containers("web"), ["app"]);

    shop.answers("http://web/", "web\n").await;
    let metrics = shop.get("http://127.0.0.1:15090/stats/prometheus").stdout;
    let mtls = |line: &&str| {
        line.starts_with("istio_requests_total{")
            && line.contains("destination_service_name=\"web\"")
    };
    let lines: Vec<_> = metrics.lines().filter(mtls).collect();
    assert!(!lines.is_empty(), "{metrics}");

    // Pods without a sidecar are called as they are.
    let url = format!("http://web.{}/", outside.namespace.name);
    shop.answers(&url, "web\n").await;

    // Permissive: callers without a sidecar are served, until the namespace is strict.
    let url = format!("http://web.{}/", shop.namespace.name);
    outside.answers(&url, "web\n").await;
    shop.namespace.apply(STRICT);
    until("plaintext to be refused", TIMEOUT, async || {
        let answer = outside.get(&url);
        match answer.status {
            Some(0) => Err(answer.stdout),
            _ => Ok(()),
        }
    })
    .await;
    let answer = shop.get("http://web/");
    assert!(answer.stdout.ends_with("web\n"), "{answer:?}");
    // Probes of the kubelet have no certificate, and pass.
    shop.namespace.rolled_out("web");
}
