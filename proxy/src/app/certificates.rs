//! The proxy's own certificate: its agent, and what depends on it.

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::AppError;
use super::build::Core;
use super::supervisor::Supervisor;
use crate::bootstrap::Bootstrap;
use crate::identity::{self, agent::CertificateAgent};

pub(super) fn start_identity(
    bootstrap: &Bootstrap,
    core: &Core,
    tasks: &mut JoinSet<()>,
) -> Result<Option<watch::Receiver<identity::CertificateStatus>>, AppError> {
    let Some(identity) = &bootstrap.extensions.identity else {
        return Ok(None);
    };
    let target = core.target(&identity.cluster)?;
    let slots = identity::Slots {
        identity: core.secrets.identity("default"),
        trust: core.secrets.bundle("ROOTCA"),
    };
    let (mut agent, status) =
        CertificateAgent::new(identity.settings.clone(), target, slots, &core.registry)?;
    tasks.spawn(async move {
        let mut supervisor = Supervisor::new("identity");
        while supervisor.panicked(agent.run()).await {}
    });
    let (watched, store) = (status.clone(), core.store.clone());
    tasks.spawn(async move {
        let mut supervisor = Supervisor::new("trust");
        while supervisor
            .panicked(reverify_after_changes(watched.clone(), &store))
            .await
        {}
    });
    Ok(Some(status))
}

/// After a change of the trust bundle, every worker verifies its connections again.
async fn reverify_after_changes(
    mut status: watch::Receiver<identity::CertificateStatus>,
    store: &crate::snapshot::Store,
) {
    let mut roots = status.borrow().roots.clone();
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().roots.clone();
        if now != roots {
            roots = now;
            store.notify();
        }
    }
}

/// Waits for the first certificate: without one the control plane refuses the stream.
pub(super) async fn certified(identity: Option<watch::Receiver<identity::CertificateStatus>>) {
    if let Some(mut status) = identity {
        let certified = status.wait_for(|status| !status.serial.is_empty()).await;
        drop(certified);
    }
}
