//! One file of the folder, and what a look at it found.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::absence::{self, Absence};
use super::walk::{self, Stamp, is_blank};
use super::{FileError, Sourced, yaml};
use crate::model::ObjectId;

#[derive(Debug, Default)]
pub struct Known {
    text: String,
    pub stamp: Option<Stamp>,
    pub filled: bool,
    /// Of the last good version.
    pub objects: BTreeMap<ObjectId, Sourced>,
    /// Of the present version.
    pub errors: Vec<FileError>,
    pub emptied: Absence,
}

/// What a look at a file found.
pub enum Look {
    /// Nothing new.
    Same,
    Gone,
    Read(io::Result<(String, Option<Stamp>)>),
}

impl Look {
    pub fn at(path: &Path) -> Self {
        match walk::read(path) {
            Ok(Some(read)) => Look::Read(Ok(read)),
            Ok(None) => Look::Gone,
            Err(error) => Look::Read(Err(error)),
        }
    }

    pub fn is_filled(&self) -> bool {
        match self {
            Look::Same | Look::Gone => false,
            Look::Read(read) => read.as_ref().map_or(true, |(text, _)| !is_blank(text)),
        }
    }
}

impl Known {
    /// What it declares, if that may be something else than before.
    pub fn take(
        &mut self,
        name: &str,
        look: Look,
        now: Instant,
    ) -> Option<BTreeMap<ObjectId, Sourced>> {
        let (text, stamp) = match look {
            Look::Same | Look::Gone => {
                self.emptied = Absence::default();
                return None;
            }
            Look::Read(Ok(read)) => read,
            Look::Read(Err(error)) => {
                // It is not known to be empty any more.
                self.emptied = Absence::default();
                self.filled = true;
                self.stamp = None;
                self.text.clear();
                self.errors = vec![problem(name, &error)];
                return None;
            }
        };
        self.filled = !is_blank(&text);
        let emptied = !self.objects.is_empty() && !self.filled;
        if self.emptied.holds(emptied, absence::FILE, now) {
            self.stamp = None;
            return None;
        }
        self.stamp = stamp;
        if text == self.text && !text.is_empty() {
            return None;
        }
        self.text = text;
        match yaml::parse(name, &self.text) {
            Ok(objects) => {
                self.errors.clear();
                let objects = objects.into_iter();
                Some(objects.map(|it| (it.object.id(), it)).collect())
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
        message: format!("cannot be read: {error}; what it said last serves on"),
        ..FileError::default()
    }
}
