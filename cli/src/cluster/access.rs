//! Which cluster, and with whose credentials: as kubectl decides it.
//!
//! A kubeconfig is named (`--kubeconfig`), or it is all files of `KUBECONFIG`, or `~/.kube/config`.
//! Without a context in these, a pod uses its service account.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::{Cluster, ClusterError};

/// Kubernetes sets this in every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// After this long without a connection the API server is not reachable.
const CONNECT: Duration = Duration::from_secs(10);

/// How to find a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; else its current one.
    pub context: Option<String>,
}

/// A context of a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeContext {
    pub name: String,
    pub server: String,
    /// kubectl's current one.
    pub current: bool,
}

impl Access {
    /// Where its contexts are, for messages.
    fn place(&self) -> String {
        match &self.kubeconfig {
            Some(path) => path.display().to_string(),
            None => match env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
                Some(paths) => format!("KUBECONFIG={}", paths.display()),
                None => "~/.kube/config".to_owned(),
            },
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        if let Some(path) = &self.kubeconfig {
            return vec![path.clone()];
        }
        let listed = env::var_os("KUBECONFIG").unwrap_or_default();
        let listed: Vec<_> = env::split_paths(&listed)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        if !listed.is_empty() {
            return listed;
        }
        let home = env::var_os("HOME").filter(|home| !home.is_empty());
        let file = |home: OsString| Path::new(&home).join(".kube/config");
        home.map(file).into_iter().collect()
    }

    /// The files as one. As with kubectl, those of `KUBECONFIG` that do not exist count as empty, one
    /// that was named must exist, and the first file to say something is right.
    fn read(&self) -> Result<Kubeconfig, ClusterError> {
        let wrong = |error: KubeconfigError| ClusterError::Kubeconfig {
            place: self.place(),
            error: Box::new(error),
        };
        let mut all = Kubeconfig::default();
        for path in self.paths() {
            if self.kubeconfig.is_none() && !path.exists() {
                continue;
            }
            let file = Kubeconfig::read_from(&path).map_err(wrong)?;
            all = all.merge(file).map_err(wrong)?;
        }
        Ok(all)
    }

    fn wanted(&self, kubeconfig: &Kubeconfig) -> Option<String> {
        let current = kubeconfig.current_context.clone();
        let wanted = self.context.clone().or(current);
        wanted.filter(|name| !name.is_empty())
    }

    /// Whether there is a cluster to be asked.
    ///
    /// # Errors
    /// When a kubeconfig is there and can't be read.
    pub fn is_configured(&self) -> Result<bool, ClusterError> {
        let in_cluster = || env::var_os(IN_CLUSTER).is_some();
        Ok(self.wanted(&self.read()?).is_some() || in_cluster())
    }

