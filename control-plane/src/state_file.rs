//! Replaces files of the state folder atomically.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the file, readable by its owner only, with a line feed at its end. After a crash the file
/// has the old or the new text; once this has returned, the new one.
///
/// # Errors
/// When it cannot be written; then the file is unchanged.
pub fn replace(path: &Path, mut text: Vec<u8>) -> io::Result<()> {
    text.push(b'\n');
    let temporary = path.with_extension("json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // Without this a crash could bring the old file back.
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
