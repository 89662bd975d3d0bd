//! A control plane, with the rights of the chart and no others, on an API server of its own.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use xds_proto::yaml;

use crate::api_server::ApiServer;
use crate::command::program;
use crate::control::Control;
use crate::kubectl::Kubectl;
use crate::sidecar::SidecarPlan;
use crate::wait::until;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Of the control plane, where a test names no other.
pub const NAMESPACE: &str = "anyam-system";
/// The address in the pods' status where a test gives none.
const POD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

/// The objects of these kinds that the chart makes with its default values.
///
/// # Panics
/// When `deploy/helm/rendered` does not have them.
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
    /// Of control planes.
    namespace: String,
    /// Where they listen.
    address: IpAddr,
    folder: tempfile::TempDir,
}

impl Bench {
    /// # Panics
    /// As [`ApiServer::start`].
    pub fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST)
    }

    /// With control planes that listen at this address of the present network namespace.
    ///
    /// # Panics
    /// As [`ApiServer::start`].
    pub fn start_at(address: Ipv4Addr) -> Self {
        Self::start_in(NAMESPACE, address)
    }

    /// The same with control planes in another namespace of the cluster.
    ///
    /// # Panics
    /// As [`ApiServer::start`].
    pub fn start_in(namespace: &str, address: Ipv4Addr) -> Self {
        let server = ApiServer::start();
        server.kubectl(&["create", "namespace", namespace]);
        let rights = of_chart(&[
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
        ]);
        let rights = rights.replace(NAMESPACE, namespace);
        server.kubectl_with(&rights, &["apply", "-f", "-"]);
        let folder = tempfile::tempdir().unwrap();
        let create = ["create", "token", "anyam-control", "--duration=24h"];
        let token = server.kubectl(&[&create[..], &["--namespace", namespace]].concat());
        let config = server.kubectl(&["config", "view", "--raw", "--output=json"]);
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        std::fs::write(folder.path().join("kubeconfig"), config.to_string()).unwrap();
        Bench {
            server,
            namespace: namespace.to_owned(),
            address: address.into(),
            folder,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a control plane and does not wait for it. `name`: the pod's, which is unique here.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn begin_control(&self, name: &str, more: &[&str]) -> Control {
        let log = self.path(&format!("{name}.log"));
        let child = Command::new(program("anyam-control"))
            .args([
                "serve",
                "--kubernetes",
                "--namespace",
                &self.namespace,
                "--kubeconfig",
            ])
            .arg(self.path("kubeconfig"))
            .args([
                "--xds-listen",
                &SocketAddr::new(self.address, 0).to_string(),
            ])
            .args(["--api-listen", "127.0.0.1:0"])
            .args(["--context", ""])
            .args(more)
            .env("POD_NAME", name)
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Control::new(child, log, name)
    }

    /// Those of control planes in `$TMPDIR`.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn temporary_folders(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let ours = names.filter(|name| name.to_string_lossy().contains("anyam-control-"));
        ours.count()
    }

    /// # Panics
    /// When it does not succeed.
    pub async fn control(&self, name: &str, more: &[&str]) -> Control {
        let control = self.begin_control(name, more);
        control.xds().await;
        control
    }

    /// A namespace with service accounts, which a controller would make.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn namespace(&self, name: &str, accounts: &[&str]) {
        self.server.kubectl(&["create", "namespace", name]);
        for account in accounts {
            let create = ["create", "serviceaccount", account, "--namespace", name];
            self.server.kubectl(&create);
        }
    }

    /// A pod of namespace `shop`, with an address.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub fn pod(&self, name: &str, account: &str) {
        self.pod_at(name, account, POD_ADDRESS);
    }

    /// The same with this address.
    ///
    /// # Panics
    /// As [`Self::pod`].
    pub fn pod_at(&self, name: &str, account: &str, address: Ipv4Addr) {
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
        let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
        self.set_status(name, &status);
    }

    /// A Service of namespace `shop` whose port 80 leads to a port of one pod; returns its address.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub fn service(&self, name: &str, (pod, address): (&str, Ipv4Addr), port: u16) -> Ipv4Addr {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]},
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": "http", "port": port}],
            "endpoints": [{
                "addresses": [address], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "shop"},
            }],
        });
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [service, slice]});
        self.server
            .kubectl_with(&list.to_string(), &["apply", "-f", "-"]);
        let get = ["get", "service", name, "--namespace=shop"];
        let path = ["--output=jsonpath={.spec.clusterIP}"];
        let address = self.server.kubectl(&[&get[..], &path].concat());
        address.parse().unwrap()
    }

    /// # Panics
    /// When it does not succeed.
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

    /// # Panics
    /// When it does not succeed.
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
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn token(&self, pod: &str, account: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod];
        let create = ["create", "token", account, "--namespace=shop", &audience];
        let token = self.server.kubectl(&[&create[..], &bound].concat());
        token.trim().to_owned()
    }

    /// Of the ConfigMap in a namespace, once it is there.
    ///
    /// # Panics
    /// When it does not succeed.
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
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn secret(&self) -> Value {
        let get = [
            "get",
            "secret",
            "anyam-ca",
            "--namespace",
            &self.namespace,
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
        let address = POD_ADDRESS.to_string();
        SidecarPlan::new(self, (pod, account), (&address, control), more)
    }
}

/// Runs openssl and returns its output.
///
/// # Panics
/// When it is not so.
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
