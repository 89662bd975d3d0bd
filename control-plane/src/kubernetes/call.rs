//! Calls to the API server: each has a deadline, and names the right that it takes, so that an error
//! says what to grant. [`FailureLog`] logs what is tried again and again once.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use kube::core::Status;
use kube::runtime::watcher;

/// The longest that a call may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Seconds after which a watch ends and goes on from where it was: a server that is silent for longer is
/// taken for gone.
const WATCH_SECONDS: u32 = 60;

/// The `resourceVersion` that a watch went on from is too old; everything is listed again.
const GONE: u16 = 410;

/// A right that a Role grants, by which a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub verb: &'static str,
    /// The plural, followed by the API group unless that is the core's: as in
    /// `leases.coordination.k8s.io`.
    pub resource: &'static str,
}

impl Right {
    pub const fn new(verb: &'static str, resource: &'static str) -> Self {
        Right { verb, resource }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)
    }
}

/// Why the API server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{right}: the API server did not answer within {} seconds", within.as_secs())]
    Deadline { right: Right, within: Duration },
    #[error("{right}: the API server cannot be reached: {why}")]
    Unreachable { right: Right, why: String },
    #[error(
        "the control plane's service account may not {right}; grant it, as deploy/helm/anyam/templates/rbac.yaml does ({message})"
    )]
    NotGranted { right: Right, message: String },
    #[error("{right}: {}", .status.message)]
    Refused { right: Right, status: Box<Status> },
}

impl CallError {
    fn new(right: Right, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(right, status),
            other => CallError::Unreachable {
                right,
                why: chain(other),
            },
        }
    }

    fn of_status(right: Right, status: &Status) -> Self {
        // Quotas and admission answer 403 too, in other words.
        if status.is_forbidden() && status.message.contains("is forbidden: User ") {
            let message = status.message.clone();
            return CallError::NotGranted { right, message };
        }
        let status = Box::new(status.clone());
        CallError::Refused { right, status }
    }

    /// The failure of a watch. `None`: the watch expired, relist.
    pub fn of_watch(right: Right, error: &watcher::Error) -> Option<Self> {
        use watcher::Error::{
            InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
        };
        let found = match error {
            InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
                Self::new(right, error)
            }
            WatchError(status) => Self::of_status(right, status),
            NoResourceVersion => CallError::Unreachable {
                right,
                why: chain(error),
            },
        };
        match &found {
            CallError::Refused { status, .. } if status.code == GONE => None,
            _ => Some(found),
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    /// Another has changed or made the object meanwhile.
    pub fn is_conflict(&self) -> bool {
        let of = |status: &Status| status.is_conflict() || status.is_already_exists();
        self.status().is_some_and(of)
    }

    /// Nothing can be made in a namespace that is being deleted.
    pub fn is_of_ending_namespace(&self) -> bool {
        let details = self.status().and_then(|status| status.details.as_ref());
        let mut causes = details.iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// Whether the API server answered at all.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            CallError::NotGranted { .. } | CallError::Refused { .. }
        )
    }

    fn status(&self) -> Option<&Status> {
        match self {
            CallError::Refused { status, .. } => Some(status),
            _ => None,
        }
    }
}

/// An error with its causes, which its own text leaves out.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Makes a call.
///
/// # Errors
/// When there is no answer within `within`, or another one than wanted.
pub async fn call<T>(
    right: Right,
    within: Duration,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(within, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::new(right, &error)),
        Err(_) => Err(CallError::Deadline { right, within }),
    }
}

/// A watch of all objects of a kind.
pub fn watch_all() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// A watch of the objects of one name, which a right that names it suffices for.
pub fn watch_named(name: &str) -> watcher::Config {
    watch_all().fields(&format!("metadata.name={name}"))
}

/// Logs a failure when it begins or changes, and its end, of what is tried again and again.
pub struct FailureLog {
    /// What is done, as in "keeping the Lease".
    what: &'static str,
    last: Option<String>,
}

impl FailureLog {
    pub fn new(what: &'static str) -> Self {
        FailureLog { what, last: None }
    }

    pub fn failed(&mut self, error: &impl fmt::Display) {
        let error = error.to_string();
        if self.last.as_ref() != Some(&error) {
            tracing::warn!(%error, "{} failed; it is tried again", self.what);
            self.last = Some(error);
        }
    }

    pub fn succeeded(&mut self) {
        if self.last.take().is_some() {
            tracing::info!("{} succeeds again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: Right = Right::new("list", "pods");

    fn answer(code: u16, reason: &str, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status {
            code,
            reason: reason.into(),
            message: message.into(),
            ..Status::default()
        }))
    }

    #[test]
    fn a_missing_right_is_named_and_other_refusals_are_not_taken_for_one() {
        let text = "pods is forbidden: User \"u\" cannot list resource \"pods\"";
        let error = CallError::new(LIST, &answer(403, "Forbidden", text));
        assert!(error.to_string().contains("may not list pods; grant it"));
        let quota = "configmaps \"c\" is forbidden: exceeded quota: q";
        let error = CallError::new(LIST, &answer(403, "Forbidden", quota));
        assert!(matches!(error, CallError::Refused { .. }));
        assert!(error.is_answer() && !error.is_conflict() && !error.is_not_found());
    }

    #[test]
    fn conflicts_are_both_those_of_versions_and_of_names() {
        let conflict = |code, reason| CallError::new(LIST, &answer(code, reason, "")).is_conflict();
        assert!(conflict(409, "Conflict") && conflict(409, "AlreadyExists"));
        assert!(!conflict(404, "NotFound"));
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline() {
        let never = std::future::pending::<kube::Result<()>>();
        let within = Duration::from_millis(5);
        let error = call(LIST, within, never).await.unwrap_err();
        assert!(matches!(error, CallError::Deadline { .. }) && !error.is_answer());
    }
}
