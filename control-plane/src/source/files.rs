//! A folder of manifests. A file that turns bad keeps its last good objects in service; a file or a
//! folder that turns empty keeps them until it has stayed empty for a while ([`super::absence`]).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::absence::{self, Absence};
use super::duplicates::Duplicates;
use super::{FileError, Observed, Sourced, yaml};
use crate::model::ObjectId;
use crate::model::mesh::change::{Delta, Origin};

/// Bytes in one file.
const MAX_FILE: u64 = 8 << 20;
/// Files in the folder.
const MAX_FILES: usize = 20_000;
/// Folders within folders; also ends circles of symbolic links.
const MAX_DEPTH: usize = 16;

/// All that the folder's files declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// In the order of files and of documents in them; each object once.
    pub objects: Vec<Sourced>,
    pub errors: Vec<FileError>,
}

/// The folder and the content of its files at the last scan.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<String, Known>,
    /// What [`Folder::changes`] reported last.
    told: BTreeMap<ObjectId, Sourced>,
    told_errors: Vec<FileError>,
    /// Of everything.
    gone: Absence,
    duplicates: Duplicates,
}

#[derive(Debug, Default)]
struct Known {
    text: String,
    /// Of the last good version.
    objects: Vec<Sourced>,
    /// Of the present version.
    errors: Vec<FileError>,
    emptied: Absence,
}

type Texts = BTreeMap<String, io::Result<String>>;

