//! What went wrong with a cluster, and what to do about it.

use std::error::Error;

use kube::config::{InClusterError, KubeconfigError};
use serde::Deserialize;

use super::Cluster;
use crate::table::printable;

/// Why a cluster cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "{place}: {error}; name another kubeconfig with --kubeconfig, or one of its contexts with --kube-context"
    )]
    Kubeconfig {
        place: String,
        error: Box<KubeconfigError>,
    },
    #[error("{place} has no context `{name}`; it has: {known}")]
    NoContext {
        name: String,
        place: String,
        known: String,
    },
    #[error(
        "no cluster is configured: {place} has no current context, and this is no pod; name a kubeconfig with --kubeconfig (KUBECONFIG), or a context with --kube-context"
    )]
    NoCluster { place: String },
    #[error(
        "the service account's token and certificates can't be read: {0}; mount them (automountServiceAccountToken), or name a kubeconfig with --kubeconfig"
    )]
    InCluster(#[from] InClusterError),
    #[error(
        "there are no credentials for the cluster: {why} ({context}); log in to it again, until `kubectl auth whoami` works with this context"
    )]
    Credentials { context: String, why: String },
    #[error(
        "no client of the API server can be made: {why} ({context}); correct this context of the kubeconfig"
    )]
    Client { context: String, why: String },
    #[error(
        "the API server does not answer: {why} ({place}); is it reachable from here, and is this the context you mean? `anyam context list` has the others"
    )]
    Unreachable { place: String, why: String },
    #[error("the API server did not answer within 15 seconds ({place}); try again")]
    Late { place: String },
    #[error("{}", .0.sentence())]
    Refused(Box<Refusal>),
    #[error(
        "the API server answered {path} with something else than expected: {error} ({place}); is it an API server?"
    )]
    Unexpected {
        path: String,
        place: String,
        error: serde_json::Error,
    },
    #[error("{what} ({place}); {todo}")]
    NoPod {
        what: String,
        place: String,
        todo: String,
    },
    #[error("{what}: {error} ({place}); {todo}")]
    Forward {
        what: String,
        place: String,
        error: Box<dyn Error + Send + Sync>,
        todo: String,
    },
}

impl ClusterError {
    pub(super) fn of_call(cluster: &Cluster, error: &kube::Error) -> Self {
        match error {
            kube::Error::Auth(error) => Self::of_credentials(&cluster.name, error),
            kube::Error::Api(status) => {
                let refusal = Refusal {
                    status: status.code,
                    what: printable(&status.message),
                    place: cluster.place(),
                    is_status: true,
                    ..Refusal::default()
                };
                ClusterError::Refused(Box::new(refusal.with_remedy()))
            }
            // A plugin that is run again for a new token fails as a part of the client.
            other => ClusterError::Unreachable {
                place: cluster.place(),
                why: chain(other),
            },
        }
    }

    pub(super) fn of_client(context: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Auth(error) => Self::of_credentials(context, error),
            other => ClusterError::Client {
                context: context.to_owned(),
                why: chain(other),
            },
        }
    }

    fn of_credentials(context: &str, error: &kube::client::AuthError) -> Self {
        use kube::client::AuthError;
        let why = match error {
            // Its own text has the standard output too, which may have a token.
            AuthError::AuthExecRun { cmd, out } => {
                let said = String::from_utf8_lossy(&out.stderr);
                format!(
                    "{cmd} ended with {}: {}",
                    out.status,
                    printable(said.trim())
                )
            }
            other => chain(other),
        };
        ClusterError::Credentials {
            context: context.to_owned(),
            why,
        }
    }

    /// Whether the right to ask was missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, ClusterError::Refused(refusal) if refusal.status == 403)
    }
}

/// The reason of the cause in which the control plane says what to do.
const TODO: &str = "todo";

