//! The folder as a source: changes that the kernel reports are read when it has reported none for a
//! moment, or at the latest after a second. All files are also looked at now and then, however much
//! is reported, which finds changes that the kernel does not report (network file systems, links
//! replaced above the folder). Where it reports none at all, because its limits are reached or a
//! folder cannot be watched, these looks have to do, and each first asks for reports again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::files::Folder;
use super::{Observed, Source, SourceError};

/// No change for this long: the writer is taken to be done.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never rests is read this often.
const LATEST: Duration = Duration::from_secs(1);
/// All files are looked at this often, whatever the kernel reports.
const ANYWAY: Duration = Duration::from_secs(10);
/// Paths remembered between two reads; with more, all files are looked at.
const MAX_PATHS: usize = 1000;

/// See the module.
pub struct Watched {
    /// `None` while it is read, or when that panicked.
    folder: Option<Folder>,
    name: String,
    watching: Option<Watching>,
    /// The kernel did not take the request for reports, and the log says so.
    unreported: bool,
    /// When all files were last looked at.
    looked: Instant,
}

struct Watching {
    reports: Arc<Reports>,
    /// Dropping it ends the reports.
    _watcher: RecommendedWatcher,
}

/// What the kernel reported since the last read.
#[derive(Default)]
struct Reports {
    changed: Mutex<ChangedPaths>,
    notify: Notify,
}

/// What may differ from the last read.
#[derive(Debug, PartialEq, Eq)]
enum ChangedPaths {
    Paths(BTreeSet<PathBuf>),
    Anything,
}

impl Default for ChangedPaths {
    fn default() -> Self {
        ChangedPaths::Paths(BTreeSet::new())
    }
}

impl ChangedPaths {
    fn add(&mut self, event: notify::Event) {
        let ChangedPaths::Paths(paths) = self else {
            return;
        };
        let rescan = event.need_rescan() || event.paths.is_empty();
        paths.extend(event.paths);
        if rescan || paths.len() > MAX_PATHS {
            *self = ChangedPaths::Anything;
        }
    }
}

impl Watched {
    pub fn new(folder: Folder) -> Self {
        Watched {
            name: folder.name().to_owned(),
            folder: Some(folder),
            watching: None,
            unreported: false,
            looked: Instant::now(),
        }
    }

    async fn read(&mut self, changed: ChangedPaths) -> Result<Observed, SourceError> {
        let mut folder = self.folder.take().ok_or(SourceError::Panicked)?;
        if changed == ChangedPaths::Anything {
            self.looked = Instant::now();
        }
        let read = tokio::task::spawn_blocking(move || {
            let observed = match changed {
                ChangedPaths::Paths(paths) => folder.changes_in(&paths),
                ChangedPaths::Anything => folder.changes(),
            };
            (folder, observed)
        });
        let (folder, observed) = read.await.map_err(|_| SourceError::Panicked)?;
        self.folder = Some(folder);
        Ok(observed)
    }

    /// Asks for the kernel's reports. Without them the looks at all files go on.
    async fn watch(&mut self) -> Result<(), SourceError> {
        let folder = self.folder.as_ref().ok_or(SourceError::Panicked)?;
        let root = folder.root().to_owned();
        let asked = tokio::task::spawn_blocking(move || Watching::new(&root));
        // The library panics when it gets no thread.
        let panicked = |error: JoinError| Err(notify::Error::generic(&error.to_string()));
        match asked.await.unwrap_or_else(panicked) {
            Ok(watching) => {
                self.watching = Some(watching);
                if std::mem::take(&mut self.unreported) {
                    tracing::info!(
                        folder = self.name,
                        "the kernel reports changes of the folder"
                    );
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unreported, true) {
                    tracing::warn!(
                        %error,
                        folder = self.name,
                        "the kernel does not report changes of the folder, so that they are in force only after up to {} s, when all files are looked at and this is tried again; {}",
                        ANYWAY.as_secs(),
                        remedy(&error)
                    );
                }
            }
        }
        Ok(())
    }

    /// When all files have to be looked at.
    fn deadline(&self) -> Instant {
        let anyway = self.looked + ANYWAY;
        let due = self.folder.as_ref().and_then(Folder::due);
        due.map_or(anyway, |due| anyway.min(Instant::now() + due))
    }
}

