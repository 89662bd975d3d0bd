//! The files of a folder: found, and read without waiting and within bounds.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes in one file.
const MAX_FILE: u64 = 8 << 20;
/// Files in the folder.
pub const MAX_FILES: usize = 20_000;
/// Folders within folders; also ends circles of symbolic links.
const MAX_DEPTH: usize = 16;
/// A file that changed so recently may change again without another stamp: the kernel's clock for
/// files has ticks of some milliseconds, other file systems' of seconds.
const RACY: Duration = Duration::from_secs(3);

/// Manifests by their path relative to the folder.
pub type Found = BTreeMap<String, (PathBuf, Metadata)>;

/// What differs when a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: another change could leave the stamp as it is.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let settled = |seconds: i64| seconds < now.saturating_sub(RACY).as_secs().cast_signed();
        (settled(metadata.mtime()) && settled(metadata.ctime())).then(|| Stamp {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// All manifests in a folder and those below it.
///
/// # Errors
/// When a folder cannot be read, or there is too much; `found` has what came before.
pub fn find(root: &Path, found: &mut Found) -> io::Result<()> {
    below(root, root, 0, found)
}

fn below(root: &Path, folder: &Path, depth: usize, found: &mut Found) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!(
            "folders are nested more than {MAX_DEPTH} deep"
        )));
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_hidden(&path) {
            continue;
        }
        // Gone since the folder was read: the next look finds it missing.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            below(root, &path, depth + 1, found)?;
        } else if is_manifest(&path) {
            if found.len() == MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files")));
            }
            found.insert(relative(root, &path), (path, metadata));
        }
    }
    Ok(())
}

/// What a changed path means for the manifests.
pub enum Concern {
    Nothing,
    /// This one was written, or is gone.
    File(String),
    /// More than one, or more than can be known from the path.
    All,
}

/// `known`: whether there are manifests below a path relative to the folder.
pub fn concern(root: &Path, path: &Path, known: impl Fn(&str) -> bool) -> Concern {
    let Ok(inner) = path.strip_prefix(root) else {
        return Concern::All;
    };
    let name = inner.display().to_string();
    let above = inner.parent().into_iter().flat_map(Path::components);
    let mut above = above.map(|part| Path::new(part.as_os_str()));
    if name.is_empty() || above.clone().count() > MAX_DEPTH || above.any(is_hidden) {
        return Concern::All;
    }
    let itself = fs::symlink_metadata(path);
    let gone = itself.as_ref().is_err_and(is_gone);
    let file = itself.is_ok_and(|it| it.is_file());
    match () {
        () if (gone || file) && known(&format!("{name}/")) => Concern::All,
        // An editor's. A link may be that by which Kubernetes replaces a volume's files.
        () if is_hidden(inner) && (file || gone) => Concern::Nothing,
        () if is_hidden(inner) => Concern::All,
        () if is_manifest(path) && !path.is_dir() => Concern::File(name),
        () if file || gone => Concern::Nothing,
        () => Concern::All,
    }
}

/// There is nothing at a path, or a file stands where a folder above it was.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// Editors' files, and the links by which Kubernetes mounts a ConfigMap.
fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().first() == Some(&b'.')
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// What a path is whose opening could wait for another process, or do something.
fn special(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_fifo() => Some("a FIFO and no file"),
        () if kind.is_socket() => Some("a socket and no file"),
        () => Some("a device and no file"),
    }
}

fn check(metadata: &Metadata) -> io::Result<()> {
    match special(metadata) {
        Some(what) => Err(io::Error::other(format!("it is {what}"))),
        None => Ok(()),
    }
}

/// The text of a file, and the stamp that it had before; `None`: it is gone.
///
/// # Errors
/// When it is no file, no text, or too large. Whatever the path has become since it was looked at,
/// this neither waits nor takes more than the bound.
pub fn read(path: &Path) -> io::Result<Option<(String, Option<Stamp>)>> {
    match read_there(path) {
        Err(error) if is_gone(&error) => Ok(None),
        read => read.map(Some),
    }
}

fn read_there(path: &Path) -> io::Result<(String, Option<Stamp>)> {
    // A device is not even opened.
    check(&fs::metadata(path)?)?;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    check(&metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("more than {MAX_FILE} bytes; split the file");
        return Err(io::Error::other(message));
    }
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok((text, Stamp::of(&metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_stamp_until_its_times_are_past() {
        let settled = fs::metadata("/bin/sh");
        assert!(Stamp::of(&settled.unwrap()).is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Stamp::of(&fs::metadata(file.path()).unwrap()), None);
    }
}
