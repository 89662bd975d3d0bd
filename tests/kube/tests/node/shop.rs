//! An app of two: `web` with two replicas and a Service, and `client`, which calls it.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyam_tests_kube::{APP_IMAGE, Cluster, Kubectl, Namespace, Output};

/// In a namespace of its own.
pub struct Shop<'a> {
    pub namespace: Namespace<'a>,
}

/// The result of a run of `app load`.
pub struct Tally {
    pub answered: u64,
    pub failed: u64,
    /// Messages of failures, with their counts.
    pub reasons: String,
}

/// `app load` in the client's pod, until it is ended.
pub struct Load(Child);

impl<'a> Shop<'a> {
    /// `injected`: whether its namespace has the label by which pods get sidecars.
    ///
    /// # Panics
    /// When its pods are not ready within 2 minutes.
    pub fn open(cluster: &'a Cluster, injected: bool) -> Self {
        let namespace = cluster.namespace("shop");
        if injected {
            let label = "mesh.anyam.dev/inject=enabled";
            cluster.kubectl(&["label", "namespace", &namespace.name, label]);
        }
        namespace.apply(&manifest());
        let shop = Shop { namespace };
        for deployment in ["web", "client"] {
            shop.namespace.rolled_out(deployment);
        }
        shop
    }

    /// One GET from the client's app.
    pub fn get(&self, url: &str) -> Output {
        self.namespace
            .exec("deployment/client", "app", &["/app", "get", url])
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

    /// Requests to a URL at 50 a second.
    ///
    /// # Panics
    /// When kubectl does not start.
    pub fn load(&self, url: &str) -> Load {
        let child = Command::new("kubectl")
            .args(["--namespace", &self.namespace.name, "exec", "--stdin"])
            .args(["deployment/client", "--container", "app", "--"])
            .args(["/app", "load", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Load(child)
    }
}

impl Load {
    /// Ends it and waits for what is under way.
    ///
    /// # Panics
    /// When the run failed as a whole.
    pub fn end(mut self) -> Tally {
        let mut input = self.0.stdin.take().unwrap();
        input.flush().unwrap();
        drop(input);
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "app load: {text}{said}");
        let tally: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        Tally {
            answered: tally["answered"].as_u64().unwrap(),
            failed: tally["failed"].as_u64().unwrap(),
            reasons: tally["reasons"].to_string(),
        }
    }
}

fn manifest() -> String {
    let deployment = |name: &str, replicas: u32| {
        format!(
            r#"---
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
      containers:
        - name: app
          image: {APP_IMAGE}
          imagePullPolicy: Never
          args: [serve, -name, {name}]
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
"#
        )
    };
    let service = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
";
    [&deployment("web", 2), &deployment("client", 1), service].concat()
}
