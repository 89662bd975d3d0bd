//! The cluster with nodes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::command::{script, succeed};
use crate::kubectl::Kubectl;

/// Read by tests that share the cluster, written by one that has it alone.
static TURNS: RwLock<()> = RwLock::new(());

/// The cluster of `KUBECONFIG`, which `cluster.sh exec` sets for the built-in one.
pub struct Cluster {
    kubeconfig: PathBuf,
    _turn: Turn,
}

/// The guard is held until the cluster is dropped.
enum Turn {
    Shared(#[allow(dead_code)] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code)] RwLockWriteGuard<'static, ()>),
}

/// What a program printed, and its exit status; `None` when a signal ended it.
#[derive(Debug)]
pub struct Output {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The two sets of CRDs that the Gateway API publishes.
#[derive(Clone, Copy)]
pub enum Channel {
    Standard,
    Experimental,
}

impl Channel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Channel::Standard => "standard",
            Channel::Experimental => "experimental",
        }
    }
}

impl Cluster {
    /// # Panics
    /// When no cluster is given; the message says how to get one.
    pub fn shared() -> Self {
        let turn = TURNS.read().unwrap_or_else(PoisonError::into_inner);
        Self::given(Turn::Shared(turn))
    }

    /// Waits until no other test of this process uses the cluster: for tests that disturb others,
    /// such as those that drain a node.
    ///
    /// # Panics
    /// As [`Self::shared`].
    pub fn alone() -> Self {
        let turn = TURNS.write().unwrap_or_else(PoisonError::into_inner);
        Self::given(Turn::Alone(turn))
    }

    fn given(turn: Turn) -> Self {
        let (Some(kubeconfig), Some(_)) = (
            std::env::var_os("KUBECONFIG"),
            std::env::var_os("ANYAM_KUBE_LOAD"),
        ) else {
            panic!(
                "KUBECONFIG and ANYAM_KUBE_LOAD name no cluster. Run \
                 `tests/kube/cluster.sh up`, then this test by `tests/kube/cluster.sh exec cargo test …`; \
                 or set both to a cluster of yours"
            );
        };
        Self {
            kubeconfig: kubeconfig.into(),
            _turn: turn,
        }
    }

    /// # Panics
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> kube::Client {
        crate::client(&self.kubeconfig).await
    }

    /// What `KUBECONFIG` names.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Loads an image into the nodes.
    ///
    /// # Panics
    /// When the archive is refused.
    pub fn load(&self, archive: &str) {
        succeed(script().args(["load", archive]), "");
    }

    /// Installs the CRDs of the Gateway API, in the version of `tests/kube/versions`.
    ///
    /// # Panics
    /// When the API server refuses them.
    pub fn install_gateway_api(&self, channel: Channel) {
        succeed(script().args(["gateway-api", channel.name()]), "");
    }

    /// Installs metrics-server, unless the cluster has a metrics API.
    ///
    /// # Panics
    /// When it is not available within 90 s; on a cluster of a contributor's, when there is none.
    pub fn install_metrics_server(&self) {
        // Of several tests that ask at once, the others wait.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        succeed(script().arg("metrics-server"), "");
    }

    /// Makes a namespace whose name begins with `prefix`.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub fn namespace(&self, prefix: &str) -> Namespace<'_> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        self.namespace_named(&format!("{prefix}-{}-{number}", std::process::id()))
    }

    /// # Panics
    /// When the API server refuses it, as when there is one of that name.
    pub fn namespace_named(&self, name: &str) -> Namespace<'_> {
        self.kubectl(&["create", "namespace", name]);
        Namespace {
            cluster: self,
            name: name.to_owned(),
        }
    }
}

impl Kubectl for Cluster {
    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command
    }
}

/// A namespace that is deleted on drop, with what is in it.
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    pub name: String,
}

impl Namespace<'_> {
    /// # Panics
    /// When an object is refused.
    pub fn apply(&self, manifest: &str) {
        self.kubectl_with(manifest, &["apply", "--server-side", "-f", "-"]);
    }

    /// Waits until a Deployment, or a StatefulSet named as `statefulset/NAME`, consists of new pods
    /// that are all ready; 2 minutes.
    ///
    /// # Panics
    /// When it does not within that time, with the namespace's pods and events.
    pub fn rolled_out(&self, workload: &str) {
        let target = named(workload);
        let output = self.try_kubectl(&["rollout", "status", &target, "--timeout=120s"]);
        if output.status != Some(0) {
            let events = self.try_kubectl(&["get", "events", "--sort-by=.lastTimestamp"]);
            let pods = self.try_kubectl(&["describe", "pods"]);
            panic!(
                "{target}: {}{}\n{}\n{}",
                output.stdout, output.stderr, pods.stdout, events.stdout
            );
        }
    }

    /// Restarts a Deployment or StatefulSet, named as for [`Self::rolled_out`], and waits for it.
    ///
    /// # Panics
    /// As there.
    pub fn restart(&self, workload: &str) {
        self.kubectl(&["rollout", "restart", &named(workload)]);
        self.rolled_out(workload);
    }

    /// Runs a command in a container.
    pub fn exec(&self, target: &str, container: &str, command: &[&str]) -> Output {
        let mut all = vec!["exec", target, "--container", container, "--"];
        all.extend(command);
        self.try_kubectl(&all)
    }
}

/// `web` is a Deployment; of other kinds the name has the kind before it.
fn named(workload: &str) -> String {
    match workload.contains('/') {
        true => workload.to_owned(),
        false => format!("deployment/{workload}"),
    }
}

impl Kubectl for Namespace<'_> {
    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut all = vec!["--namespace", &self.name];
        all.extend(arguments);
        self.cluster.kubectl_command(&all)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // Its objects are deleted in the background; no other test waits for that.
        let delete = [
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
            "--ignore-not-found",
        ];
        let deleted = self.cluster.try_kubectl(&delete);
        if deleted.status != Some(0) {
            eprintln!(
                "the namespace {} was not deleted: {}",
                self.name, deleted.stderr
            );
        }
    }
}
