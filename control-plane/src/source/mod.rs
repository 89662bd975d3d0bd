//! Where objects come from: each [`Source`] reports the difference to its last report.
//!
//! - [`yaml`]: the text of one file into objects, errors with line and field
//! - [`files`]: a folder of files; the last valid version of each stays in service; [`absence`]:
//!   how long emptied files and folders keep their objects; `emptied`: which folders those are;
//!   `declarations`: all that files declare,
//!   and which of it is in service; `duplicates`: the choice among several declarations of an
//!   object; `walk`: finds and reads the files; `file`: one of them
//! - [`watch`]: the folder as a source: its changes, debounced
//! - [`kubernetes`]: a cluster as a source

pub mod absence;
mod declarations;
mod duplicates;
mod emptied;
mod file;
pub mod files;
pub mod kubernetes;
mod walk;
pub mod watch;
pub mod yaml;

use std::fmt;

use crate::model::mesh::change::ObjectDelta;
use crate::model::{Object, ObjectId};

/// Reports what the mesh is declared to be, difference by difference.
pub trait Source: Send + 'static {
    /// Waits until something differs from the last report. The first report has everything.
    ///
    /// # Errors
    /// When no further report will come; the last one stays in force.
    fn next(&mut self) -> impl Future<Output = Result<Observed, SourceError>> + Send;

    /// What it reads, for people.
    fn name(&self) -> String;
}

/// What a source found since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub delta: ObjectDelta,
    /// All that cannot be read now; `None`: as before.
    pub errors: Option<Vec<FileError>>,
}

impl Observed {
    pub fn is_empty(&self) -> bool {
        self.delta.is_empty() && self.errors.is_none()
    }
}

/// Why a source ends.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("reading it panicked")]
    Panicked,
}

/// An object and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced {
    pub object: Object,
    /// Relative to the folder.
    pub file: String,
    /// 1-based line where its document's first field stands; 0: not known.
    pub line: usize,
}

/// An error in a file, or in an object of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileError {
    /// Relative to the folder. In a cluster kind, namespace and name of the object.
    pub file: String,
    /// 1-based; 0: the whole file.
    pub line: usize,
    pub column: usize,
    /// `spec.ports[0].port`; empty: no field in particular.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
    /// The object it concerns, if any.
    pub about: Option<About>,
}

/// How an error concerns an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The object is declared here too, and this declaration is not used.
    Duplicate(ObjectId),
    /// The field is not used; the rest of the object is.
    LeftOut(ObjectId),
    /// The object cannot be read: its last valid version stays in force, if there was one.
    Unreadable(ObjectId),
}

impl About {
    pub fn object(&self) -> &ObjectId {
        match self {
            About::Duplicate(id) | About::LeftOut(id) | About::Unreadable(id) => id,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}
