//! Settings that all policies of balancing have in common.

use xds_proto::envoy::config::cluster::v3 as pb;
use xds_proto::envoy::config::core::v3 as core;

use super::{hashing, locality};
use crate::config::balancing::LocalityPolicy;
use crate::config::cluster::SessionHealth;
use crate::config::compile::support::{At, CompileError, ignored, known};
use crate::config::compile::values::percent;

/// `common_lb_config`.
pub(super) struct CommonSettings {
    pub(super) panic_threshold: u8,
    pub(super) ignores_new_hosts: bool,
    pub(super) session_health: SessionHealth,
    pub(super) hashing: hashing::HashSettings,
    pub(super) close_connections_on_host_set_change: bool,
    pub(super) locality: LocalityPolicy,
    /// A field that is set and that `load_balancing_policy` has a place of its own for.
    pub(super) exclusive: Option<&'static str>,
}

pub(super) fn common(
    at: At<'_>,
    m: &Option<pb::cluster::CommonLbConfig>,
) -> Result<CommonSettings, CompileError> {
    let none = pb::cluster::CommonLbConfig::default();
    let pb::cluster::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = m.as_ref().unwrap_or(&none);
    ignored!(
        "an endpoint change costs little and is applied at once",
        update_merge_window
    );
    let panic_threshold = match healthy_panic_threshold {
        Some(share) => percent(at.field("healthy_panic_threshold"), share)?,
        None => 50,
    };
    Ok(CommonSettings {
        panic_threshold,
        close_connections_on_host_set_change: *close_connections_on_host_set_change,
        locality: locality::old(at, locality_config_specifier)?,
        exclusive: match (locality_config_specifier, consistent_hashing_lb_config) {
            (None, None) => None,
            (Some(_), _) => Some("the localities of common_lb_config"),
            (None, Some(_)) => Some("consistent_hashing_lb_config of common_lb_config"),
        },
        ignores_new_hosts: *ignore_new_hosts_until_first_hc,
        session_health: session_health(at.field("override_host_status"), override_host_status)?,
        hashing: match consistent_hashing_lb_config {
            Some(m) => hashing::old_hashing(at.field("consistent_hashing_lb_config"), m)?,
            None => hashing::HashSettings::default(),
        },
    })
}

fn session_health(
    at: At<'_>,
    m: &Option<core::HealthStatusSet>,
) -> Result<SessionHealth, CompileError> {
    let Some(core::HealthStatusSet { statuses }) = m else {
        return Ok(SessionHealth::default());
    };
    let mut health = SessionHealth {
        healthy: false,
        degraded: false,
        draining: false,
        unhealthy: false,
    };
    for (index, status) in statuses.iter().enumerate() {
        match known(at.index("statuses", index), *status)? {
            core::HealthStatus::Unknown | core::HealthStatus::Healthy => health.healthy = true,
            core::HealthStatus::Degraded => health.degraded = true,
            core::HealthStatus::Draining => health.draining = true,
            core::HealthStatus::Unhealthy | core::HealthStatus::Timeout => health.unhealthy = true,
        }
    }
    Ok(health)
}