    /// All contexts, in the order of their names.
    ///
    /// # Errors
    /// When a kubeconfig is there and can't be read.
    pub fn contexts(&self) -> Result<Vec<KubeContext>, ClusterError> {
        let kubeconfig = self.read()?;
        let current = self.wanted(&kubeconfig);
        let server = |name: &str| {
            let context = kubeconfig.contexts.iter().find(|it| it.name == name);
            let cluster = context
                .and_then(|it| it.context.as_ref())
                .map(|it| &it.cluster);
            let mut clusters = kubeconfig.clusters.iter();
            let found = clusters.find(|it| Some(&it.name) == cluster);
            let found = found.and_then(|it| it.cluster.as_ref()?.server.clone());
            found.unwrap_or_default()
        };
        let mut all: Vec<_> = kubeconfig
            .contexts
            .iter()
            .map(|it| KubeContext {
                name: it.name.clone(),
                server: server(&it.name),
                current: current.as_ref() == Some(&it.name),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        Ok(all)
    }

    /// Makes a client; a plugin of the kubeconfig that gets credentials is run for it. Nothing is sent
    /// to the API server.
    ///
    /// # Errors
    /// When no cluster is configured, or there are no credentials for it.
    pub async fn connect(&self) -> Result<Cluster, ClusterError> {
        let kubeconfig = self.read()?;
        let (name, mut config) = match self.wanted(&kubeconfig) {
            Some(context) => {
                let config = self.of_context(kubeconfig, &context).await?;
                (format!("context {context}"), config)
            }
            None if self.kubeconfig.is_none() && env::var_os(IN_CLUSTER).is_some() => {
                ("the pod's own cluster".to_owned(), Config::incluster()?)
            }
            None => {
                return Err(ClusterError::NoCluster {
                    place: self.place(),
                });
            }
        };
        config.connect_timeout = Some(CONNECT);
        // Taps are silent for as long as nothing happens; other calls have a deadline of their own.
        config.read_timeout = None;
        // An API that is unavailable is to be reported at once.
        config.default_retry = false;
        let namespace = match config.default_namespace.as_str() {
            "" => "default".to_owned(),
            namespace => namespace.to_owned(),
        };
        let server = config
            .cluster_url
            .to_string()
            .trim_end_matches('/')
            .to_owned();
        let client = Client::try_from(config);
        Ok(Cluster {
            client: client.map_err(|error| ClusterError::of_client(&name, &error))?,
            name,
            server,
            namespace,
        })
    }

    async fn of_context(&self, from: Kubeconfig, context: &str) -> Result<Config, ClusterError> {
        if !from.contexts.iter().any(|it| it.name == context) {
            let known: Vec<_> = from.contexts.iter().map(|it| it.name.as_str()).collect();
            return Err(ClusterError::NoContext {
                name: context.to_owned(),
                place: self.place(),
                known: match known.is_empty() {
                    true => "none".to_owned(),
                    false => known.join(", "),
                },
            });
        }
        let options = KubeConfigOptions {
            context: Some(context.to_owned()),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(from, &options).await;
        config.map_err(|error| ClusterError::Kubeconfig {
            place: format!("{}, context {context}", self.place()),
            error: Box::new(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: b\n\
        clusters: [{name: one, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        contexts: [{name: b, context: {cluster: one, user: u, namespace: shop}}, {name: a, context: {cluster: one, user: u}}]\n\
        users: [{name: u, user: {token: secret}}]\n";

    fn access(folder: &Path, text: &str, context: Option<&str>) -> Access {
        let path = folder.join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        Access {
            kubeconfig: Some(path),
            context: context.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn the_current_context_is_used_unless_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let it = access(folder.path(), FILE, None);
        let all = it.contexts().unwrap();
        let names: Vec<_> = all.iter().map(|it| (&*it.name, it.current)).collect();
        assert_eq!(names, [("a", false), ("b", true)]);
        assert_eq!(all[0].server, "http://127.0.0.1:1");
        let cluster = it.connect().await.unwrap();
        assert_eq!(cluster.default_namespace(), "shop");
        assert_eq!(cluster.place(), "context b, http://127.0.0.1:1");
        let cluster = access(folder.path(), FILE, Some("a"))
            .connect()
            .await
            .unwrap();
        assert_eq!(cluster.default_namespace(), "default");
        let unknown = access(folder.path(), FILE, Some("c")).connect().await;
        let unknown = unknown.err().unwrap().to_string();
        assert!(
            unknown.contains("no context `c`; it has: b, a"),
            "{unknown}"
        );
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_kubeconfig_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Access {
            kubeconfig: Some(folder.path().join("nowhere")),
            context: None,
        };
        let text = missing.contexts().err().unwrap().to_string();
        assert!(
            text.contains("nowhere") && text.contains("--kubeconfig"),
            "{text}"
        );
        let empty = access(folder.path(), "", None);
        assert_eq!(empty.wanted(&empty.read().unwrap()), None);
        let text = empty.connect().await.err().unwrap().to_string();
        assert!(text.contains("no current context"), "{text}");
        let plugin = FILE.replace(
            "{token: secret}",
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: /no/such/plugin, interactiveMode: Never}}",
        );
        let text = access(folder.path(), &plugin, None).connect().await;
        let text = text.err().unwrap().to_string();
        assert!(
            text.contains("no credentials") && text.contains("context b"),
            "{text}"
        );
    }
}
