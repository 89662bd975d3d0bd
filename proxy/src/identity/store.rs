//! Key, certificate and bundle on disk, so that a restart works without a new token.
//!
//! One file, replaced by rename: a crash leaves the old set or the new one, never a key without
//! its certificate.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Material;

const FILE: &str = "identity.json";
/// Largest file that is read, bytes.
const MAX: u64 = 1 << 20;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("{} is open to others (mode {mode:03o}); it holds a private key: chmod {wanted:03o}", path.display())]
    Mode {
        path: PathBuf,
        mode: u32,
        wanted: u32,
    },
    #[error("{} is not what this proxy wrote ({error}); remove it and give a new join token", path.display())]
    Content {
        path: PathBuf,
        error: serde_json::Error,
    },
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Content {
    private_key: String,
    certificate_chain: String,
    trust_bundle: String,
}

/// The directory of one proxy.
pub(super) struct StateStore {
    dir: PathBuf,
}

impl StateStore {
    /// Makes the directory if there is none.
    ///
    /// # Errors
    /// When it cannot be made, or other users may read it.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |doing| {
            let path = dir.to_owned();
            move |error| StoreError::Io { doing, path, error }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("create"))?;
        let meta = fs::metadata(dir).map_err(failed("look at"))?;
        private(dir, meta.mode(), 0o700)?;
        Ok(StateStore {
            dir: dir.to_owned(),
        })
    }

    /// `None`: nothing was stored yet.
    pub(super) fn load(&self) -> Result<Option<Material>, StoreError> {
        let path = self.dir.join(FILE);
        let failed = |error| StoreError::Io {
            doing: "read",
            path: path.clone(),
            error,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        private(&path, file.metadata().map_err(failed)?.mode(), 0o600)?;
        let mut text = Vec::new();
        file.take(MAX).read_to_end(&mut text).map_err(failed)?;
        let content: Content =
            serde_json::from_slice(&text).map_err(|error| StoreError::Content { path, error })?;
        Ok(Some(Material {
            key: content.private_key,
            chain: content.certificate_chain,
            roots: content.trust_bundle,
        }))
    }

    pub(super) fn save(&self, material: &Material) -> Result<(), StoreError> {
        let path = self.dir.join(FILE);
        let content = Content {
            private_key: material.key.clone(),
            certificate_chain: material.chain.clone(),
            trust_bundle: material.roots.clone(),
        };
        let write = || -> io::Result<()> {
            let fresh = self.dir.join(format!(".{FILE}.{}", std::process::id()));
            // Left over by a crash with the same process id, as in containers.
            let _ = fs::remove_file(&fresh);
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(&content)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| StoreError::Io {
            doing: "write",
            path: path.clone(),
            error,
        })
    }
}

fn private(path: &Path, mode: u32, wanted: u32) -> Result<(), StoreError> {
    let mode = fs::Permissions::from_mode(mode).mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Mode {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material() -> Material {
        Material {
            key: "k".into(),
            chain: "c".into(),
            roots: "r".into(),
        }
    }

    #[test]
    fn saved_files_are_private_and_load_again() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("a/b");
        let store = StateStore::open(&dir).unwrap();
        assert_eq!(store.load().unwrap(), None);
        store.save(&material()).unwrap();
        store.save(&material()).unwrap();
        assert_eq!(store.load().unwrap(), Some(material()));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join(FILE)), 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn files_that_others_can_read_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("state");
        let store = StateStore::open(&dir).unwrap();
        store.save(&material()).unwrap();
        let file = dir.join(FILE);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Mode { .. })));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(StateStore::open(&dir).is_err());
    }

    #[test]
    fn junk_is_an_error_that_says_what_to_do() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("state");
        let store = StateStore::open(&dir).unwrap();
        store.save(&material()).unwrap();
        fs::write(dir.join(FILE), b"{").unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
