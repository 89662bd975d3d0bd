//! The folder as a source: what the kernel says has changed is read when it has been quiet for a
//! moment, or at the latest after a second. A slow look at all files catches what the kernel does not
//! report (network file systems, links swapped above the folder).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::files::Folder;
use super::{Observed, Source, SourceError};

/// No change for this long: the writer is taken to be done.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never rests is read this often.
const LATEST: Duration = Duration::from_secs(1);
/// Without any report from the kernel.
const ANYWAY: Duration = Duration::from_secs(10);
/// Paths remembered between two reads; with more, all files are looked at.
const MAX_PATHS: usize = 1000;

/// See the module.
pub struct Watched {
    /// `None` while it is read, or when that panicked.
    folder: Option<Folder>,
    name: String,
    watching: Option<Watching>,
}

struct Watching {
    reports: Arc<Reports>,
    /// Reports for as long as it lives.
    _watcher: RecommendedWatcher,
}

/// What the kernel reported since the last read.
#[derive(Default)]
struct Reports {
    changed: Mutex<Changed>,
    notify: Notify,
}

/// What may differ from the last read.
#[derive(Debug, PartialEq, Eq)]
enum Changed {
    Paths(BTreeSet<PathBuf>),
    Anything,
}

impl Default for Changed {
    fn default() -> Self {
        Changed::Paths(BTreeSet::new())
    }
}

impl Changed {
    fn add(&mut self, event: notify::Event) {
        let Changed::Paths(paths) = self else { return };
        let rescan = event.need_rescan() || event.paths.is_empty();
        paths.extend(event.paths);
        if rescan || paths.len() > MAX_PATHS {
            *self = Changed::Anything;
        }
    }
}

impl Watched {
    pub fn new(folder: Folder) -> Self {
        Watched {
            name: folder.root().display().to_string(),
            folder: Some(folder),
            watching: None,
        }
    }

    async fn read(&mut self, changed: Changed) -> Result<Observed, SourceError> {
        let mut folder = self.folder.take().ok_or(SourceError::Panicked)?;
        let read = tokio::task::spawn_blocking(move || {
            let observed = match changed {
                Changed::Paths(paths) => folder.changes_in(&paths),
                Changed::Anything => folder.changes(),
            };
            (folder, observed)
        });
        let (folder, observed) = read.await.map_err(|_| SourceError::Panicked)?;
        self.folder = Some(folder);
        Ok(observed)
    }
}

impl Source for Watched {
    async fn next(&mut self) -> Result<Observed, SourceError> {
        loop {
            let changed = match &mut self.watching {
                // Watched first, read then: no change falls between.
                None => {
                    let folder = self.folder.as_ref().ok_or(SourceError::Panicked)?;
                    self.watching = Some(Watching::new(folder)?);
                    Changed::Anything
                }
                Some(watching) => {
                    let due = self.folder.as_ref().and_then(|folder| folder.due());
                    watching.changed(due.unwrap_or(ANYWAY).min(ANYWAY)).await
                }
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
    fn new(folder: &Folder) -> Result<Self, notify::Error> {
        let reports = Arc::new(Reports::default());
        let reported = Arc::clone(&reports);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
                Ok(event) if event.kind.is_access() => {}
                event => reported.take(event),
            })?;
        watcher.watch(folder.root(), RecursiveMode::Recursive)?;
        Ok(Watching {
            reports,
            _watcher: watcher,
        })
    }

    /// What has changed, once that is quiet; anything may have after `wait` without a report.
    async fn changed(&mut self, wait: Duration) -> Changed {
        let reports = &self.reports;
        if timeout(wait, reports.notify.notified()).await.is_err() {
            return Changed::Anything;
        }
        let latest = Instant::now() + LATEST;
        while let Ok(Ok(())) = timeout_at(latest, timeout(QUIET, reports.notify.notified())).await {
        }
        std::mem::take(&mut *reports.changed())
    }
}

impl Reports {
    fn changed(&self) -> std::sync::MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) => self.changed().add(event),
            // Reports were lost.
            Err(_) => *self.changed() = Changed::Anything,
        }
        self.notify.notify_one();
    }
}
