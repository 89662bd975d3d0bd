//! Where objects come from.
//!
//! - [`yaml`]: the text of one file into objects, errors with line and field
//! - [`files`]: a folder of files; the last good version of each serves on
//! - [`watch`]: tells of changes in the folder, debounced

pub mod files;
pub mod watch;
pub mod yaml;

use std::fmt;

use crate::model::Object;

/// An object and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced {
    pub object: Object,
    /// Relative to the folder.
    pub file: String,
    /// 1-based line where its document's first field stands; 0: not known.
    pub line: usize,
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Relative to the folder.
    pub file: String,
    /// 1-based; 0: the whole file.
    pub line: usize,
    pub column: usize,
    /// `spec.ports[0].port`; empty: no field in particular.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
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
