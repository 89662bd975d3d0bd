//! An API server without nodes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::Channel;
use crate::command::{run, script, succeed};
use crate::kubectl::Kubectl;

/// Etcd and kube-apiserver, with RBAC, admission webhooks and aggregation, on loopback of the
/// network namespace that the test runs in. Dropping it ends it; after a test that was killed, the
/// next start does.
///
/// There is no node, so a pod's status is what the test writes. A webhook or an aggregated API is
/// reached by a URL on loopback, or by a Service of type ExternalName `localhost`.
pub struct ApiServer {
    /// `ANYAM_KUBE_NAME`
    name: String,
    kubeconfig: PathBuf,
}

impl ApiServer {
    /// Starts an API server and waits until it is ready, which takes some 5 s.
    ///
    /// # Panics
    /// When a prerequisite is missing; the message says how to get it.
    pub fn start() -> Self {
        Self::up(&[])
    }

    /// With the controller-manager: service accounts, EndpointSlices, garbage collection, the rules
    /// of the roles `view`, `edit` and `admin`, and the objects of Deployments, Jobs and their
    /// pods. Nodes are objects that the test makes, without a kubelet; a pod of a node that does
    /// not exist is in no EndpointSlice.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with_controllers() -> Self {
        Self::up(&["--controllers"])
    }

    fn up(options: &[&str]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let mut server = Self {
            name: format!("api-{}-{number}", std::process::id()),
            kubeconfig: PathBuf::new(),
        };
        let mut up = server.script(&["up", "--api-only"]);
        succeed(
            up.args(options)
                .env("ANYAM_KUBE_OWNER", std::process::id().to_string()),
            "",
        );
        server.kubeconfig = succeed(&mut server.script(&["kubeconfig"]), "")
            .trim()
            .into();
        server
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let mut command = script();
        command
            .args(arguments)
            .env("ANYAM_KUBE_NAME", &self.name)
            .env_remove("KUBECONFIG")
            .env_remove("ANYAM_KUBE_LOAD");
        command
    }

    /// Installs the CRDs of the Gateway API, in the version of `tests/kube/versions`.
    ///
    /// # Panics
    /// When the API server refuses them.
    pub fn install_gateway_api(&self, channel: Channel) {
        succeed(&mut self.script(&["gateway-api", channel.name()]), "");
    }

    /// A kubeconfig with embedded credentials of a member of `system:masters`.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The requests that the mesh's control plane makes with its own service account: one JSON object
    /// a line (`audit.k8s.io/v1`, level Metadata).
    pub fn audit_log(&self) -> PathBuf {
        let folder = self.kubeconfig.parent().and_then(Path::parent);
        folder.unwrap_or(Path::new("/")).join("logs/audit.log")
    }

    /// # Panics
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> kube::Client {
        crate::client(&self.kubeconfig).await
    }

    /// Ends a component (`apiserver`, `etcd`, `controller-manager`); its data stays.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&self, component: &str) {
        succeed(&mut self.script(&["stop", component]), "");
    }

    /// Starts a stopped component again, without waiting for it.
    ///
    /// # Panics
    /// When there is no such component.
    pub fn resume(&self, component: &str) {
        succeed(&mut self.script(&["start", component]), "");
    }
}

impl Kubectl for ApiServer {
    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.script(&["kubectl"]);
        command.args(arguments);
        command
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let ended = run(&mut self.script(&["down"]), "");
        if ended.status != Some(0) {
            eprintln!(
                "the API server {} was not ended: {}",
                self.name, ended.stderr
            );
        }
    }
}
