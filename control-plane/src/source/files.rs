//! A folder of manifests. A file that becomes invalid keeps its last valid objects in service; a
//! file or a folder that no longer declares anything keeps them until that has lasted for a while
//! ([`super::absence`]).
//!
//! The cost of a change follows its size: the files that the kernel named are read
//! ([`Folder::changes_in`]); where that does not suffice, the stamps of all files are compared and
//! those that differ are read. Then only the objects of files with a changed text are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::absence::{self, Absence};
use super::declarations::{Declarations, DeclaredObjects};
use super::emptied::{Declaring, all_gone};
use super::file::{Known, Look, problem};
use super::walk::{self, Concern, Found, Stamp};
use super::{FileError, Observed, Sourced};
use crate::incumbents::Incumbents;
use crate::model::ObjectId;

/// All that the folder's files declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// In the order of files and of documents in them; each object once.
    pub objects: Vec<Sourced>,
    pub errors: Vec<FileError>,
}

/// The folder, as it was at the last look.
#[derive(Debug)]
pub struct Folder {
    /// Absolute, as are the paths that the kernel reports.
    root: PathBuf,
    /// The root as the user wrote it.
    name: String,
    files: BTreeMap<String, Known>,
    /// Files that declare an object ([`Known::declares`]).
    declaring: usize,
    /// Files with errors.
    failed: BTreeSet<String>,
    /// Files whose objects may be held back.
    held: BTreeSet<String>,
    declarations: Declarations,
    reported_errors: Vec<FileError>,
    /// What is wrong with the folder itself.
    error: Option<FileError>,
    /// Of everything.
    gone: Absence,
    /// Folders below the root that have lost all, with the number of objects that they keep.
    emptied: BTreeMap<String, usize>,
}

