//! Pods that end by themselves, and pods that stay out of the mesh.

use std::time::Duration;

use anyam_tests_kube::{APP_IMAGE, Cluster, Kubectl, until};

use crate::mesh;
use crate::shop::Shop;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A Job whose init container calls a service of the mesh, and whose container does.
fn job() -> String {
    let container = |name: &str| {
        format!(
            "{{name: {name}, image: '{APP_IMAGE}', imagePullPolicy: Never, args: [get, 'http://web/']}}"
        )
    };
    format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: report}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      initContainers: [{}]
      containers: [{}]
",
        container("before"),
        container("report")
    )
}

fn opted_out() -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: outside, labels: {{app: outside, mesh.anyam.dev/inject: disabled}}}}
spec:
  containers:
    - name: app
      image: {APP_IMAGE}
      imagePullPolicy: Never
      args: [serve, -name, outside]
      readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: outside}}
spec: {{selector: {{app: outside}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"
    )
}

#[tokio::test]
async fn a_job_uses_the_mesh_and_completes() {
    let cluster = Cluster::shared();
    mesh::install(&cluster);
    let shop = Shop::open(&cluster, true);
    shop.namespace.apply(&job());
    let complete = [
        "wait",
        "--for=condition=Complete",
        "job/report",
        "--timeout=60s",
    ];
    let waited = shop.namespace.try_kubectl(&complete);
    let pods = || {
        shop.namespace
            .kubectl(&["describe", "pods", "--selector", "job-name=report"])
    };
    assert_eq!(waited.status, Some(0), "{waited:?}\n{}", pods());
    let logs = ["logs", "job/report", "--container", "report"];
    assert!(shop.namespace.kubectl(&logs).ends_with("web\n"));
    let sidecar =
        "jsonpath={.items[0].spec.initContainers[?(@.name=='anyam-proxy')].restartPolicy}";
    let get = [
        "get",
        "pods",
        "--selector",
        "job-name=report",
        "--output",
        sidecar,
    ];
    assert_eq!(shop.namespace.kubectl(&get), "Always");
}

#[tokio::test]
async fn a_pod_that_opts_out_has_no_sidecar_and_is_reached() {
    let cluster = Cluster::shared();
    mesh::install(&cluster);
    let shop = Shop::open(&cluster, true);
    shop.namespace.apply(&opted_out());
    let ready = [
        "wait",
        "--for=condition=Ready",
        "pod/outside",
        "--timeout=60s",
    ];
    shop.namespace.kubectl(&ready);
    assert_eq!(shop.containers("outside"), ["app"]);
    until("an answer of the pod outside", TIMEOUT, async || {
        let answer = shop.get("http://outside/");
        match answer.stdout.ends_with("outside\n") {
            true => Ok(()),
            false => Err(format!("{answer:?}")),
        }
    })
    .await;
    let calls = ["exec", "pod/outside", "--", "/app", "get", "http://web/"];
    let answer = shop.namespace.kubectl(&calls);
    assert!(answer.ends_with("web\n"), "{answer}");
}
