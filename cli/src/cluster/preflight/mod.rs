//! What would be in the way of an installation.
//!
//! - `server`: the API server, its version and what it serves; nodes
//! - `rights`: those of the user who installs
//! - `neighbours`: what is in the cluster already: the Gateway API, other meshes, pod security
//! - `release`: an earlier installation

mod neighbours;
mod release;
mod rights;
mod server;

use serde::Serialize;

use super::{Cluster, ClusterError};

/// How well a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// The mesh can be installed, and something will not be as expected.
    Warning,
    /// It cannot be installed, or would not work.
    Error,
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreCheck {
    pub level: Level,
    pub what: String,
    /// Empty where nothing is to be done.
    pub todo: String,
}

impl PreCheck {
    fn ok(what: impl Into<String>) -> Self {
        PreCheck {
            level: Level::Ok,
            what: what.into(),
            todo: String::new(),
        }
    }

    fn warning(what: impl Into<String>, todo: impl Into<String>) -> Self {
        PreCheck {
            level: Level::Warning,
            what: what.into(),
            todo: todo.into(),
        }
    }

    fn error(what: impl Into<String>, todo: impl Into<String>) -> Self {
        PreCheck {
            level: Level::Error,
            what: what.into(),
            todo: todo.into(),
        }
    }

    /// `subject` could not be looked at.
    fn unread(subject: &str, error: &ClusterError) -> Self {
        match error.is_forbidden() {
            true => PreCheck::warning(
                format!("{subject}: not looked at, because you may not read it"),
                "let an administrator of the cluster run this check",
            ),
            false => PreCheck::warning(format!("{subject}: {error}"), "run this check again"),
        }
    }
}

/// Checks whether the mesh can be installed in `namespace`.
///
/// # Errors
/// When the API server can't be asked at all.
pub async fn run(cluster: &Cluster, namespace: &str) -> Result<Vec<PreCheck>, ClusterError> {
    let mut all = server::version(cluster).await?;
    all.extend(server::served(cluster).await);
    all.push(server::aggregation(cluster).await);
    all.push(server::nodes(cluster).await);
    all.extend(rights::check(cluster, namespace).await);
    all.extend(release::check(cluster, namespace).await);
    all.extend(neighbours::gateway_api(cluster).await);
    all.push(neighbours::injectors(cluster).await);
    all.push(neighbours::pod_security(cluster).await);
    Ok(all)
}

/// `v1.34.4`, `v1.30.1-gke.100` or `1.29` as major and minor.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.trim_start_matches('v').split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_the_ways_they_are_written() {
        assert_eq!(version_of("v1.34.4"), Some((1, 34)));
        assert_eq!(version_of("v1.30.1-gke.100"), Some((1, 30)));
        assert_eq!(version_of("1.29"), Some((1, 29)));
        assert_eq!(version_of("v1.x"), None);
        assert_eq!(version_of(""), None);
    }
}
