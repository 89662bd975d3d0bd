//! An API server, and control planes of it.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyam_tests::program;
use anyam_tests_kube::{ApiServer, Kubectl, until};
use serde_json::{Value, json};
use xds_proto::yaml;

use super::sidecar::SidecarPlan;

pub const TIMEOUT: Duration = Duration::from_secs(60);
pub const NAMESPACE: &str = "anyam-system";
/// The address in the pods' status.
const POD_ADDRESS: &str = "10.1.2.3";

/// The objects of these kinds that the chart makes with its default values.
pub fn of_chart(kinds: &[&str]) -> String {
    let rendered = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/helm/rendered/default.yaml"
    );
    let rendered = std::fs::read_to_string(rendered).unwrap();
    let objects = yaml::documents(&rendered).map(|document| document.unwrap().to_json());
    let wanted = objects.filter(|object| kinds.iter().any(|kind| object["kind"] == *kind));
    wanted.map(|object| format!("---\n{object}\n")).collect()
}

/// An API server, with namespace and rights of a control plane.
pub struct Bench {
    pub server: ApiServer,
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn start() -> Self {
        let server = ApiServer::start();
        server.kubectl(&["create", "namespace", NAMESPACE]);
        let rights = of_chart(&[
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
        ]);
        server.kubectl_with(&rights, &["apply", "-f", "-"]);
        let folder = tempfile::tempdir().unwrap();
        let create = ["create", "token", "anyam-control", "--duration=24h"];
        let token = server.kubectl(&[&create[..], &["--namespace", NAMESPACE]].concat());
        let config = server.kubectl(&["config", "view", "--raw", "--output=json"]);
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        std::fs::write(folder.path().join("kubeconfig"), config.to_string()).unwrap();
        Bench { server, folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a control plane and does not wait for it. `name`: the pod's, which is unique here.
    pub fn begin_control(&self, name: &str, more: &[&str]) -> Control {
        let log = self.path(&format!("{name}.log"));
        let child = Command::new(program("anyam-control"))
            .args([
                "serve",
                "--kubernetes",
                "--namespace",
                NAMESPACE,
                "--kubeconfig",
            ])
            .arg(self.path("kubeconfig"))
            .args(["--xds-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"])
            .args(["--context", ""])
            .args(more)
            .env("POD_NAME", name)
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Control {
            child,
            log,
            name: name.to_owned(),
        }
    }

    /// Those of control planes in `$TMPDIR`.
    pub fn temporary_folders(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let ours = names.filter(|name| name.to_string_lossy().contains("anyam-control-"));
        ours.count()
    }

    pub async fn control(&self, name: &str, more: &[&str]) -> Control {
        let control = self.begin_control(name, more);
        control.xds().await;
        control
    }

    /// A namespace with service accounts, which a controller would make.
    pub fn namespace(&self, name: &str, accounts: &[&str]) {
        self.server.kubectl(&["create", "namespace", name]);
        for account in accounts {
            let create = ["create", "serviceaccount", account, "--namespace", name];
            self.server.kubectl(&create);
        }
    }

    /// A pod of namespace `shop`, with an address.
    pub fn pod(&self, name: &str, account: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "serviceAccountName": account, "automountServiceAccountToken": false,
                "initContainers": [{"name": "anyam-proxy", "image": "x", "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": "x"}],
            },
        });
        self.server
            .kubectl_with(&pod.to_string(), &["create", "-f", "-"]);
        let status =
            json!({"phase": "Running", "podIP": POD_ADDRESS, "podIPs": [{"ip": POD_ADDRESS}]});
        self.set_status(name, &status);
    }

    pub fn set_status(&self, pod: &str, status: &Value) {
        let patch = json!({"status": status}).to_string();
        let patch = [
            "patch",
            "pod",
            pod,
            "--namespace=shop",
            "--subresource=status",
            "--patch",
            &patch,
        ];
        self.server.kubectl(&patch);
    }

    pub fn delete_pod(&self, name: &str) {
        let delete = [
            "delete",
            "pod",
            name,
            "--namespace=shop",
            "--force",
            "--grace-period=0",
        ];
        self.server.kubectl(&delete);
    }

    /// As the kubelet gets it for a pod's volume.
    pub fn token(&self, pod: &str, account: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod];
        let create = ["create", "token", account, "--namespace=shop", &audience];
        let token = self.server.kubectl(&[&create[..], &bound].concat());
        token.trim().to_owned()
    }

    /// Of the ConfigMap in a namespace, once it is there.
    pub async fn root(&self, namespace: &str) -> String {
        until("the root's ConfigMap", TIMEOUT, async || {
            let get = [
                "get",
                "configmap",
                "anyam-ca-root-cert",
                "--namespace",
                namespace,
            ];
            let path = ["--output", r"jsonpath={.data.ca\.crt}"];
            let got = self.server.try_kubectl(&[&get[..], &path].concat());
            match got.status == Some(0) && got.stdout.contains("BEGIN CERTIFICATE") {
                true => Ok(got.stdout),
                false => Err(format!("{got:?}")),
            }
        })
        .await
    }

    /// `.data` of the Secret, base64.
    pub fn secret(&self) -> Value {
        let get = [
            "get",
            "secret",
            "anyam-ca",
            "--namespace",
            NAMESPACE,
            "--output=json",
        ];
        let secret: Value = serde_json::from_str(&self.server.kubectl(&get)).unwrap();
        secret["data"].clone()
    }

    pub fn sidecar(
        &self,
        pod: &str,
        account: &str,
        control: SocketAddr,
        more: &[&str],
    ) -> SidecarPlan {
        SidecarPlan::new(self, (pod, account), (POD_ADDRESS, control), more)
    }
}

/// A control plane.
pub struct Control {
    child: Child,
    log: PathBuf,
    pub name: String,
}

impl Control {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn logs(&self, text: &str) {
        until(
            &format!("the log of {} to say {text:?}", self.name),
            TIMEOUT,
            async || {
                let log = self.log();
                if log.contains(text) { Ok(()) } else { Err(log) }
            },
        )
        .await;
    }

    /// Its xDS address, once it listens.
    pub async fn xds(&self) -> SocketAddr {
        self.logs(" xds=").await;
        let log = self.log();
        let found = log.split(" xds=").nth(1).unwrap();
        found.split(' ').next().unwrap().parse().unwrap()
    }

    /// Asserts that no right was missing.
    pub fn assert_rights(&self) {
        let log = self.log();
        assert!(!log.contains("may not "), "{log}");
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self) {
        let kill = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(kill.unwrap().success());
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }

    /// Waits until it exits with an error.
    pub fn fails(&mut self) -> String {
        assert!(!self.child.wait().unwrap().success());
        self.log()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("== {}\n{}", self.name, self.log());
        }
    }
}

/// Runs openssl and returns its output.
pub fn openssl(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