/// An answer of the API server that is an error: a `Status` object, or a text of the server itself.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// HTTP's.
    pub status: u16,
    pub what: String,
    pub place: String,
    pub todo: String,
    /// Whether it was a `Status` object: other answers are of a server that does not know the path.
    pub is_status: bool,
    /// Whether the answer had a remedy of its own, as the control plane's have.
    pub has_remedy: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusObject {
    kind: String,
    message: String,
    details: Option<StatusDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusDetails {
    causes: Vec<StatusCause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusCause {
    reason: String,
    message: String,
    field: String,
}

impl Refusal {
    pub(super) fn new(cluster: &Cluster, path: &str, status: u16, body: &[u8]) -> Self {
        let object = serde_json::from_slice::<StatusObject>(body).ok();
        let object = object.filter(|object| object.kind == "Status");
        let place = format!("{}, {path}", cluster.name);
        let causes = object.as_ref().and_then(|object| object.details.as_ref());
        let causes = causes.map(|details| details.causes.as_slice());
        let causes = causes.unwrap_or_default();
        if let [what, todo] = causes
            && todo.reason == TODO
        {
            return Refusal {
                status,
                what: printable(&what.message),
                place: match what.field.as_str() {
                    "" => place,
                    field => printable(field),
                },
                todo: printable(&todo.message),
                is_status: true,
                has_remedy: true,
            };
        }
        let is_status = object.is_some();
        let message = match object {
            Some(object) => object.message,
            None => String::from_utf8_lossy(body)
                .trim()
                .chars()
                .take(400)
                .collect(),
        };
        let what = match message.as_str() {
            "" => format!("the API server answered {status}"),
            message => printable(message),
        };
        let refusal = Refusal {
            status,
            what,
            place,
            is_status,
            ..Refusal::default()
        };
        refusal.with_remedy()
    }

    fn with_remedy(mut self) -> Self {
        if self.status == 401 {
            self.what = format!(
                "the API server does not accept the credentials ({})",
                self.what
            );
        }
        self.todo = match self.status {
            401 => {
                "log in to the cluster again, until `kubectl auth whoami` works with this context"
            }
            403 => "an administrator of the cluster can grant it",
            404 => "see whether it is there, and in this namespace",
            429 => "wait, and try again",
            500.. => "try again; the API server's log says more",
            _ => "the message says what was not accepted",
        }
        .to_owned();
        self
    }

    fn sentence(&self) -> String {
        format!("{} ({}); {}", self.what, self.place, self.todo)
    }

    /// The user that the API server says it refused: `User "jo" cannot …`.
    pub fn user(&self) -> Option<&str> {
        let (_, rest) = self.what.split_once("User \"")?;
        let (user, _) = rest.split_once('"')?;
        Some(user)
    }
}

/// An error with its causes, which its own text may leave out.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn cluster() -> Cluster {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Cluster {
            client: kube::Client::try_from(config).unwrap(),
            name: "context prod".into(),
            server: "https://127.0.0.1:1".into(),
            namespace: "default".into(),
        }
    }

    #[tokio::test]
    async fn refusals_say_what_where_and_what_to_do() {
        let status = |code: u16, message: &str| {
            let body = serde_json::json!({"kind": "Status", "status": "Failure", "message": message, "code": code});
            Refusal::new(
                &cluster(),
                "/api/v1/pods",
                code,
                body.to_string().as_bytes(),
            )
        };
        let forbidden = status(
            403,
            "pods is forbidden: User \"jo\" cannot list resource \"pods\"",
        );
        assert_eq!(forbidden.user(), Some("jo"));
        let text = ClusterError::Refused(Box::new(forbidden)).to_string();
        assert!(
            text.contains("cannot list")
                && text.contains("(context prod, /api/v1/pods); an administrator"),
            "{text}"
        );
        let unknown = status(401, "Unauthorized").sentence();
        assert!(
            unknown.contains("log in") && unknown.contains("Unauthorized"),
            "{unknown}"
        );
        let text = Refusal::new(&cluster(), "/apis/x", 404, b"404 page not found\n");
        assert!(
            !text.is_status && text.what == "404 page not found",
            "{text:?}"
        );
        let ours = br#"{"kind": "Status", "message": "m", "details": {"causes": [
            {"reason": "", "message": "what", "field": "where"}, {"reason": "todo", "message": "do"}]}}"#;
        let ours = Refusal::new(&cluster(), "/x", 409, ours);
        assert!(ours.has_remedy);
        assert_eq!(ours.sentence(), "what (where); do");
        let empty = Refusal::new(&cluster(), "/x", 503, b"");
        assert_eq!(empty.what, "the API server answered 503");
        let steering = status(400, "a\u{1b}[2Jb");
        assert_eq!(steering.what, "a\\u{1b}[2Jb");
    }

    #[test]
    fn a_plugins_output_stays_out_of_messages() {
        let output = std::process::Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: b"token".to_vec(),
            stderr: b"no session\n".to_vec(),
        };
        let error = kube::client::AuthError::AuthExecRun {
            cmd: "login".into(),
            out: Box::new(output),
        };
        let text = ClusterError::of_client("context prod", &kube::Error::Auth(error)).to_string();
        assert!(
            text.contains("login") && text.contains("no session") && text.contains("context prod"),
            "{text}"
        );
        assert!(!text.contains("token"), "{text}");
    }
}
