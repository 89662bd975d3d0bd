//! Which join tokens were used. Kept on disk, so that a restart does not make them good again;
//! bounded, because an id is removed once its token has expired.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{CaError, private};

/// Why a token can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UseError {
    #[error("the join token was used already; mint a new one with `anyam-control token`")]
    Used,
    #[error(
        "too many join tokens were used within their lifetime; try again when some have expired"
    )]
    Full,
    #[error(transparent)]
    Ca(#[from] CaError),
}

pub struct Used {
    path: PathBuf,
    file: File,
    /// Id → seconds since 1970 at which its token expires.
    ids: HashMap<String, u64>,
    capacity: usize,
    /// Lines in the file, expired ones too.
    lines: usize,
}

impl Used {
    /// # Errors
    /// When the file can't be read or written, is open to others, or is damaged.
    pub fn open(state: &Path, now: u64, capacity: usize) -> Result<Self, CaError> {
        let path = state.join("used-join-tokens");
        let mut ids = HashMap::new();
        if let Some(content) = private::read(&path)? {
            for line in String::from_utf8_lossy(&content).lines() {
                // Torn lines are of tokens that were not answered yet.
                let Some((exp, id)) = line.split_once(' ') else {
                    continue;
                };
                let exp: u64 = exp.parse().unwrap_or(u64::MAX);
                if exp > now {
                    ids.insert(id.to_owned(), exp);
                }
            }
        }
        let mut used = Used {
            file: private::append(&path)?,
            path,
            ids,
            capacity,
            lines: 0,
        };
        used.rewrite()?;
        Ok(used)
    }

    /// Marks a token as used, on disk before this returns.
    ///
    /// # Errors
    /// When it was used before, or that can't be remembered.
    pub fn use_up(&mut self, id: &str, exp: u64, now: u64) -> Result<(), UseError> {
        if self.ids.contains_key(id) {
            return Err(UseError::Used);
        }
        if self.ids.len() >= self.capacity || self.lines / 2 >= self.capacity {
            self.ids.retain(|_, exp| *exp > now);
            self.rewrite()?;
        }
        if self.ids.len() >= self.capacity {
            return Err(UseError::Full);
        }
        // The line end comes first: a line that was written in part, as when the disk is full, must
        // not take the next one with it.
        let line = format!("\n{exp} {id}");
        let write = self.file.write_all(line.as_bytes());
        let write = write.and_then(|()| self.file.sync_data());
        write.map_err(|source| CaError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.lines = self.lines.saturating_add(1);
        self.ids.insert(id.to_owned(), exp);
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), CaError> {
        let lines: Vec<_> = self
            .ids
            .iter()
            .map(|(id, exp)| format!("{exp} {id}"))
            .collect();
        private::write(&self.path, lines.join("\n").as_bytes())?;
        self.file = private::append(&self.path)?;
        self.lines = self.ids.len();
        Ok(())
    }
}
