//! Restarts under load lose no request.

use std::time::Duration;

use anyam_tests_kube::{Cluster, Kubectl, until};

use crate::mesh;
use crate::shop::{Load, Shop};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A shop in the mesh whose client is answered.
async fn serving(cluster: &Cluster) -> Shop<'_> {
    mesh::install(cluster);
    let shop = Shop::open(cluster, true);
    until("web to answer", TIMEOUT, async || {
        let answer = shop.get("http://web/");
        (answer.status == Some(0))
            .then_some(())
            .ok_or(format!("{answer:?}"))
    })
    .await;
    shop
}

fn lost_nothing(load: Load) {
    let tally = load.end();
    assert_eq!(tally.failed, 0, "{}", tally.reasons);
    assert!(tally.answered > 100, "{} were answered", tally.answered);
}

#[tokio::test]
async fn a_rolling_update_loses_no_request() {
    let cluster = Cluster::shared();
    let shop = serving(&cluster).await;
    let load = shop.load("http://web/");
    for _ in 0..2 {
        shop.namespace
            .kubectl(&["rollout", "restart", "deployment/web"]);
        shop.namespace.rolled_out("web");
    }
    lost_nothing(load);
}

#[tokio::test]
async fn pods_that_come_and_go_lose_no_request() {
    let cluster = Cluster::shared();
    let shop = serving(&cluster).await;
    let load = shop.load("http://web/");
    for replicas in ["4", "1", "2"] {
        let scale = ["scale", "deployment/web", "--replicas", replicas];
        shop.namespace.kubectl(&scale);
        shop.namespace.rolled_out("web");
    }
    let one = "jsonpath={.items[0].metadata.name}";
    let pods = ["get", "pods", "--selector", "app=web", "--output", one];
    let name = shop.namespace.kubectl(&pods);
    shop.namespace.kubectl(&["delete", "pod", &name, "--wait"]);
    shop.namespace.rolled_out("web");
    lost_nothing(load);
}

#[tokio::test]
async fn traffic_continues_without_the_control_plane() {
    let cluster = Cluster::alone();
    mesh::install(&cluster);
    let shop = Shop::open(&cluster, true);
    let load = shop.load("http://web/");
    let system = |arguments: &[&str]| {
        let mut all = vec!["--namespace", mesh::NAMESPACE];
        all.extend(arguments);
        cluster.kubectl(&all)
    };
    system(&["rollout", "restart", "deployment/anyam-control"]);
    let done = [
        "rollout",
        "status",
        "deployment/anyam-control",
        "--timeout=120s",
    ];
    system(&done);
    lost_nothing(load);
}