impl Source for Watched {
    async fn next(&mut self) -> Result<Observed, SourceError> {
        loop {
            let deadline = self.deadline();
            let changed = match &self.watching {
                None => {
                    if self.unreported {
                        sleep_until(deadline.max(Instant::now() + QUIET)).await;
                    }
                    // Watched first, read then: no change falls between.
                    self.watch().await?;
                    ChangedPaths::Anything
                }
                Some(watching) => watching.reports.quiet(deadline).await,
            };
            let observed = self.read(changed).await?;
            if !observed.is_empty() {
                return Ok(observed);
            }
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Watching {
    fn new(root: &Path) -> Result<Self, notify::Error> {
        let reports = Arc::new(Reports::default());
        let reported = Arc::clone(&reports);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
                Ok(event) if event.kind.is_access() => {}
                event => reported.take(event),
            })?;
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(Watching {
            reports,
            _watcher: watcher,
        })
    }
}

/// What to do where the kernel does not report changes.
fn remedy(error: &notify::Error) -> &'static str {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "raise the sysctl fs.inotify.max_user_watches, or have fewer folders in it"
        }
        ErrorKind::Io(io) if io.raw_os_error() == Some(libc::EMFILE) => {
            "raise the sysctl fs.inotify.max_user_instances, or the limit of open files (`ulimit -n`, `LimitNOFILE=`)"
        }
        ErrorKind::Io(io) if io.kind() == io::ErrorKind::PermissionDenied => {
            "let the control plane's user read the folder and all folders in it, hidden ones too"
        }
        ErrorKind::PathNotFound => {
            "the folder is missing, or one in it vanished meanwhile: in that case nothing is to be done"
        }
        _ => "see `man 7 inotify` for this error",
    }
}

impl Reports {
    /// What has changed, once that is quiet; from `deadline` on anything may have, whatever is
    /// reported.
    async fn quiet(&self, deadline: Instant) -> ChangedPaths {
        // However often the deadline is past, there is a rest between two looks.
        let wait = deadline.max(Instant::now() + QUIET);
        if timeout_at(wait, self.notify.notified()).await.is_err() {
            return ChangedPaths::Anything;
        }
        let latest = Instant::now() + LATEST;
        while let Ok(Ok(())) = timeout_at(latest, timeout(QUIET, self.notify.notified())).await {}
        let changed = std::mem::take(&mut *self.changed());
        match deadline <= Instant::now() {
            true => ChangedPaths::Anything,
            false => changed,
        }
    }

