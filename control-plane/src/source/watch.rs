//! The folder as a source: it is read when it has been quiet for a moment after a change, or at the
//! latest after a second. A slow look at all files catches what the kernel does not report (network
//! file systems, links swapped above the folder).

use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::files::Folder;
use super::{Observed, Source, SourceError};

/// No change for this long: the writer is taken to be done.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never rests is read this often.
const LATEST: Duration = Duration::from_secs(1);
/// Without any report from the kernel.
const ANYWAY: Duration = Duration::from_secs(10);

/// See the module.
pub struct Watched {
    /// `None` while it is read, or when that panicked.
    folder: Option<Folder>,
    name: String,
    watching: Option<Watching>,
}

struct Watching {
    changes: mpsc::Receiver<()>,
    /// Reports for as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Watched {
    pub fn new(folder: Folder) -> Self {
        Watched {
            name: folder.root().display().to_string(),
            folder: Some(folder),
            watching: None,
        }
    }

    async fn read(&mut self) -> Result<Observed, SourceError> {
        let mut folder = self.folder.take().ok_or(SourceError::Panicked)?;
        let read = tokio::task::spawn_blocking(move || {
            let observed = folder.changes();
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
            match &mut self.watching {
                // Watched first, read then: no change falls between.
                None => {
                    let folder = self.folder.as_ref().ok_or(SourceError::Panicked)?;
                    self.watching = Some(Watching::new(folder)?);
                }
                Some(watching) => {
                    let due = self.folder.as_ref().and_then(|folder| folder.due());
                    watching.changed(due.unwrap_or(ANYWAY).min(ANYWAY)).await;
                }
            }
            let observed = self.read().await?;
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
        let (sender, changes) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Full means that a look is due already.
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    let _ = sender.try_send(());
                }
            })?;
        watcher.watch(folder.root(), RecursiveMode::Recursive)?;
        Ok(Watching {
            changes,
            _watcher: watcher,
        })
    }

    /// Returns when a look is due, after `wait` at the latest while nothing is reported.
    async fn changed(&mut self, wait: Duration) {
        if let Ok(Some(())) = timeout(wait, self.changes.recv()).await {
            let latest = Instant::now() + LATEST;
            while let Ok(Ok(Some(()))) =
                timeout_at(latest, timeout(QUIET, self.changes.recv())).await
            {}
        }
    }
}
