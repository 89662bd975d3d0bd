//! One file of the folder, and what a look at it found.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::absence::{self, Absence};
use super::walk::{self, Stamp};
use super::{FileError, Sourced, yaml};
use crate::model::ObjectId;

/// What a file's text declares, or all errors in it.
type Parsed = Result<BTreeMap<ObjectId, Sourced>, Vec<FileError>>;

#[derive(Debug, Default)]
pub struct Known {
    text: String,
    pub stamp: Option<Stamp>,
    /// Whether the present version declares an object, or is invalid while the last good one does.
    pub declares: bool,
    /// Of the last good version.
    pub objects: BTreeMap<ObjectId, Sourced>,
    /// Of the present version.
    pub errors: Vec<FileError>,
    pub emptied: Absence,
    /// It is missing, with all that its folder had.
    pub vanished: Absence,
}

/// What a look at a file found.
pub enum Look {
    /// The file has not changed.
    Same,
    Gone,
    Failed(io::Error),
    Read {
        text: String,
        stamp: Option<Stamp>,
        /// `None`: the text has not changed.
        parsed: Option<Parsed>,
    },
}

impl Look {
    /// Reads the file at `path`; `known`: what was found there before.
    pub fn at(path: &Path, name: &str, known: Option<&Known>) -> Self {
        let (text, stamp) = match walk::read(path) {
            Ok(Some(read)) => read,
            Ok(None) => return Look::Gone,
            Err(error) => return Look::Failed(error),
        };
        let same = known.is_some_and(|known| known.text == text) && !text.is_empty();
        let parsed = (!same).then(|| match yaml::parse(name, &text) {
            Ok(objects) => Ok(objects.into_iter().map(|it| (it.object.id(), it)).collect()),
            Err(errors) => Err(errors),
        });
        Look::Read {
            text,
            stamp,
            parsed,
        }
    }

    /// Whether the file then declares an object; an invalid file keeps the objects of its last
    /// valid version.
    pub fn declares(&self, known: Option<&Known>) -> bool {
        match self {
            Look::Gone => false,
            Look::Read {
                parsed: Some(Ok(objects)),
                ..
            } => !objects.is_empty(),
            _ => known.is_some_and(|known| !known.objects.is_empty()),
        }
    }
}

impl Known {
    /// It is missing, and what it declared stays for now. When it comes back it is read anew, and
    /// the files beside it have a moment to follow.
    pub fn keep(&mut self, now: Instant) {
        self.emptied.begin(now);
        self.declares = false;
        self.stamp = None;
        self.text.clear();
        self.errors.clear();
    }

    /// What it declares, if that may be something else than before.
    pub fn take(
        &mut self,
        name: &str,
        look: Look,
        now: Instant,
    ) -> Option<BTreeMap<ObjectId, Sourced>> {
        self.declares = look.declares(Some(self));
        self.vanished = Absence::default();
        let (text, stamp, parsed) = match look {
            Look::Same | Look::Gone => {
                self.emptied = Absence::default();
                return None;
            }
            Look::Failed(error) => {
                // The file no longer counts as emptied.
                self.emptied = Absence::default();
                self.stamp = None;
                self.text.clear();
                self.errors = vec![problem(name, &error)];
                return None;
            }
            Look::Read {
                text,
                stamp,
                parsed,
            } => (text, stamp, parsed),
        };
        let emptied = !self.objects.is_empty() && !self.declares;
        if self.emptied.holds(emptied, absence::FILE, now) {
            self.stamp = None;
            return None;
        }
        self.stamp = stamp;
        let parsed = parsed?;
        self.text = text;
        match parsed {
            Ok(objects) => {
                self.errors.clear();
                Some(objects)
            }
            Err(errors) => {
                self.errors = errors;
                None
            }
        }
    }
}

pub fn problem(file: &str, error: &io::Error) -> FileError {
    FileError {
        file: file.to_owned(),
        message: format!("cannot be read: {error}; its last valid version stays in service"),
        ..FileError::default()
    }
}
