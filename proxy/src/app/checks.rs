//! Active health checks on the control thread.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::supervisor::Supervisor;
use crate::bootstrap::capacity;
use crate::health::{CheckLimits, FirstResults, HealthChecker};
use crate::snapshot::Store;

/// Checks at once, of those that the descriptors allow.
const AT_ONCE: usize = 512;
/// How long a start waits for first results; clusters give up earlier.
const FIRST: Duration = Duration::from_secs(60);

/// Begins the checks of all clusters.
pub(super) fn start(store: &Arc<Store>, tasks: &mut JoinSet<()>) -> io::Result<FirstResults> {
    let most = capacity::health_checks();
    let at_once = AT_ONCE.min(most.div_ceil(2));
    let limits = CheckLimits {
        at_once,
        kept: most.saturating_sub(at_once),
    };
    let mut checker = HealthChecker::new(store.clone(), limits)?;
    let first = checker.first_results();
    tasks.spawn_local(async move {
        let mut supervisor = Supervisor::new("health checks");
        while supervisor.panicked(checker.run()).await {}
    });
    Ok(first)
}

/// Waits for the first results of static clusters.
pub(super) async fn warm(first: &FirstResults) {
    if !first.wait(FIRST).await {
        tracing::warn!("clusters begin without the first results of their health checks");
    }
}
