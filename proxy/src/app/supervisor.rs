//! Tasks of the control thread, which run again after a panic.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::xds::backoff::Backoff;

/// A task that ran for so long before it panicked begins again with the shortest back-off.
const STABLE: Duration = Duration::from_secs(60);

/// Runs one task, again and again while it panics:
/// `while supervisor.panicked(client.run()).await {}`.
pub struct Supervisor {
    name: &'static str,
    backoff: Backoff,
}

impl Supervisor {
    pub fn new(name: &'static str) -> Self {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        Self { name, backoff }
    }

    /// Runs `task` to its end. True: that was a panic, the back-off is over, and it is to be run
    /// again. What the task keeps outside of its future must be in order at each of its awaits and
    /// calls, as it must be for a future that is dropped.
    pub async fn panicked(&mut self, task: impl Future<Output = ()>) -> bool {
        let began = Instant::now();
        if AssertUnwindSafe(task).catch_unwind().await.is_ok() {
            return false;
        }
        if began.elapsed() >= STABLE {
            self.backoff.reset();
        }
        let wait = self.backoff.next(fastrand::f64());
        tracing::error!(task = self.name, again_in = ?wait, "a task of the control thread panicked");
        tokio::time::sleep(wait).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_runs_again() {
        let mut supervisor = Supervisor::new("test");
        let mut runs = 0;
        loop {
            runs += 1;
            let task = async {
                tokio::task::yield_now().await;
                assert!(runs == 3, "on purpose");
            };
            if !supervisor.panicked(task).await {
                break;
            }
        }
        assert_eq!(runs, 3);
    }
}