impl Folder {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Folder {
            name: root.display().to_string(),
            // Without a current directory no relative path can be read; reading the folder reports
            // that.
            root: std::path::absolute(&root).unwrap_or(root),
            files: BTreeMap::new(),
            declaring: 0,
            failed: BTreeSet::new(),
            held: BTreeSet::new(),
            declarations: Declarations::default(),
            reported_errors: Vec::new(),
            error: None,
            gone: Absence::default(),
            emptied: BTreeMap::new(),
        }
    }

    /// Takes over from an earlier run which files were in service.
    pub fn remember(mut self, incumbents: Incumbents) -> Self {
        self.declarations.remember(incumbents);
        self
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The root as the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the folder again.
    pub fn scan(&mut self, now: Instant) -> Scan {
        self.look(now);
        let mut objects = Vec::new();
        for (name, known) in &self.files {
            let used = |it: &&Sourced| {
                let served = self.declarations.served().get(&it.object.id());
                served.is_some_and(|served| served.file == *name)
            };
            let begin = objects.len();
            objects.extend(known.objects.values().filter(used).cloned());
            objects[begin..].sort_by_key(|it: &Sourced| it.line);
        }
        Scan {
            objects,
            errors: self.errors(),
        }
    }

    /// Reads the folder again and returns what differs from the last time.
    pub fn changes(&mut self) -> Observed {
        self.look(Instant::now());
        self.report()
    }

    /// As [`Self::changes`], where nothing but these paths has changed.
    pub fn changes_in(&mut self, paths: &BTreeSet<PathBuf>) -> Observed {
        let now = Instant::now();
        if !self.look_at(paths, now) {
            self.look(now);
        }
        self.report()
    }

    fn report(&mut self) -> Observed {
        let delta = self.declarations.report();
        let errors = self.errors();
        let differ = errors != self.reported_errors;
        let errors = differ.then(|| {
            self.reported_errors.clone_from(&errors);
            errors
        });
        Observed { delta, errors }
    }

    fn errors(&self) -> Vec<FileError> {
        let failed = self.failed.iter();
        let of_files = failed.filter_map(|name| self.files.get(name));
        let of_files = of_files.flat_map(|known| &known.errors);
        let unused = self.declarations.errors();
        let emptied = self.emptied.iter();
        let emptied = emptied.map(|(folder, objects)| all_gone(folder, *objects));
        let all = of_files.chain(unused).cloned();
        self.error
            .iter()
            .cloned()
            .chain(emptied)
            .chain(all)
            .collect()
    }

    /// When to look again though nothing may have changed by then.
    pub fn due(&self) -> Option<Duration> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<Duration> {
        let files = self.held.iter().filter_map(|name| self.files.get(name));
        let emptied = files.filter_map(|known| known.emptied.left(absence::FILE, now));
        emptied.chain(self.gone.left(absence::FOLDER, now)).min()
    }

    /// Looks at all files.
    fn look(&mut self, now: Instant) {
        let mut found = Found::new();
        let walked = walk::find(&self.root, &mut found);
        let looks = found.into_iter().map(|(name, (path, metadata))| {
            let known = self.files.get(&name);
            let stamp = known.and_then(|known| known.stamp);
            let look = match stamp.is_some() && stamp == Stamp::of(&metadata) {
                true => Look::Same,
                false => Look::at(&path, &name, known),
            };
            (name, look)
        });
        let mut looks: BTreeMap<String, Look> = looks.collect();
        if let Err(error) = &walked {
            let held = self.held.iter().filter(|name| !looks.contains_key(*name));
            for name in held {
                if let Some(known) = self.files.get_mut(name) {
                    known.emptied.begin(now);
                    known.vanished = Absence::default();
                }
            }
            self.error = Some(problem(&self.name, error));
        } else {
            self.error = None;
        }
        let held = self.is_held_back(&looks, walked.is_ok(), now);
        if held {
            self.error
                .get_or_insert_with(|| all_gone(&self.name, self.declarations.served().len()));
            // Files that have no objects in service are still read, for their errors.
            looks.retain(|name, _| !self.has_objects(name));
        }
        // One that has gone since it was found is missing.
        looks.retain(|_, look| !matches!(look, Look::Gone));
        let missing = self.files.keys().filter(|name| !looks.contains_key(*name));
        let missing = missing.filter(|name| !held || !self.has_objects(name));
        let missing: BTreeSet<String> = missing.cloned().collect();
        for (name, look) in looks {
            self.take(&name, look, now);
        }
        // A folder that cannot be read withdraws nothing.
        if walked.is_ok() {
            self.take_missing(&missing, now);
        }
        self.settle();
    }

    /// Reads the files at the changed paths. False: all files must be looked at instead.
    fn look_at(&mut self, paths: &BTreeSet<PathBuf>, now: Instant) -> bool {
        let held = !self.emptied.is_empty() || self.gone.left(absence::FOLDER, now).is_some();
        if self.error.is_some() || held {
            return false;
        }
        let mut looks = BTreeMap::new();
        let below = |name: &str| {
            let mut after = self.files.range(name.to_owned()..);
            after.next().is_some_and(|(file, _)| file.starts_with(name))
        };
        for path in paths {
            match walk::concern(&self.root, path, below) {
                Concern::Nothing => {}
                Concern::All => return false,
                Concern::File(name) => {
                    let look = Look::at(path, &name, self.files.get(&name));
                    looks.insert(name, look);
                }
            }
        }
        let new = looks.keys().any(|name| !self.files.contains_key(name));
        let before = looks.keys().filter(|name| self.declares(name)).count();
        let after = looks
            .iter()
            .filter(|(name, look)| look.declares(self.files.get(*name)));
        // Whether a folder is empty now, or has too many files, is decided by looking at all of
        // them.
        if looks.keys().any(|name| self.empties_folder(name, &looks))
            || (new && self.files.len() + looks.len() > walk::MAX_FILES)
            || (!self.declarations.served().is_empty()
                && self.declaring - before + after.count() == 0)
        {
            return false;
        }
        for (name, look) in looks {
            self.take(&name, look, now);
        }
        self.settle();
        true
    }

    /// Whether a file is missing and no other in its folder, or below, declares anything.
    fn empties_folder(&self, name: &str, looks: &BTreeMap<String, Look>) -> bool {
        let gone = matches!(looks.get(name), Some(Look::Gone)) && self.has_objects(name);
        let Some((folder, _)) = name.rsplit_once('/').filter(|_| gone) else {
            return false;
        };
        let folder = format!("{folder}/");
        let below = self.files.range(folder.clone()..);
        let mut below = below.take_while(|(file, _)| file.starts_with(&folder));
        !below.any(|(file, known)| match looks.get(file) {
            Some(look) => look.declares(Some(known)),
            None => known.declares,
        })
    }

    fn declares(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|known| known.declares)
    }

    fn has_objects(&self, name: &str) -> bool {
        let known = self.files.get(name);
        known.is_some_and(|known| !known.objects.is_empty())
    }

    /// Whether all objects would be removed at once, and have been missing for less than the limit.
    /// `whole`: files that are not among `looks` do not exist.
    fn is_held_back(&mut self, looks: &BTreeMap<String, Look>, whole: bool, now: Instant) -> bool {
        let mut after = looks
            .iter()
            .map(|(name, look)| look.declares(self.files.get(name)));
        let unseen = |name: &String| !whole && !looks.contains_key(name) && self.has_objects(name);
        let left = after.any(|declares| declares) || self.files.keys().any(unseen);
        let gone = !self.declarations.served().is_empty() && !left;
        let held = self.gone.holds(gone, absence::FOLDER, now);
        if gone && !held {
            tracing::error!(folder = %self.name, "the folder has stayed without objects: all that it had are withdrawn");
            for name in self.files.keys().cloned().collect::<Vec<_>>() {
                self.replace(&name, BTreeMap::new());
                if let Some(known) = self.files.get_mut(&name) {
                    known.emptied = Absence::default();
                }
            }
        }
        if held {
            // Files come back one by one, and the first must not remove the objects of the others.
            let with_objects = |(_, known): &(&String, &mut Known)| !known.objects.is_empty();
            for (name, known) in self.files.iter_mut().filter(with_objects) {
                known.emptied.begin(now);
                known.vanished = Absence::default();
                self.held.insert(name.clone());
            }
        }
        held
    }

    /// Files that are not there any more. A folder that has lost all of them keeps what no other file
    /// declares, until that has lasted for a while.
    fn take_missing(&mut self, missing: &BTreeSet<String>, now: Instant) {
        self.emptied.clear();
        let files = self.files.iter();
        let present = files.filter(|(name, known)| known.declares && !missing.contains(*name));
        let declaring = Declaring::of(present.map(|(name, _)| name));
        let folders = missing.iter().map(|name| (name, declaring.emptied(name)));
        for (name, folder) in folders.collect::<Vec<_>>() {
            let lost = self.lost(name, missing);
            let Some(known) = self.files.get_mut(name) else {
                continue;
            };
            let folder = folder.filter(|_| !lost.is_empty());
            let held = known.vanished.holds(folder.is_some(), absence::FOLDER, now);
            match folder {
                Some(folder) if held => {
                    self.declaring -= usize::from(known.declares);
                    known.keep(now);
                    self.failed.remove(name);
                    self.held.insert(name.clone());
                    *self.emptied.entry(folder.to_owned()).or_default() += lost.len();
                    self.replace(name, lost);
                }
                None if !lost.is_empty() => self.take(name, Look::Gone, now),
                _ => self.forget(name),
            }
        }
    }

    /// The objects of a missing file that no file declares which is there.
    fn lost(&self, name: &str, missing: &BTreeSet<String>) -> DeclaredObjects {
        let objects = self.files.get(name).into_iter();
        let objects = objects.flat_map(|known| &known.objects);
        let lost = objects.filter(|(id, _)| {
            let mut files = self.declarations.files(id);
            files.all(|file| missing.contains(file))
        });
        lost.map(|(id, object)| (id.clone(), object.clone()))
            .collect()
    }

    fn take(&mut self, name: &str, look: Look, now: Instant) {
        if matches!(look, Look::Gone) {
            let known = self.files.get(name);
            let left = known.and_then(|known| known.emptied.left(absence::FILE, now));
            if left.is_none_or(|left| left.is_zero()) {
                self.forget(name);
            }
            return;
        }
        let known = self.files.entry(name.to_owned()).or_default();
        let declared = known.declares;
        let objects = known.take(name, look, now);
        self.declaring = self.declaring + usize::from(known.declares) - usize::from(declared);
        note(&mut self.failed, name, !known.errors.is_empty());
        let held = known.emptied.left(absence::FILE, now).is_some();
        note(&mut self.held, name, held);
        if let Some(objects) = objects {
            self.replace(name, objects);
        }
    }

    fn forget(&mut self, name: &str) {
        self.replace(name, BTreeMap::new());
        self.failed.remove(name);
        self.held.remove(name);
        if let Some(known) = self.files.remove(name) {
            self.declaring -= usize::from(known.declares);
        }
    }

    /// Replaces what a file declares.
    fn replace(&mut self, name: &str, objects: DeclaredObjects) {
        if let Some(known) = self.files.get_mut(name) {
            let before = std::mem::replace(&mut known.objects, objects);
            self.declarations.replace(name, &before, &known.objects);
        }
    }

    fn settle(&mut self) {
        let declared = |file: &str, id: &ObjectId| self.files.get(file)?.objects.get(id);
        self.declarations.settle(declared);
    }
}

