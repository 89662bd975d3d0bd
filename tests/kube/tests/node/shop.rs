//! An app of two: `web` with two replicas and a Service, and `client`, which calls it.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyam_tests_kube::{APP_IMAGE, Cluster, Kubectl, Namespace, Output, until};

use crate::mesh;

const TIMEOUT: Duration = Duration::from_secs(60);
pub const WEB: &str = "http://web/";

/// In a namespace of its own.
pub struct Shop<'a> {
    pub namespace: Namespace<'a>,
}

/// The result of a run of `app load`.
#[derive(Debug)]
pub struct Tally {
    pub answered: u64,
    /// Answers by the name of the pod that gave them.
    pub by: BTreeMap<String, u64>,
    pub failed: u64,
    /// Messages of failures, with their counts.
    pub reasons: String,
}

/// `app load` in a pod, until it is ended.
pub struct Load(Child);

impl<'a> Shop<'a> {
    /// `injected`: whether its namespace has the label by which pods get sidecars.
    ///
    /// # Panics
    /// When its pods are not ready within 2 minutes.
    pub fn open(cluster: &'a Cluster, injected: bool) -> Self {
        Self::open_in(cluster, cluster.namespace("shop"), injected)
    }

    /// # Panics
    /// As [`Self::open`].
    pub fn open_in(cluster: &Cluster, namespace: Namespace<'a>, injected: bool) -> Self {
        if injected {
            let label = "mesh.anyam.dev/inject=enabled";
            cluster.kubectl(&["label", "namespace", &namespace.name, label]);
        }
        namespace.apply(&manifest(&namespace.name));
        let shop = Shop { namespace };
        for deployment in ["web", "client"] {
            shop.namespace.rolled_out(deployment);
        }
        shop
    }

    /// Installs the mesh, opens a shop in it, and waits until its client is answered.
    ///
    /// # Panics
    /// When that takes minutes.
    pub async fn in_the_mesh(cluster: &'a Cluster) -> Self {
        mesh::install(cluster);
        let shop = Shop::open(cluster, true);
        shop.answers(WEB, "web\n").await;
        shop
    }

    /// Waits until a URL's answer ends so.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub async fn answers(&self, url: &str, end: &str) {
        until(url, TIMEOUT, async || {
            let answer = self.get(url);
            match answer.status == Some(0) && answer.stdout.ends_with(end) {
                true => Ok(()),
                false => Err(format!("{answer:?}")),
            }
        })
        .await;
    }

    /// One GET from the client's app.
    pub fn get(&self, url: &str) -> Output {
        self.get_from("deployment/client", url)
    }

    /// One GET from the app of a pod.
    pub fn get_from(&self, target: &str, url: &str) -> Output {
        self.namespace.exec(target, "app", &["/app", "get", url])
    }

    /// Names of the containers, init containers first, of one of a Deployment's pods.
    pub fn containers(&self, deployment: &str) -> Vec<String> {
        let path = "jsonpath={.items[0].spec['initContainers','containers'][*].name}";
        let selector = format!("app={deployment}");
        let names =
            self.namespace
                .kubectl(&["get", "pods", "--selector", &selector, "--output", path]);
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// A Deployment's pods that are not being deleted.
    pub fn pods(&self, deployment: &str) -> Vec<serde_json::Value> {
        let selector = format!("app={deployment}");
        let get = ["get", "pods", "--selector", &selector, "--output", "json"];
        let list: serde_json::Value = serde_json::from_str(&self.namespace.kubectl(&get)).unwrap();
        let mut pods = list["items"].as_array().unwrap().clone();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods
    }

    /// Their names.
    pub fn pod_names(&self, deployment: &str) -> Vec<String> {
        let name = |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.pods(deployment).iter().map(name).collect()
    }

    /// GET and POST in turn from the client's app to a URL, at 50 a second.
    ///
    /// # Panics
    /// When kubectl does not start.
    pub fn load(&self, url: &str) -> Load {
        let client = ["exec", "--stdin", "deployment/client", "--container", "app"];
        self.start(&client, &["--", "/app", "load", url])
    }

    /// A number of such requests.
    ///
    /// # Panics
    /// When kubectl fails.
    pub fn requests(&self, url: &str, count: u32) -> Tally {
        let count = count.to_string();
        let load = ["/app", "load", "-without-input", "-count", &count, url];
        let output = self.namespace.exec("deployment/client", "app", &load);
        assert_eq!(output.status, Some(0), "{output:?}");
        Tally::read(&output.stdout)
    }

    /// The load of a pod whose own program is `app load`, until that pod is deleted.
    ///
    /// # Panics
    /// When kubectl does not start.
    pub fn follow(&self, pod: &str) -> Load {
        self.start(&["logs", "--follow", pod, "--container", "app"], &[])
    }

    fn start(&self, arguments: &[&str], more: &[&str]) -> Load {
        let all = [arguments, more].concat();
        let mut command = self.namespace.kubectl_command(&all);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Load(command.spawn().unwrap())
    }
}

impl Load {
    /// Ends it, or waits for the end of the pod whose load it is, and for what is under way.
    ///
    /// # Panics
    /// When the run failed as a whole.
    pub fn end(mut self) -> Tally {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "app load: {text}{said}");
        Tally::read(&text)
    }
}

impl Tally {
    fn read(text: &str) -> Self {
        let tally: serde_json::Value =
            serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"));
        let by = tally["by"].as_object().unwrap().iter();
        Tally {
            answered: tally["answered"].as_u64().unwrap(),
            by: by
                .map(|(pod, n)| (pod.clone(), n.as_u64().unwrap()))
                .collect(),
            failed: tally["failed"].as_u64().unwrap(),
            reasons: tally["reasons"].to_string(),
        }
    }

    /// # Panics
    /// When a request failed, or there were hardly any.
    pub fn lost_nothing(&self) {
        assert_eq!(self.failed, 0, "{}", self.reasons);
        assert!(self.answered >= 50, "{} were answered", self.answered);
    }
}

/// A container of `app serve`; `more` are fields.
fn container(name: &str, more: &str) -> String {
    format!(
        "{{name: app, image: '{APP_IMAGE}', imagePullPolicy: Never, args: [serve, -name, {name}],
        ports: [{{name: http, containerPort: 8080}}], resources: {{requests: {{cpu: 30m}}}},
        readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}{more}}}"
    )
}

/// A Deployment with a service account; `more` are fields of its container.
pub fn deployment(name: &str, replicas: u32, more: &str) -> String {
    let container = container(name, more);
    format!(
        "---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 30
      containers: [{container}]
"
    )
}

pub fn service(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: http}}]}}
"
    )
}

/// The pod `outside`, which opts out of the mesh, and its Service.
pub fn opted_out() -> String {
    let container = container("outside", "");
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: outside, labels: {{app: outside, mesh.anyam.dev/inject: disabled}}}}
spec: {{containers: [{container}]}}
{}",
        service("outside")
    )
}

fn manifest(namespace: &str) -> String {
    let web = deployment("web", 2, "");
    // By which the pods of one shop are selected in all namespaces.
    let labelled = web.replace(
        "labels: {app: web}",
        &format!("labels: {{app: web, shop: {namespace}}}"),
    );
    assert_ne!(web, labelled);
    [&labelled, &deployment("client", 1, ""), &service("web")]
        .map(String::as_str)
        .concat()
}
