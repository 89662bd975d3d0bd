//! A temporary state folder, of a process that was given none. It is locked while its process runs
//! (flock, which the kernel releases however the process ends), so that another control plane can tell
//! the folder of one that was killed, and removes it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ca::{CaError, private};
use crate::text::hex;

const PREFIX: &str = "anyam-control-";
/// Of a folder that is not locked yet.
const UNLOCKED: &str = ".anyam-control-";

/// A folder that is removed with what is in it.
pub struct TemporaryDir {
    pub path: PathBuf,
    _lock: File,
}

impl TemporaryDir {
    /// # Errors
    /// When it can't be made.
    pub fn new() -> Result<Self, CaError> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> Result<Self, CaError> {
        remove_abandoned(parent);
        let mut random = [0u8; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| CaError::Signing("no random bytes".into()))?;
        let random = hex(&random);
        // It has its name when it is locked: under that, another would remove it.
        let unlocked = parent.join(format!("{UNLOCKED}{random}"));
        private::directory(&unlocked)?;
        let path = parent.join(format!("{PREFIX}{random}"));
        let attempt = || -> io::Result<File> {
            let lock = File::open(&unlocked)?;
            lock.try_lock()?;
            fs::rename(&unlocked, &path)?;
            Ok(lock)
        };
        match attempt() {
            Ok(lock) => Ok(TemporaryDir { path, _lock: lock }),
            Err(source) => Err(CaError::Io { path, source }),
        }
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::info!(%error, folder = %self.path.display(), "a temporary folder stays");
        }
    }
}

/// Removes the folders of processes that were killed.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let ours = ours.is_some_and(|rest| {
            rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if !ours {
            continue;
        }
        let path = entry.path();
        match remove_unlocked(&path) {
            Ok(true) => {
                tracing::info!(folder = %path.display(), "removed, its control plane was killed");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::info!(%error, folder = %path.display(), "a temporary folder stays")
            }
        }
    }
}

/// Whether it was removed. Others' folders, and what is no folder, are not.
fn remove_unlocked(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != fs::metadata("/proc/self")?.uid() {
        return Ok(false);
    }
    match File::open(path)?.try_lock() {
        Ok(()) => fs::remove_dir_all(path).map(|()| true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(parent)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn folders_of_killed_processes_are_removed_and_no_others() {
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path();
        let abandoned = parent.join("anyam-control-0123456789abcdef");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join("api-token"), "secret").unwrap();
        let kept = ["anyam-control-mine", "other"].map(|name| parent.join(name));
        for path in &kept {
            fs::create_dir(path).unwrap();
        }
        let link = parent.join("anyam-control-00000000000000aa");
        std::os::unix::fs::symlink(&kept[1], &link).unwrap();

        let one = TemporaryDir::new_in(parent).unwrap();
        fs::write(one.path.join("api-token"), "secret").unwrap();
        let other = TemporaryDir::new_in(parent).unwrap();
        let [mine, elsewhere] = kept;
        let mut expected = vec![mine, elsewhere, link, one.path.clone(), other.path.clone()];
        expected.sort();
        assert_eq!(names(parent), expected);
        let gone = [one.path.clone(), other.path.clone()];
        drop((one, other));
        expected.retain(|path| !gone.contains(path));
        assert_eq!(names(parent), expected);
    }
}
