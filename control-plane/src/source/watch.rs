//! Tells of changes in a folder: when it has been quiet for a moment, or at the latest after a
//! second. A slow look at all files catches what the kernel does not report (network file systems,
//! links swapped above the folder).

use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::files::{Folder, Scan};

/// No change for this long: whoever writes is done.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never rests is read this often.
const LATEST: Duration = Duration::from_secs(1);
/// Without any report from the kernel.
const ANYWAY: Duration = Duration::from_secs(10);

/// Scans `folder` now and after each change; `publish` gets each result that differs from the one
/// before. Ends when `publish` says false.
///
/// # Errors
/// When the kernel refuses to watch the folder.
pub async fn run(
    mut folder: Folder,
    mut publish: impl FnMut(Scan) -> bool,
) -> Result<(), notify::Error> {
    let (sender, mut changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Full means that a look is due already.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = sender.try_send(());
        }
    })?;
    watcher.watch(folder.root(), RecursiveMode::Recursive)?;
    let mut last = None;
    loop {
        let scanned = tokio::task::spawn_blocking(move || {
            let scan = folder.scan();
            (folder, scan)
        });
        let Ok((returned, scan)) = scanned.await else {
            return Ok(());
        };
        folder = returned;
        if last.as_ref() != Some(&scan) {
            if !publish(scan.clone()) {
                return Ok(());
            }
            last = Some(scan);
        }
        if let Ok(Some(())) = timeout(ANYWAY, changes.recv()).await {
            let latest = Instant::now() + LATEST;
            while let Ok(Ok(Some(()))) = timeout_at(latest, timeout(QUIET, changes.recv())).await {}
        }
    }
}
