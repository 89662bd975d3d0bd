//! Files that only we may read: keys, tokens, the API's secret.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::CaError;

pub(crate) const DIRECTORY: u32 = 0o700;
pub(crate) const FILE: u32 = 0o600;

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::Io { path, source }
}

/// Makes the folder 0700, or checks that it is.
///
/// # Errors
/// When it can't be made, is another user's, or is open to others.
pub fn directory(path: &Path) -> Result<(), CaError> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY)
        .create(path);
    made.map_err(io_error(path))?;
    check(path, DIRECTORY)
}

/// Refuses what others may read or write. The owner may have fewer rights than `wanted`.
fn check(path: &Path, wanted: u32) -> Result<(), CaError> {
    let found = fs::metadata(path).map_err(io_error(path))?;
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(CaError::Loose { path, mode, wanted });
    }
    // Our own user, as the kernel sees it, without a call that needs unsafe.
    let us = fs::metadata("/proc/self")
        .map_err(io_error(Path::new("/proc/self")))?
        .uid();
    if found.uid() != us {
        let (path, owner) = (path.to_owned(), found.uid());
        return Err(CaError::Owner { path, owner, us });
    }
    Ok(())
}

/// `None` when there is no such file.
///
/// # Errors
/// When it can't be read, is another user's, or is open to others.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, CaError> {
    match fs::read(path) {
        Ok(content) => {
            check(path, FILE)?;
            Ok(Some(content))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// Replaces the file as a whole: after a crash it is the old one or the new one.
///
/// # Errors
/// When it can't be written.
pub fn write(path: &Path, content: &[u8]) -> Result<(), CaError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let attempt = || -> io::Result<()> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE)
            .open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    attempt().map_err(io_error(path))
}

/// Reads a secret, or makes it of what `make` gives.
///
/// # Errors
/// As [`read`] and [`write()`].
pub fn secret(path: &Path, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, CaError> {
    if let Some(found) = read(path)? {
        return Ok(found);
    }
    let made = make();
    write(path, &made)?;
    Ok(made)
}

/// Opens a file for appending, made 0600.
///
/// # Errors
/// When it can't be opened, is another user's, or is open to others.
pub fn append(path: &Path) -> Result<File, CaError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE);
    let file = options.open(path).map_err(io_error(path))?;
    check(path, FILE)?;
    Ok(file)
}
