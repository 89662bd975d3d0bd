//! A StatefulSet with a headless Service: its pods have names.

use std::time::Duration;

use anyam_tests_kube::{APP_IMAGE, Cluster, Kubectl, until};

use crate::join::STRICT;
use crate::shop::{Shop, opted_out};

const TIMEOUT: Duration = Duration::from_secs(60);

/// `db-0` and `db-1`; each answers its own name.
fn database() -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      containers:
        - name: app
          image: {APP_IMAGE}
          imagePullPolicy: Never
          args: [serve]
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
          # A connection to a pod cannot be sent to another one: it serves until no caller dials it.
          lifecycle: {{preStop: {{sleep: {{seconds: 5}}}}}}
"
    )
}

#[tokio::test]
async fn pods_of_a_stateful_set_are_reached_by_name_with_mtls() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    shop.namespace.apply(&[&*database(), &opted_out()].concat());
    shop.namespace.rolled_out("statefulset/db");
    shop.namespace.apply(STRICT);
    let namespace = &shop.namespace.name;
    let ready = [
        "wait",
        "--for=condition=Ready",
        "pod/outside",
        "--timeout=60s",
    ];
    shop.namespace.kubectl(&ready);
    let by_name = async || {
        for pod in ["db-0", "db-1"] {
            for domain in [
                "",
                ".NAMESPACE",
                ".NAMESPACE.svc",
                ".NAMESPACE.svc.cluster.local",
            ] {
                let domain = domain.replace("NAMESPACE", namespace);
                let url = format!("http://{pod}.db{domain}:8080/");
                shop.answers(&url, &format!("\n{pod}\n")).await;
            }
        }
    };
    by_name().await;
    let url = format!("http://db-0.db.{namespace}.svc:8080/");
    until("plaintext to be refused", TIMEOUT, async || {
        let answer = shop.get_from("pod/outside", &url);
        match answer.status {
            Some(0) => Err(answer.stdout),
            _ => Ok(()),
        }
    })
    .await;

    // By the Service's name there is always a pod; by a pod's there is none while it is replaced.
    let all = format!("http://db.{namespace}.svc:8080/");
    let load = shop.load(&all);
    shop.namespace.restart("statefulset/db");
    load.end().lost_nothing();
    by_name().await;
}