impl Folder {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Folder {
            root: root.into(),
            files: BTreeMap::new(),
            told: BTreeMap::new(),
            told_errors: Vec::new(),
            gone: Absence::default(),
            duplicates: Duplicates::default(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads the folder again. Files that have not changed are not parsed.
    pub fn scan(&mut self, now: Instant) -> Scan {
        let mut found = Texts::new();
        let mut errors = Vec::new();
        if let Err(error) = self.walk(&self.root.clone(), 0, &mut found) {
            // Nothing is dropped because a folder is out of reach.
            errors.push(problem(&self.root.display().to_string(), &error));
        } else if self.is_held_back(&found, now) {
            errors.push(self.everything_gone());
            found.clear();
        } else {
            self.files.retain(|name, known| {
                let left = known.emptied.left(absence::FILE, now);
                found.contains_key(name) || left.is_some_and(|left| !left.is_zero())
            });
        }
        for (name, text) in found {
            let known = self.files.entry(name.clone()).or_default();
            match text {
                Ok(text) => known.read(&name, text, now),
                Err(error) => {
                    known.text.clear();
                    known.errors = vec![problem(&name, &error)];
                }
            }
        }
        self.merged(errors)
    }

    /// Reads the folder again and returns what differs from the last time.
    pub fn changes(&mut self) -> Observed {
        let Scan { objects, errors } = self.scan(Instant::now());
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

    /// When to look again though nothing may have changed by then.
    pub fn due(&self) -> Option<Duration> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<Duration> {
        let files = self.files.values();
        let emptied = files.filter_map(|known| known.emptied.left(absence::FILE, now));
        emptied.chain(self.gone.left(absence::FOLDER, now)).min()
    }

    /// Whether all objects would go at once, and have not been gone for long enough.
    fn is_held_back(&mut self, found: &Texts, now: Instant) -> bool {
        let had = self.files.values().any(|known| !known.objects.is_empty());
        let blank = |text: &io::Result<String>| text.as_ref().is_ok_and(|it| is_blank(it));
        let gone = had && found.values().all(blank);
        let held = self.gone.holds(gone, absence::FOLDER, now);
        if gone && !held {
            tracing::error!(folder = %self.root.display(), "the folder has stayed empty: everything it declared is withdrawn");
            self.files.clear();
        }
        if held {
            // Files come back one by one: the first must not withdraw the others.
            let files = self.files.values_mut();
            files.for_each(|known| known.emptied.begin(now));
        }
        held
    }

    fn everything_gone(&self) -> FileError {
        let count: usize = self.files.values().map(|known| known.objects.len()).sum();
        FileError {
            file: self.root.display().to_string(),
            message: format!(
                "the folder has no manifests any more; the {count} objects that it had serve on for {} s. Put the files back, or wait if everything is meant to go",
                absence::FOLDER.as_secs()
            ),
            ..FileError::default()
        }
    }

    fn merged(&mut self, mut errors: Vec<FileError>) -> Scan {
        let files = self.files.values();
        errors.extend(files.clone().flat_map(|known| known.errors.iter().cloned()));
        let all = files.flat_map(|known| &known.objects);
        let objects = self.duplicates.resolve(all, &mut errors);
        Scan { objects, errors }
    }

    fn walk(&self, folder: &Path, depth: usize, found: &mut Texts) -> io::Result<()> {
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
            // Gone since the folder was read: the next scan finds it missing.
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
                let text = match special(&metadata) {
                    Some(what) => Err(io::Error::other(format!("it is {what}"))),
                    None => read(&path),
                };
                found.insert(relative.display().to_string(), text);
            }
        }
        Ok(())
    }
}

impl Known {
    fn read(&mut self, name: &str, text: String, now: Instant) {
        let emptied = !self.objects.is_empty() && is_blank(&text);
        if self.emptied.holds(emptied, absence::FILE, now) {
            return;
        }
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

/// What a path is whose opening could wait for another process, or do something.
fn special(metadata: &fs::Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_fifo() => Some("a FIFO and no file"),
        () if kind.is_socket() => Some("a socket and no file"),
        () => Some("a device and no file"),
    }
}

/// Whatever the path has become since it was looked at, this neither waits nor takes more than the
/// bound.
fn read(path: &Path) -> io::Result<String> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if let Some(what) = special(&file.metadata()?) {
        return Err(io::Error::other(format!("it is {what}")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("more than {MAX_FILE} bytes; split the file");
        return Err(io::Error::other(message));
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// No document in it.
fn is_blank(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
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
        message: format!("cannot be read: {error}; what it said last serves on"),
        ..FileError::default()
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
        let first = folder.scan(Instant::now());
        assert_eq!(
            (names(&first), first.errors.len()),
            (vec!["a".into(), "b".into()], 0)
        );

        write("a.yaml", &service("a", "none"));
        write("deep/er/b.yml", &service("c", "80"));
        let second = folder.scan(Instant::now());
        assert_eq!(names(&second), ["a", "c"]);
        assert_eq!(second.objects[0], first.objects[0], "the last good version");
        assert_eq!(second.errors.len(), 1);
        assert!(
            second.errors[0]
                .to_string()
                .starts_with("a.yaml:4:25: spec.ports[0].port: ")
        );

        write("a.yaml", &service("a", "81"));
        assert!(folder.scan(Instant::now()).errors.is_empty());
        fs::remove_file(root.path().join("a.yaml")).unwrap();
        assert_eq!(names(&folder.scan(Instant::now())), ["c"]);
        fs::rename(root.path(), root.path().with_extension("away")).unwrap();
        let gone = folder.scan(Instant::now());
        assert_eq!((names(&gone), gone.errors.len()), (vec!["c".into()], 1));
        fs::rename(root.path().with_extension("away"), root.path()).unwrap();
    }

    fn error_texts(scan: &Scan) -> Vec<String> {
        scan.errors.iter().map(ToString::to_string).collect()
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
    fn what_is_no_file_is_told_and_never_waited_for() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.yaml"), service("a", "80")).unwrap();
        let fifo = root.path().join("b.yaml");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("c.yaml")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", root.path().join("d.yaml")).unwrap();
        let scan = Folder::new(root.path()).scan(Instant::now());
        assert_eq!(names(&scan), ["a"]);
        let expected = ["b.yaml", "c.yaml", "d.yaml"].map(|file| {
            let what = match file {
                "b.yaml" => "a FIFO",
                "c.yaml" => "a socket",
                _ => "a device",
            };
            format!("{file}: cannot be read: it is {what} and no file; what it said last serves on")
        });
        assert_eq!(error_texts(&scan), expected);
        // One that takes a file's place between a look and the opening.
        assert!(read(&fifo).unwrap_err().to_string().contains("a FIFO"));
    }

    #[test]
    fn an_empty_moment_withdraws_nothing() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        write("a.yaml", &service("a", "80"));
        write("b.yaml", &service("b", "80"));
        let mut folder = Folder::new(root.path());
        let start = Instant::now();
        folder.scan(start);
        assert_eq!(folder.due_at(start), None);

        for blank in ["", "\n\n", "# soon\n---\n"] {
            write("a.yaml", blank);
            let scan = folder.scan(start);
            assert_eq!(
                (names(&scan), scan.errors.len()),
                (vec!["a".into(), "b".into()], 0)
            );
            assert_eq!(folder.due_at(start), Some(absence::FILE));
        }
        write("a.yaml", &service("c", "80"));
        assert_eq!(
            names(&folder.scan(start)),
            ["c", "b"],
            "filled again: at once"
        );
        assert_eq!(folder.due_at(start), None);
        write("a.yaml", "");
        folder.scan(start);
        assert_eq!(
            names(&folder.scan(start + absence::FILE)),
            ["b"],
            "it stayed empty"
        );
    }

    #[test]
    fn everything_goes_only_when_it_has_stayed_gone_and_it_is_told() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        let remove = |name: &str| fs::remove_file(root.path().join(name)).unwrap();
        let mut folder = Folder::new(root.path());
        let start = Instant::now();
        let almost = start + absence::FOLDER - Duration::from_millis(1);
        assert!(
            folder.scan(start).errors.is_empty(),
            "it may be empty at first"
        );
        for way in ["removed", "emptied"] {
            write("a.yaml", &service("a", "80"));
            write("b.yaml", &service("b", "80"));
            assert_eq!(folder.scan(start).objects.len(), 2);
            match way {
                "removed" => ["a.yaml", "b.yaml"].map(remove),
                _ => ["a.yaml", "b.yaml"].map(|name| write(name, "")),
            };
            for now in [start, almost] {
                let scan = folder.scan(now);
                assert_eq!(scan.objects.len(), 2, "{way}");
                assert!(
                    scan.errors[0].message.contains("no manifests any more"),
                    "{way}"
                );
                assert!(folder.due_at(now).unwrap() <= absence::FOLDER);
            }
            // One that comes back ends it; the others have a moment to follow.
            write("b.yaml", &service("b", "80"));
            remove_if(root.path().join("a.yaml"));
            let back = folder.scan(almost);
            assert_eq!((back.objects.len(), back.errors.len()), (2, 0), "{way}");
            let later = almost + absence::FILE;
            assert_eq!(names(&folder.scan(later)), ["b"], "{way}");
            assert_eq!(folder.due_at(later), None);

            remove("b.yaml");
            folder.scan(later);
            let gone = folder.scan(later + absence::FOLDER);
            assert_eq!((gone.objects.len(), gone.errors.len()), (0, 0), "{way}");
        }
    }

    fn remove_if(path: PathBuf) {
        if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_byte_order_mark_is_taken_and_other_encodings_are_told() {
        let root = tempfile::tempdir().unwrap();
        let text = format!("\u{feff}{}", service("a", "80"));
        fs::write(root.path().join("a.yaml"), text).unwrap();
        let wide: Vec<u8> = "kind: Service\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        fs::write(
            root.path().join("b.yaml"),
            [&b"\xff\xfe"[..], &wide].concat(),
        )
        .unwrap();
        let scan = Folder::new(root.path()).scan(Instant::now());
        assert_eq!(names(&scan), ["a"]);
        assert!(error_texts(&scan)[0].contains("b.yaml: cannot be read: invalid utf-8"));
    }
}
