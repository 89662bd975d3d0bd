//! A folder of manifests. A file that turns bad keeps its last good objects in service.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{FileError, Sourced, yaml};
use crate::model::ObjectId;

/// Bytes in one file.
const MAX_FILE: u64 = 8 << 20;
/// Files in the folder.
const MAX_FILES: usize = 20_000;
/// Folders within folders; also ends circles of symbolic links.
const MAX_DEPTH: usize = 16;

/// Everything the folder says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// In the order of files and of documents in them; each object once.
    pub objects: Vec<Sourced>,
    pub errors: Vec<FileError>,
}

/// The folder and what its files said last.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<String, Known>,
}

#[derive(Debug, Default)]
struct Known {
    text: String,
    /// Of the last good version.
    objects: Vec<Sourced>,
    /// Of the present version.
    errors: Vec<FileError>,
}

impl Folder {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Folder {
            root: root.into(),
            files: BTreeMap::new(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads the folder again. Files that have not changed are not parsed.
    pub fn scan(&mut self) -> Scan {
        let mut found = BTreeMap::new();
        let mut errors = Vec::new();
        if let Err(error) = self.walk(&self.root.clone(), 0, &mut found) {
            // Nothing is dropped because a folder is out of reach.
            errors.push(problem(&self.root.display().to_string(), &error));
        } else {
            self.files.retain(|name, _| found.contains_key(name));
        }
        for (name, text) in found {
            let known = self.files.entry(name.clone()).or_default();
            match text {
                Ok(text) => known.read(&name, text),
                Err(error) => {
                    known.text.clear();
                    known.errors = vec![problem(&name, &error)];
                }
            }
        }
        self.merged(errors)
    }

    fn merged(&self, mut errors: Vec<FileError>) -> Scan {
        let mut objects: Vec<Sourced> = Vec::new();
        let mut places: BTreeMap<ObjectId, usize> = BTreeMap::new();
        for known in self.files.values() {
            errors.extend(known.errors.iter().cloned());
            for object in &known.objects {
                let id = object.object.id();
                match places.get(&id) {
                    None => {
                        places.insert(id, objects.len());
                        objects.push(object.clone());
                    }
                    Some(first) => {
                        let first = &objects[*first];
                        errors.push(FileError {
                            file: object.file.clone(),
                            line: object.line,
                            column: 1,
                            field: "metadata.name".to_owned(),
                            message: format!(
                                "{id} is already in {}:{}; this one is not used",
                                first.file, first.line
                            ),
                        });
                    }
                }
            }
        }
        Scan { objects, errors }
    }

    fn walk(
        &self,
        folder: &Path,
        depth: usize,
        found: &mut BTreeMap<String, io::Result<String>>,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!(
                "folders are nested more than {MAX_DEPTH} deep"
            )));
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // Editors' files, and the links by which Kubernetes mounts a ConfigMap.
            if name.starts_with('.') {
                continue;
            }
            // Gone since the folder was read: the next scan tells.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                self.walk(&path, depth + 1, found)?;
            } else if is_manifest(&path) {
                if found.len() == MAX_FILES {
                    return Err(io::Error::other(format!("more than {MAX_FILES} files")));
                }
                let relative = path.strip_prefix(&self.root).unwrap_or(&path);
                let text = match metadata.len() {
                    size if size > MAX_FILE => Err(io::Error::other(format!(
                        "more than {MAX_FILE} bytes; split the file"
                    ))),
                    _ => fs::read_to_string(&path),
                };
                found.insert(relative.display().to_string(), text);
            }
        }
        Ok(())
    }
}

impl Known {
    fn read(&mut self, name: &str, text: String) {
        if text == self.text && !text.is_empty() {
            return;
        }
        match yaml::parse(name, &text) {
            Ok(objects) => {
                self.objects = objects;
                self.errors.clear();
            }
            Err(errors) => self.errors = errors,
        }
        self.text = text;
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

fn problem(file: &str, error: &io::Error) -> FileError {
    FileError {
        file: file.to_owned(),
        line: 0,
        column: 0,
        field: String::new(),
        message: format!("cannot be read: {error}; what it said last serves on"),
    }
}
