//! A HorizontalPodAutoscaler and metrics-server: pods come and go with the load.

use std::time::Duration;

use anyam_tests_kube::{Cluster, Kubectl, until};
use serde_json::Value;

use crate::shop::{Shop, WEB};

/// Metrics of a pod are some 20 s old, and its first come after as long.
const TIMEOUT: Duration = Duration::from_secs(240);

/// By the app's container alone. Of `type: Resource`, a pod's utilisation is that of all its
/// containers, with the sidecar's request.
const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 4
  metrics:
    - type: ContainerResource
      containerResource: {name: cpu, container: app, target: {type: Utilization, averageUtilization: 100}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 0}
";

fn read(shop: &Shop<'_>, object: &str) -> Value {
    let get = ["get", object, "--output", "json"];
    serde_json::from_str(&shop.namespace.kubectl(&get)).unwrap()
}

async fn reaches(shop: &Shop<'_>, replicas: u64) {
    until(&format!("{replicas} replicas"), TIMEOUT, async || {
        let status = &read(shop, "deployment/web")["status"];
        match status["replicas"] == replicas && status["readyReplicas"] == replicas {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn an_autoscaler_adds_and_removes_pods_without_loss() {
    let cluster = Cluster::shared();
    cluster.install_metrics_server();
    let shop = Shop::in_the_mesh(&cluster).await;
    shop.namespace.apply(AUTOSCALER);
    let load = shop.load(WEB);
    until("the autoscaler to have metrics", TIMEOUT, async || {
        let status = &read(&shop, "hpa/web")["status"];
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let mut active = conditions.filter(|one| one["type"] == "ScalingActive");
        match active.any(|one| one["status"] == "True") {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    })
    .await;
    let work = shop.load("http://web/work?ms=8");
    reaches(&shop, 4).await;
    work.end().lost_nothing();
    reaches(&shop, 2).await;
    load.end().lost_nothing();
}
