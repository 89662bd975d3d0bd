//! Which mesh a command asks, by flags, contexts and kubeconfig, and which namespaces of it.
//!
//! The first of these that is there decides:
//! 1. `--kubeconfig`, `--kube-context`: that cluster
//! 2. `--context` (`ANYAM_CONTEXT`): the context of that name, else the kubeconfig's
//! 3. `--api` (`ANYAM_API`), `--token-file` (`ANYAM_TOKEN_FILE`): that control plane; what one of them
//!    leaves open is the current context's
//! 4. the current context: the one that `anyam context use` chose last and that is still there, else
//!    the only one
//! 5. the kubeconfig's current context; without a kubeconfig, a pod's own cluster
//! 6. a control plane at 127.0.0.1:15080

use std::net::SocketAddr;
use std::path::PathBuf;

use anyam_control::context::{Context, ContextError, Contexts, CurrentContext, Token};
use clap::ArgMatches;
use clap::parser::ValueSource;

use super::CommandError;
use super::mesh::Mesh;
use crate::api::{Aggregated, ControlPlane, Scope};
use crate::cluster::{Access, Cluster};

/// Where a mesh is and how to be let in.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which mesh")]
pub struct Connection {
    /// Which context to use; without it the current one (see `anyam context`)
    #[arg(long, global = true, env = "ANYAM_CONTEXT")]
    context: Option<String>,
    /// A control plane's API, instead of a context's; 127.0.0.1:15080 where there is none
    #[arg(long, global = true, env = "ANYAM_API")]
    api: Option<SocketAddr>,
    /// File with the API token, instead of a context's: `api-token` in the control plane's state folder
    #[arg(long, global = true, env = "ANYAM_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// A cluster's kubeconfig, instead of KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig, instead of its current one
    #[arg(long, global = true, value_name = "NAME")]
    kube_context: Option<String>,
    /// Only this namespace; in a cluster the kubeconfig's context has a default
    #[arg(short, long, global = true, value_name = "NAME", value_parser = namespace)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    all_namespaces: bool,
}

fn namespace(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !text.is_empty() && text.len() <= 63 && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name of a namespace")),
    }
}

/// What the order of the module's documentation comes to.
#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    Address(SocketAddr, Token),
    Cluster(Access),
}

impl Connection {
    /// Flags that contradict each other, from the command line: there, but not in the environment, one
    /// of them is a mistake.
    pub fn contradiction(matches: &ArgMatches) -> Option<String> {
        let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        let first = |names: &[&'static str]| names.iter().copied().find(given);
        let flag = |name: &str| format!("--{}", name.replace('_', "-"));
        let cluster = first(&["kubeconfig", "kube_context"])?;
        let other = first(&["context", "api", "token_file"])?;
        Some(format!(
            "{} names a cluster, and {} another mesh: leave one out",
            flag(cluster),
            flag(other)
        ))
    }

    /// # Errors
    /// When none is configured, or its credentials can't be had.
    pub async fn mesh(&self) -> Result<Mesh, CommandError> {
        match self.choose(Contexts::of_user().ok().as_ref())? {
            Chosen::Address(address, token) => {
                let control_plane = match token {
                    Token::File(path) => ControlPlane::from_token_file(address, &path)?,
                    Token::Value(token) => ControlPlane::new(address, &token),
                };
                Ok(Mesh {
                    client: control_plane.into(),
                    scope: self.scope().unwrap_or(Scope::All),
                    cluster: None,
                })
            }
            Chosen::Cluster(access) => {
                let cluster = access.connect().await?;
                let default = Scope::Namespace(cluster.default_namespace().to_owned());
                Ok(Mesh {
                    client: Aggregated::new(cluster.clone()).into(),
                    scope: self.scope().unwrap_or(default),
                    cluster: Some(cluster),
                })
            }
        }
    }

    /// The cluster alone: there need be no mesh in it yet.
    ///
    /// # Errors
    /// When no cluster is configured, or its credentials can't be had.
    pub async fn cluster(&self) -> Result<Cluster, CommandError> {
        let contexts = Contexts::of_user().ok();
        let access = match self.choose(contexts.as_ref()) {
            Ok(Chosen::Cluster(access)) => access,
            Ok(Chosen::Address(at, _))
                if self.context.is_some() || self.api.is_some() || self.token_file.is_some() =>
            {
                return Err(CommandError::Usage(format!(
                    "a cluster is looked at, and {at} is a control plane: name the cluster with --kube-context"
                )));
            }
            // A demo that happens to run here was not meant.
            Ok(Chosen::Address(..)) => Access::default(),
            Err(error) => return Err(error),
        };
        Ok(access.connect().await?)
    }

    /// The kubeconfig that was named, or the user's.
    pub fn kubeconfig(&self) -> Access {
        self.access(None)
    }

    /// The namespace that was named.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    fn scope(&self) -> Option<Scope> {
        match (&self.namespace, self.all_namespaces) {
            (_, true) => Some(Scope::All),
            (Some(name), false) => Some(Scope::Namespace(name.clone())),
            (None, false) => None,
        }
    }

    fn access(&self, context: Option<String>) -> Access {
        Access {
            kubeconfig: self.kubeconfig.clone(),
            context,
        }
    }

