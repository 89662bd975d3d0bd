//! What the command line asks of the process.

use super::{AppError, Process, workers_of};
use crate::bootstrap::Bootstrap;

/// Envoy's flags that concern the process itself.
pub(super) fn apply(process: &Process) -> std::io::Result<()> {
    for (flag, why) in process.envoy.without_effect() {
        tracing::warn!("{flag} has no effect: {why}");
    }
    if process.envoy.enable_core_dump {
        let dumpable = rustix::process::DumpableBehavior::Dumpable;
        rustix::process::set_dumpable_behavior(dumpable)?;
    }
    Ok(())
}

/// For `--admin-address-path`.
pub(super) fn write_admin_address(
    process: &Process,
    bootstrap: &Bootstrap,
) -> Result<(), AppError> {
    match (&process.envoy.admin_address_path, bootstrap.admin) {
        (Some(path), Some(address)) => {
            std::fs::write(path, address.to_string()).map_err(AppError::AdminAddress)
        }
        _ => Ok(()),
    }
}

/// What the admin pages show of them.
pub(super) fn options(process: &Process) -> serde_json::Value {
    serde_json::json!({
        "concurrency": workers_of(process),
        "log_level": process.log_level.as_filter(),
        "drain_time": format!("{}s", process.drain_time_s),
        "mode": format!("{:?}", process.mode),
    })
}
