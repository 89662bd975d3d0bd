//! Pods that end by themselves, and pods that stay out of the mesh.

use std::time::Duration;

use anyam_tests_kube::{APP_IMAGE, Cluster, Kubectl, until};

use serde_json::Value;

use crate::mesh;
use crate::shop::{Shop, opted_out};

/// More than a minute, which may have to pass until a CronJob is due.
const TIMEOUT: Duration = Duration::from_secs(180);

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

/// The same every minute.
fn cron_job() -> String {
    let job = job();
    let (_, spec) = job.split_once("spec:\n").unwrap();
    let spec: String = spec.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "
apiVersion: batch/v1
kind: CronJob
metadata: {{name: report}}
spec:
  schedule: '* * * * *'
  jobTemplate:
    metadata: {{labels: {{job: report}}}}
    spec:
{spec}"
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
        "--timeout=120s",
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
async fn a_cron_job_uses_the_mesh_and_completes() {
    let cluster = Cluster::shared();
    mesh::install(&cluster);
    let shop = Shop::open(&cluster, true);
    shop.namespace.apply(&cron_job());
    let name = until("a job to complete", TIMEOUT, async || {
        let get = [
            "get",
            "jobs",
            "--selector",
            "job=report",
            "--output",
            "json",
        ];
        let jobs: Value = serde_json::from_str(&shop.namespace.kubectl(&get)).unwrap();
        let mut all = jobs["items"].as_array().unwrap().iter();
        match all.find(|job| job["status"]["succeeded"] == 1) {
            Some(job) => Ok(job["metadata"]["name"].as_str().unwrap().to_owned()),
            None => Err(jobs.to_string()),
        }
    })
    .await;
    let logs = ["logs", &format!("job/{name}"), "--container", "report"];
    assert!(shop.namespace.kubectl(&logs).ends_with("web\n"));
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
    shop.answers("http://outside/", "outside\n").await;
    let calls = ["exec", "pod/outside", "--", "/app", "get", "http://web/"];
    let answer = shop.namespace.kubectl(&calls);
    assert!(answer.ends_with("web\n"), "{answer}");
}