    fn changed(&self) -> std::sync::MutexGuard<'_, ChangedPaths> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) => self.changed().add(event),
            // Reports were lost.
            Err(_) => *self.changed() = ChangedPaths::Anything,
        }
        self.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Component;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn written(path: &str) -> notify::Result<notify::Event> {
        let kind = notify::EventKind::Modify(notify::event::ModifyKind::Any);
        Ok(notify::Event::new(kind).add_path(path.into()))
    }

    #[tokio::test]
    async fn reports_do_not_put_off_the_look_at_all_files() {
        let reports = Reports::default();
        reports.take(written("/mesh/notes.txt"));
        let paths = ChangedPaths::Paths(BTreeSet::from(["/mesh/notes.txt".into()]));
        assert_eq!(reports.quiet(Instant::now() + HOUR).await, paths);
        reports.take(written("/mesh/notes.txt"));
        assert_eq!(reports.quiet(Instant::now()).await, ChangedPaths::Anything);
        // What was reported before a look at all is in it.
        reports.take(written("/mesh/other.txt"));
        let paths = ChangedPaths::Paths(BTreeSet::from(["/mesh/other.txt".into()]));
        assert_eq!(reports.quiet(Instant::now() + HOUR).await, paths);
    }

    #[tokio::test]
    async fn all_files_are_looked_at_when_that_is_long_ago_or_something_is_held_back() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            write(&root.path().join(format!("{name}.yaml")), name, 80);
        }
        let mut watched = Watched::new(Folder::new(root.path()));
        watched.read(ChangedPaths::Anything).await.unwrap();
        let looked = watched.looked;
        assert_eq!(watched.deadline(), looked + ANYWAY);
        // What is read by name is no look at all files.
        let emptied = root.path().join("a.yaml");
        fs::write(&emptied, "").unwrap();
        let paths = ChangedPaths::Paths(BTreeSet::from([emptied]));
        assert!(watched.read(paths).await.unwrap().is_empty());
        assert_eq!(watched.looked, looked);
        assert!(watched.deadline() < looked + ANYWAY);
    }

    #[test]
    fn the_log_says_what_to_do_without_reports() {
        let of_system = |code| notify::Error::io(io::Error::from_raw_os_error(code));
        let cases = [
            (
                notify::Error::new(ErrorKind::MaxFilesWatch),
                "fs.inotify.max_user_watches",
            ),
            (of_system(libc::EMFILE), "fs.inotify.max_user_instances"),
            (of_system(libc::EACCES), "read the folder"),
            (notify::Error::path_not_found(), "vanished"),
            (of_system(libc::ENOMEM), "man 7 inotify"),
        ];
        for (error, part) in cases {
            assert!(remedy(&error).contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_at_first_is_watched_later() {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("mesh");
        let mut source = Watched::new(Folder::new(&root));
        let first = source.next().await.unwrap();
        assert!(first.errors.is_some(), "{first:?}");
        fs::create_dir(&root).unwrap();
        write(&root.join("a.yaml"), "a", 80);
        source.looked = Instant::now().checked_sub(ANYWAY).unwrap();
        let mut reader = Reader(source, BTreeMap::new());
        reader.until("a", Some("a.yaml:1")).await;
        // From here on the kernel reports.
        write(&root.join("b.yaml"), "b", 80);
        reader.until("b", Some("b.yaml:1")).await;
    }

    fn write(path: &Path, name: &str, port: u16) {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ ports: [{{ port: {port} }}] }}\n"
        );
        fs::write(path, text).unwrap();
    }

    /// The same path, from the current folder.
    fn relative(path: &Path) -> PathBuf {
        let current = std::env::current_dir().unwrap();
        let up = current.components().skip(1).map(|_| Component::ParentDir);
        up.chain(path.components().skip(1)).collect()
    }

    /// A source that looks at all files only at first, and where its objects are.
    struct Reader(Watched, BTreeMap<String, String>);

    impl Reader {
        /// Follows the reports until `name` is at `place`, or gone.
        async fn until(&mut self, name: &str, place: Option<&str>) -> Observed {
            let Reader(source, places) = self;
            let id = format!("Service default/{name}");
            loop {
                let next = timeout(Duration::from_secs(60), source.next());
                let observed = next.await.expect("it is reported").unwrap();
                source.looked = Instant::now() + HOUR;
                for (object, origin) in &observed.delta.set {
                    places.insert(object.id().to_string(), origin.to_string());
                }
                for id in &observed.delta.removed {
                    places.remove(&id.to_string());
                }
                if places.get(&id).map(String::as_str) == place {
                    return observed;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_relative_folder_is_followed_by_what_the_kernel_reports() {
        let above = tempfile::tempdir().unwrap();
        let path = |name: &str| above.path().join(name);
        for folder in ["mesh/deep", "mesh/..1", "mesh/..2"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        write(&path("mesh/a.yaml"), "a", 80);
        write(&path("mesh/deep/d.yaml"), "d", 80);
        write(&path("mesh/..1/v.yaml"), "v1", 80);
        write(&path("mesh/..2/v.yaml"), "v2", 80);
        symlink("..1", path("mesh/..data")).unwrap();
        symlink("..data/v.yaml", path("mesh/v.yaml")).unwrap();
        write(&path("outside.yaml"), "o", 80);
        symlink("../outside.yaml", path("mesh/o.yaml")).unwrap();

        let folder = relative(&path("mesh"));
        let mut reader = Reader(Watched::new(Folder::new(&folder)), BTreeMap::new());
        assert_eq!(reader.0.name(), folder.display().to_string());
        let first = reader.until("a", Some("a.yaml:1")).await;
        assert_eq!(first.delta.set.len(), 4);

        // By name: what else has changed, and is not reported, is not read.
        write(&path("outside.yaml"), "o", 81);
        write(&path("mesh/b.yaml"), "b", 80);
        let second = reader.until("b", Some("b.yaml:1")).await;
        assert_eq!(second.delta.set.len(), 1, "{second:?}");

        fs::rename(path("mesh/deep"), path("mesh/moved")).unwrap();
        reader.until("d", Some("moved/d.yaml:1")).await;
        write(&path("mesh/moved/e.yaml"), "e", 80);
        reader.until("e", Some("moved/e.yaml:1")).await;

        symlink("..2", path("mesh/..data_tmp")).unwrap();
        fs::rename(path("mesh/..data_tmp"), path("mesh/..data")).unwrap();
        reader.until("v2", Some("v.yaml:1")).await;
        assert!(
            !reader.1.contains_key("Service default/v1"),
            "{:?}",
            reader.1
        );
    }
}
