//! Folders below the root that have lost all files that declared something. Such a folder may be a
//! volume that is not mounted at the moment.

use std::collections::BTreeSet;
use std::iter::successors;

use super::{FileError, absence};

/// The folders above a file, the innermost first, without the root.
fn above(file: &str) -> impl Iterator<Item = &str> {
    successors(parent_of(file), |&folder| parent_of(folder))
}

fn parent_of(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// Folders that have, in them or below, a file that declares something.
pub struct Declaring<'a>(BTreeSet<&'a str>);

impl<'a> Declaring<'a> {
    /// `files`: those that declare something.
    pub fn of(files: impl Iterator<Item = &'a String>) -> Self {
        Declaring(files.flat_map(|file| above(file)).collect())
    }

    /// The outermost folder above a file that has lost all; `None`: its own has others.
    pub fn emptied<'f>(&self, file: &'f str) -> Option<&'f str> {
        let emptied = above(file).take_while(|folder| !self.0.contains(*folder));
        emptied.last()
    }
}

/// What is said of a folder that keeps what it declared.
pub fn all_gone(folder: &str, objects: usize) -> FileError {
    FileError {
        file: folder.to_owned(),
        message: format!(
            "the folder has no objects any more; the {objects} that it had serve on for {} s. Put them back, or wait if all are meant to go",
            absence::FOLDER.as_secs()
        ),
        ..FileError::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_folder_without_a_declaring_file_is_named() {
        let files = ["a.yaml", "vol/a/1.yaml", "other/2.yaml"].map(str::to_owned);
        let declaring = Declaring::of(files.iter());
        for (missing, emptied) in [
            ("b.yaml", None),
            ("vol/a/b.yaml", None),
            ("vol/c.yaml", None),
            ("vol/b/c.yaml", Some("vol/b")),
            ("gone/c.yaml", Some("gone")),
            ("gone/b/c.yaml", Some("gone")),
        ] {
            assert_eq!(declaring.emptied(missing), emptied, "{missing}");
        }
    }
}