fn note(names: &mut BTreeSet<String>, name: &str, is: bool) {
    match is {
        true => names.insert(name.to_owned()),
        false => names.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn special_files_are_reported_and_never_read() {
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
            format!("{file}: cannot be read: it is {what} and no file; its last valid version stays in service")
        });
        assert_eq!(error_texts(&scan), expected);
        // One that takes a file's place between a look and the opening.
        assert!(
            walk::read(&fifo)
                .unwrap_err()
                .to_string()
                .contains("a FIFO")
        );
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
    fn everything_goes_only_when_it_has_stayed_gone_and_that_is_reported() {
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
                    scan.errors[0].message.contains("no objects any more"),
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

    /// What `kubectl get` prints when it finds nothing.
    const NOTHING_FOUND: &str = "apiVersion: v1\nitems: []\nkind: List\n";

    #[test]
    fn a_file_without_objects_is_empty_whatever_its_text() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        let start = Instant::now();
        let mut folder = Folder::new(root.path());
        write("a.yaml", &service("a", "80"));
        folder.scan(start);
        write("a.yaml", NOTHING_FOUND);
        let almost = start + absence::FOLDER - Duration::from_millis(1);
        for now in [start, almost] {
            let scan = folder.scan(now);
            assert_eq!(names(&scan), ["a"]);
            assert!(scan.errors[0].message.contains("no objects any more"));
        }
        let gone = folder.scan(start + absence::FOLDER);
        assert_eq!((gone.objects.len(), gone.errors.len()), (0, 0));
        // Beside other files it is held back as an emptied file is.
        write("a.yaml", &service("a", "80"));
        write("b.yaml", &service("b", "80"));
        folder.scan(start);
        write("a.yaml", NOTHING_FOUND);
        assert_eq!(names(&folder.scan(start)), ["a", "b"]);
        assert_eq!(names(&folder.scan(start + absence::FILE)), ["b"]);
    }

    #[test]
    fn unreadable_and_invalid_files_do_not_keep_the_objects_of_others() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(path("fifo.yaml"))
            .status();
        assert!(made.unwrap().success());
        write("kustomization.yaml", "resources: [a.yaml]\n");
        write("broken.yaml", "kind: [");
        let start = Instant::now();
        let almost = start + absence::FOLDER - Duration::from_millis(1);
        for named in [false, true] {
            let mut folder = Folder::new(root.path());
            write("a.yaml", &service("a", "80"));
            write("b.yaml", &service("b", "80"));
            assert_eq!(folder.scan(start).errors.len(), 3);
            for name in ["a.yaml", "b.yaml"] {
                fs::remove_file(path(name)).unwrap();
                if named {
                    folder.look_at(&BTreeSet::from([path(name)]), start);
                }
            }
            for now in [start, almost] {
                let scan = folder.scan(now);
                assert_eq!(names(&scan).last().unwrap(), "b", "{named}");
                assert!(scan.errors[0].message.contains("no objects any more"));
                assert_eq!(scan.errors.len(), 4, "what is wrong besides is reported");
            }
            let gone = folder.scan(start + absence::FOLDER);
            assert_eq!((gone.objects.len(), gone.errors.len()), (0, 3), "{named}");
            assert_eq!(folder.due_at(start + absence::FOLDER), None);
        }
        // A file that was valid before has objects: they stay in service, and the others are
        // removed at once.
        let mut folder = Folder::new(root.path());
        write("a.yaml", &service("a", "80"));
        write("broken.yaml", &service("b", "80"));
        folder.scan(start);
        write("broken.yaml", "kind: [");
        fs::remove_file(path("a.yaml")).unwrap();
        let scan = folder.scan(start);
        assert_eq!((names(&scan), scan.errors.len()), (vec!["b".into()], 3));
    }

    #[test]
    fn an_invalid_file_is_reported_even_where_all_others_have_gone() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("a.yaml"), service("a", "80")).unwrap();
        let start = Instant::now();
        let mut folder = Folder::new(root.path());
        folder.scan(start);
        fs::rename(path("a.yaml"), path("b.yaml")).unwrap();
        fs::write(path("b.yaml"), service("a", "none")).unwrap();
        let scan = folder.scan(start);
        assert_eq!(names(&scan), ["a"]);
        let texts = error_texts(&scan);
        assert!(texts[1].starts_with("b.yaml:4:25: "), "{texts:?}");
        fs::write(path("b.yaml"), service("a", "81")).unwrap();
        // What it declares has moved, so the file that is gone keeps nothing back.
        let scan = folder.scan(start);
        let file = scan.objects[0].file.as_str();
        assert_eq!((file, scan.errors.len()), ("b.yaml", 0));
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_not_an_empty_one() {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("mesh");
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        fs::create_dir(&root).unwrap();
        write("a.yaml", &service("a", "80"));
        write("b.yaml", &service("b", "80"));
        let mut folder = Folder::new(&root);
        let start = Instant::now();
        folder.scan(start);
        for name in ["a.yaml", "b.yaml"] {
            fs::remove_file(root.join(name)).unwrap();
        }
        folder.scan(start);
        fs::remove_dir(&root).unwrap();
        for seconds in [1, 30, 60, 300] {
            let now = start + Duration::from_secs(seconds);
            let scan = folder.scan(now);
            assert_eq!((scan.objects.len(), scan.errors.len()), (2, 1));
            assert!(scan.errors[0].message.contains("cannot be read"));
            assert_eq!(folder.due_at(now), Some(absence::FILE), "{seconds}");
        }
        // Empty again: that is the beginning of an absence.
        fs::create_dir(&root).unwrap();
        let back = start + Duration::from_secs(301);
        let almost = back + absence::FOLDER - Duration::from_millis(1);
        for now in [back, almost] {
            assert_eq!(folder.scan(now).objects.len(), 2);
        }
        assert!(folder.scan(back + absence::FOLDER).objects.is_empty());
    }

    #[test]
    fn an_emptied_file_that_turns_unreadable_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(root.path().join(name), text).unwrap();
        write("a.yaml", service("a", "80").as_bytes());
        write("b.yaml", service("b", "80").as_bytes());
        let mut folder = Folder::new(root.path());
        let start = Instant::now();
        folder.scan(start);
        write("a.yaml", b"");
        folder.scan(start);
        assert_eq!(folder.due_at(start), Some(absence::FILE));
        write("a.yaml", b"\xff\xfe");
        let later = start + 2 * absence::FILE;
        let scan = folder.scan(later);
        assert_eq!((scan.objects.len(), scan.errors.len()), (2, 1));
        assert_eq!(folder.due_at(later), None);
        // Empty again: that is the beginning of an absence.
        write("a.yaml", b"");
        assert_eq!(folder.scan(later).objects.len(), 2);
        assert_eq!(folder.scan(later + absence::FILE).objects.len(), 1);
    }

    #[test]
    fn a_folder_that_a_file_replaces_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("a.yaml"), service("a", "80")).unwrap();
        let mut folder = Folder::new(root.path());
        folder.changes();
        for reported in [&["deep", "deep/e.yaml"][..], &["deep/e.yaml"], &["deep"]] {
            fs::create_dir(path("deep")).unwrap();
            fs::write(path("deep/e.yaml"), service("e", "80")).unwrap();
            assert_eq!(folder.changes().delta.set.len(), 1);
            fs::remove_dir_all(path("deep")).unwrap();
            fs::write(path("deep"), "").unwrap();
            let paths = reported.iter().map(|name| path(name)).collect();
            let observed = folder.changes_in(&paths);
            assert_eq!(origins(&observed), Vec::<String>::new(), "{reported:?}");
            let errors = observed.errors.unwrap();
            assert_eq!((errors.len(), &*errors[0].file), (1, "deep"));
            folder.look(Instant::now() + absence::FOLDER);
            let observed = folder.report();
            assert_eq!(origins(&observed), ["-Service default/e"], "{reported:?}");
            assert_eq!(observed.errors, Some(Vec::new()), "{reported:?}");
            fs::remove_file(path("deep")).unwrap();
        }
    }

    #[test]
    fn a_folder_below_that_has_lost_all_keeps_it_for_a_while() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let write = |name: &str| {
            let path = path(&format!("{name}.yaml"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, service(&name.replace('/', "-"), "80")).unwrap();
        };
        let mut folder = Folder::new(root.path());
        let start = Instant::now();
        let almost = start + absence::FOLDER - Duration::from_millis(1);
        let late = start + absence::FOLDER;
        write("a");
        for named in [false, true] {
            for name in ["vol/b", "vol/c", "vol/deep/d"] {
                write(name);
            }
            folder.scan(start);
            // One of several goes at once.
            fs::remove_file(path("vol/c.yaml")).unwrap();
            if named {
                assert!(folder.look_at(&BTreeSet::from([path("vol/c.yaml")]), start));
            }
            let scan = folder.scan(start);
            let all = ["a", "vol-b", "vol-deep-d"];
            assert_eq!(
                (names(&scan), scan.errors),
                (all.map(str::to_owned).into(), vec![])
            );
            // A volume is unmounted.
            fs::remove_dir_all(path("vol")).unwrap();
            fs::create_dir(path("vol")).unwrap();
            let files = ["vol/b.yaml", "vol/deep/d.yaml"].map(path);
            if named {
                assert!(!folder.look_at(&BTreeSet::from(files), start));
            }
            for now in [start, almost] {
                let scan = folder.scan(now);
                assert_eq!(names(&scan), all, "{named}");
                let texts = error_texts(&scan);
                let says = "vol: the folder has no objects any more; the 2 that it had serve on";
                assert!(texts.len() == 1 && texts[0].starts_with(says), "{texts:?}");
                assert!(folder.due_at(now).is_some());
            }
            // What comes back is in service; what does not is withdrawn.
            write("vol/b");
            let scan = folder.scan(almost);
            assert_eq!(names(&scan), all);
            assert!(error_texts(&scan)[0].starts_with("vol/deep: "));
            let scan = folder.scan(late);
            assert_eq!(
                (names(&scan), scan.errors),
                (vec!["a".into(), "vol-b".into()], vec![])
            );
            assert_eq!(folder.due_at(late), None);
        }
        // Moved with its files: nothing is lost.
        fs::rename(path("vol"), path("moved")).unwrap();
        let scan = folder.scan(start);
        assert_eq!(scan.errors, vec![]);
        assert_eq!(scan.objects.last().unwrap().file, "moved/b.yaml");
    }

    fn remove_if(path: PathBuf) {
        if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_byte_order_mark_is_taken_and_other_encodings_are_reported() {
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

    fn origins(observed: &Observed) -> Vec<String> {
        let set = observed.delta.set.iter();
        let set = set.map(|(object, at)| format!("{} {at}", object.id()));
        let removed = observed.delta.removed.iter();
        let removed = removed.map(|id| format!("-{id}"));
        set.chain(removed).collect()
    }

    #[test]
    fn a_report_of_the_kernel_costs_the_files_it_names() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        for name in ["a", "b", "c"] {
            write(&format!("{name}.yaml"), &service(name, "80"));
        }
        let mut folder = Folder::new(root.path());
        assert_eq!(folder.changes().delta.set.len(), 3);
        // Two change, one is named: only that one was read.
        write("a.yaml", &service("a", "81"));
        write("b.yaml", &service("b", "81"));
        let of = |names: &[&str]| names.iter().map(|name| path(name)).collect();
        let observed = folder.changes_in(&of(&["a.yaml", "a.yaml~", ".a.yaml.swp"]));
        assert_eq!(origins(&observed), ["Service default/a a.yaml:1"]);
        // An object moves from one file to another in one report.
        write("d.yaml", &service("a", "81"));
        fs::remove_file(path("a.yaml")).unwrap();
        let observed = folder.changes_in(&of(&["d.yaml", "a.yaml"]));
        assert_eq!(origins(&observed), ["Service default/a d.yaml:1"]);
        // What is more than a file: everything is looked at.
        fs::create_dir(path("deep")).unwrap();
        write("deep/e.yaml", &service("e", "80"));
        let observed = folder.changes_in(&of(&["deep"]));
        assert_eq!(
            origins(&observed),
            [
                "Service default/b b.yaml:1",
                "Service default/e deep/e.yaml:1"
            ]
        );
        fs::remove_dir_all(path("deep")).unwrap();
        folder.changes_in(&of(&["deep"]));
        folder.look(Instant::now() + absence::FOLDER);
        assert_eq!(origins(&folder.report()), ["-Service default/e"]);
        // The last objects are removed: that is held back, in whatever way it was reported.
        for name in ["b.yaml", "c.yaml", "d.yaml"] {
            fs::remove_file(path(name)).unwrap();
            folder.changes_in(&of(&[name]));
        }
        assert_eq!(names(&folder.scan(Instant::now())), ["a"]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(60))]

        /// Whatever is written and removed, named reports come to what a look at all comes to.
        #[test]
        fn named_reports_come_to_what_a_new_reader_finds(
            steps in proptest::collection::vec((0..4usize, 0..6usize), 1..30),
        ) {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("sub")).unwrap();
            // Always there, so that no folder is held back.
            fs::write(root.path().join("z.yaml"), service("z", "80")).unwrap();
            fs::write(root.path().join("sub/v.yaml"), service("v", "80")).unwrap();
            let mut folder = Folder::new(root.path());
            let mut reported: BTreeMap<ObjectId, String> = BTreeMap::new();
            let mut apply = |observed: Observed| {
                for (object, at) in observed.delta.set {
                    reported.insert(object.id(), at.to_string());
                }
                for id in observed.delta.removed {
                    reported.remove(&id);
                }
                reported.clone()
            };
            apply(folder.changes());
            for (file, version) in steps {
                let path = root.path().join(["a.yaml", "b.yaml", "sub/c.yaml", "sub/d.json"][file]);
                match version {
                    0 => drop(fs::remove_file(&path)),
                    1 => fs::write(&path, "kind: [").unwrap(),
                    2 => fs::write(&path, format!("{}---\n{}", service("x", "80"), service("y", "80"))).unwrap(),
                    n => fs::write(&path, service(["x", "y", "w"][n - 3], "90")).unwrap(),
                }
                let now = apply(folder.changes_in(&BTreeSet::from([path])));
                let scan = folder.scan(Instant::now());
                let at = |it: &Sourced| (it.object.id(), format!("{}:{}", it.file, it.line));
                proptest::prop_assert_eq!(&now, &scan.objects.iter().map(at).collect::<BTreeMap<_, _>>());
                proptest::prop_assert!(folder.changes().is_empty());
                // An invalid file keeps its last valid objects, which a new reader has not read.
                let fresh = Folder::new(root.path()).scan(Instant::now());
                for object in fresh.objects {
                    proptest::prop_assert!(now.contains_key(&object.object.id()));
                }
            }
        }
    }
}