    fn choose(&self, contexts: Option<&Contexts>) -> Result<Chosen, CommandError> {
        if self.kubeconfig.is_some() || self.kube_context.is_some() {
            return Ok(Chosen::Cluster(self.access(self.kube_context.clone())));
        }
        if let Some(name) = &self.context {
            return self.named(contexts, name);
        }
        let own = |name: &str| -> Result<Option<Context>, ContextError> {
            contexts.map(|contexts| contexts.get(name)).transpose()
        };
        if self.api.is_some() || self.token_file.is_some() {
            let current = match (self.api, &self.token_file, contexts) {
                (Some(_), Some(_), _) | (.., None) => None,
                (.., Some(contexts)) => contexts.current()?,
            };
            let context = match current {
                Some(name) => own(&name)?,
                None => None,
            };
            return Ok(self.address(context));
        }
        let access = self.access(None);
        let choice = match contexts {
            Some(contexts) => contexts.chosen(|name| has_context(&access, name))?,
            None => None,
        };
        match choice {
            Some(CurrentContext::Own(name)) => Ok(self.address(own(&name)?)),
            Some(CurrentContext::Kubernetes(name)) => Ok(Chosen::Cluster(self.access(Some(name)))),
            None if access.is_configured()? => Ok(Chosen::Cluster(access)),
            None => Ok(self.address(None)),
        }
    }

    /// By `--context`.
    fn named(&self, contexts: Option<&Contexts>, name: &str) -> Result<Chosen, CommandError> {
        let own = contexts.map_or(Err(ContextError::Homeless), |it| it.get(name));
        match own {
            Ok(context) => Ok(self.address(Some(context))),
            // Names of a kubeconfig have more characters than ours.
            Err(ContextError::Unknown { .. } | ContextError::Name(_) | ContextError::Homeless)
                if has_context(&self.access(None), name) =>
            {
                Ok(Chosen::Cluster(self.access(Some(name.to_owned()))))
            }
            Err(error) => Err(with_kubernetes(error, &self.access(None)).into()),
        }
    }

    fn address(&self, context: Option<Context>) -> Chosen {
        let (api, token) = match context {
            Some(context) => (context.api, context.token),
            None => (
                SocketAddr::from(([127, 0, 0, 1], 15080)),
                Token::File("/var/lib/anyam/control/api-token".into()),
            ),
        };
        let token = match &self.token_file {
            Some(path) => Token::File(path.clone()),
            None => token,
        };
        Chosen::Address(self.api.unwrap_or(api), token)
    }
}

/// Whether the kubeconfig has this context. One that can't be read has none; where it is needed, it is
/// read again and the error reported.
pub fn has_context(access: &Access, name: &str) -> bool {
    let contexts = access.contexts().unwrap_or_default();
    contexts.iter().any(|context| context.name == name)
}

/// The error with the kubeconfig's contexts among those that there are.
pub fn with_kubernetes(error: ContextError, access: &Access) -> ContextError {
    let more: Vec<_> = access.contexts().unwrap_or_default();
    let more: Vec<_> = more.into_iter().map(|context| context.name).collect();
    match error {
        ContextError::Unknown { name, known } if !more.is_empty() => {
            let known = match known.as_str() {
                "none" => String::new(),
                known => format!("{known}, "),
            };
            let known = format!("{known}{} (kubeconfig)", more.join(", "));
            ContextError::Unknown { name, known }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn contexts(folder: &Path) -> Contexts {
        Contexts::at(folder.join("anyam"))
    }

    fn kubeconfig(folder: &Path) -> PathBuf {
        let path = folder.join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: prod\n\
            clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
            contexts: [{name: prod, context: {cluster: c, user: u}}, {name: 'a:b', context: {cluster: c, user: u}}]\n\
            users: [{name: u, user: {}}]\n";
        std::fs::write(&path, text).unwrap();
        path
    }

    fn own(port: u16) -> Context {
        Context {
            api: SocketAddr::from(([127, 0, 0, 1], port)),
            token: Token::Value("t".into()),
        }
    }

    #[test]
    fn flags_of_a_cluster_go_before_contexts() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = contexts(folder.path());
        contexts.add("demo", &own(1), true).unwrap();
        let connection = Connection {
            kube_context: Some("prod".into()),
            ..Connection::default()
        };
        let expected = Access {
            kubeconfig: None,
            context: Some("prod".into()),
        };
        let chosen = connection.choose(Some(&contexts)).unwrap();
        assert_eq!(chosen, Chosen::Cluster(expected));
        let none = Connection::default();
        let chosen = none.choose(Some(&contexts)).unwrap();
        assert_eq!(chosen, Chosen::Address(own(1).api, own(1).token));
    }

    #[test]
    fn what_one_flag_leaves_open_is_the_current_contexts() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = contexts(folder.path());
        contexts.add("demo", &own(1), true).unwrap();
        let at = own(7).api;
        let connection = Connection {
            api: Some(at),
            ..Connection::default()
        };
        let chosen = connection.choose(Some(&contexts)).unwrap();
        assert_eq!(chosen, Chosen::Address(at, own(1).token));
        let token = Token::File("/t".into());
        let connection = Connection {
            token_file: Some("/t".into()),
            ..Connection::default()
        };
        let chosen = connection.choose(Some(&contexts)).unwrap();
        assert_eq!(chosen, Chosen::Address(own(1).api, token));
    }

    #[test]
    fn names_of_contexts_are_looked_up_in_both() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access {
            kubeconfig: Some(kubeconfig(folder.path())),
            context: None,
        };
        assert!(has_context(&access, "a:b") && !has_context(&access, "other"));
        let unknown = ContextError::Unknown {
            name: "x".into(),
            known: "demo".into(),
        };
        let text = with_kubernetes(unknown, &access).to_string();
        assert_eq!(
            text,
            "there is no context `x`; there are: demo, a:b, prod (kubeconfig)"
        );
    }
}
