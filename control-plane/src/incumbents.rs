//! Which of several claimants of one thing (an object's name, an address) has it, kept in a file:
//! where ages do not decide, a restart would else move live traffic. What has one claimant only is
//! not kept.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::state_file;

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IncumbentsError {
    #[error(
        "{path}: {error}; until this is mended, names may decide after a restart which of several declarations is in service"
    )]
    File { path: PathBuf, error: io::Error },
    #[error(
        "{path}: {error}; remove the file to let age and names decide which of several declarations is in service"
    )]
    Malformed {
        path: PathBuf,
        error: serde_json::Error,
    },
}

/// See the module. Only one process writes the file.
#[derive(Debug, Default)]
pub struct Incumbents {
    /// What is claimed, and who has it.
    current: BTreeMap<String, String>,
    /// From the file: what the last run decided and this one has not yet.
    earlier: BTreeMap<String, String>,
    /// `None`: in memory only.
    path: Option<PathBuf>,
    /// Whether `current` differs from the file.
    changed: bool,
}

impl Incumbents {
    /// As kept in `path`, which may not be there yet.
    ///
    /// # Errors
    /// When the file cannot be read or is not ours.
    pub fn load(path: &Path) -> Result<Self, IncumbentsError> {
        let (path, read) = (path.to_owned(), fs::read(path));
        let earlier = match read {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(earlier) => earlier,
                Err(error) => return Err(IncumbentsError::Malformed { path, error }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(IncumbentsError::File { path, error }),
        };
        Ok(Incumbents {
            earlier,
            path: Some(path),
            ..Incumbents::default()
        })
    }

    /// Who had `claimed` in the last run, unless this run has decided that already.
    pub fn earlier(&self, claimed: impl Display) -> Option<&str> {
        if self.earlier.is_empty() {
            return None;
        }
        self.earlier.get(&claimed.to_string()).map(String::as_str)
    }

    /// Records who has `claimed` from now on; `None`: at most one claimant is left.
    pub fn note(&mut self, claimed: impl Display, incumbent: Option<impl Display>) {
        if incumbent.is_none() && self.current.is_empty() && self.earlier.is_empty() {
            return;
        }
        let claimed = claimed.to_string();
        let earlier = self.earlier.remove(&claimed);
        let before = earlier.or_else(|| self.current.remove(&claimed));
        let now = incumbent.map(|incumbent| incumbent.to_string());
        self.changed |= before != now;
        if let Some(now) = now {
            self.current.insert(claimed, now);
        }
    }

    /// Writes what differs from the file, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be written; it is tried again the next time.
    pub fn save(&mut self) -> Result<(), IncumbentsError> {
        let Some(path) = self.path.as_deref().filter(|_| self.changed) else {
            return Ok(());
        };
        let text = serde_json::to_vec(&self.current).map_err(io::Error::from);
        let written = text.and_then(|text| state_file::replace(path, text));
        self.changed = written.is_err();
        written.map_err(|error| IncumbentsError::File {
            path: path.to_owned(),
            error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_claim_is_kept_until_it_is_decided_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incumbents.json");
        let mut first = Incumbents::load(&path).unwrap();
        first.note("a", None::<&str>);
        first.save().unwrap();
        assert!(!path.exists(), "nothing to keep");
        for (claimed, incumbent) in [("a", "x"), ("b", "y"), ("c", "z")] {
            first.note(claimed, Some(incumbent));
        }
        first.save().unwrap();

        let mut second = Incumbents::load(&path).unwrap();
        assert_eq!(second.earlier("a"), Some("x"));
        second.note("a", Some("x"));
        assert_eq!(second.earlier("a"), None, "decided in this run");
        second.note("b", None::<&str>);
        second.note("c", Some("w"));
        second.save().unwrap();
        let third = Incumbents::load(&path).unwrap();
        let all = ["a", "b", "c"].map(|claimed| third.earlier(claimed));
        assert_eq!(all, [Some("x"), None, Some("w")]);
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incumbents.json");
        for text in ["", "[", "{\"a\": 1}"] {
            fs::write(&path, text).unwrap();
            let error = Incumbents::load(&path).unwrap_err().to_string();
            let names = error.contains("incumbents.json") && error.contains("remove the file");
            assert!(names, "{text:?}: {error}");
        }
    }
}
