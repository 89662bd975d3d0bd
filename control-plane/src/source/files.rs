//! A folder of manifests. A file that turns bad keeps its last good objects in service.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{FileError, Observed, Sourced, yaml};
use crate::model::ObjectId;
use crate::model::mesh::change::{Delta, Origin};

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
    /// What [`Folder::changes`] told last.
    told: BTreeMap<ObjectId, Sourced>,
    told_errors: Vec<FileError>,
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
            told: BTreeMap::new(),
            told_errors: Vec::new(),
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

    /// Reads the folder again and tells what differs from the last time.
    pub fn changes(&mut self) -> Observed {
        let Scan { objects, errors } = self.scan();
        let mut before = std::mem::take(&mut self.told);
        let mut delta = Delta::default();
        for sourced in objects {
            let id = sourced.object.id();
            if before.remove(&id).as_ref() != Some(&sourced) {
                let origin = Origin::File {
                    file: sourced.file.clone(),
                    line: sourced.line,
                };
                delta.set.push((sourced.object.clone(), origin));
            }
            self.told.insert(id, sourced);
        }
        delta.removed = before.into_keys().collect();
        let differ = errors != self.told_errors;
        let errors = differ.then(|| {
            self.told_errors.clone_from(&errors);
            errors
        });
        Observed { delta, errors }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ ports: [{{ port: {port} }}] }}\n"
        )
    }

    fn names(scan: &Scan) -> Vec<String> {
        scan.objects
            .iter()
            .map(|object| object.object.id().key.name)
            .collect()
    }

    #[test]
    fn a_bad_file_keeps_its_last_good_objects_and_others_change() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        fs::create_dir_all(root.path().join("deep/er")).unwrap();
        write("a.yaml", &service("a", "80"));
        write("deep/er/b.yml", &service("b", "80"));
        write(".hidden.yaml", "nonsense: [");
        write("notes.txt", "nonsense: [");
        let mut folder = Folder::new(root.path());
        let first = folder.scan();
        assert_eq!(
            (names(&first), first.errors.len()),
            (vec!["a".into(), "b".into()], 0)
        );

        write("a.yaml", &service("a", "none"));
        write("deep/er/b.yml", &service("c", "80"));
        let second = folder.scan();
        assert_eq!(names(&second), ["a", "c"]);
        assert_eq!(second.objects[0], first.objects[0], "the last good version");
        assert_eq!(second.errors.len(), 1);
        assert!(
            second.errors[0]
                .to_string()
                .starts_with("a.yaml:4:25: spec.ports[0].port: ")
        );

        write("a.yaml", &service("a", "81"));
        assert!(folder.scan().errors.is_empty());
        fs::remove_file(root.path().join("a.yaml")).unwrap();
        assert_eq!(names(&folder.scan()), ["c"]);
        fs::rename(root.path(), root.path().with_extension("away")).unwrap();
        let gone = folder.scan();
        assert_eq!((names(&gone), gone.errors.len()), (vec!["c".into()], 1));
        fs::rename(root.path().with_extension("away"), root.path()).unwrap();
    }

    #[test]
    fn changes_are_what_differs_from_the_last_time() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        write("a.yaml", &service("a", "80"));
        write("b.yaml", &service("b", "80"));
        let mut folder = Folder::new(root.path());
        let set = |observed: &Observed| {
            let set = observed.delta.set.iter();
            set.map(|(object, origin)| format!("{} {origin}", object.id().key.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(set(&folder.changes()), ["a a.yaml:1", "b b.yaml:1"]);
        assert!(folder.changes().is_empty());
        write("a.yaml", &service("a", "81"));
        fs::remove_file(root.path().join("b.yaml")).unwrap();
        write("c.yaml", &service("c", "none"));
        let next = folder.changes();
        assert_eq!(set(&next), ["a a.yaml:1"]);
        assert_eq!(next.delta.removed.len(), 1);
        assert_eq!(next.errors.map(|errors| errors.len()), Some(1));
        write("c.yaml", "");
        assert_eq!(folder.changes().errors, Some(Vec::new()));
    }

    #[test]
    fn the_same_object_in_two_files_is_told_and_the_first_is_used() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("1.yaml"), service("a", "80")).unwrap();
        fs::write(root.path().join("2.yaml"), service("a", "81")).unwrap();
        let scan = Folder::new(root.path()).scan();
        assert_eq!(scan.objects.len(), 1);
        assert_eq!(scan.objects[0].file, "1.yaml");
        assert_eq!(
            scan.errors[0].to_string(),
            "2.yaml:1:1: metadata.name: Service default/a is already in 1.yaml:1; this one is not used"
        );
    }
}
