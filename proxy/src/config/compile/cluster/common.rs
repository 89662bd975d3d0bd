//! Settings that all policies of balancing have in common.

use xds_proto::envoy::config::cluster::v3 as pb;
use xds_proto::envoy::config::core::v3 as core;

use super::hashing;
use crate::config::cluster::SessionHealth;
use crate::config::compile::support::{At, CompileError, ignored, known, unsupported};
use crate::config::compile::values::percent;

/// `common_lb_config`.
pub(super) struct CommonSettings {
    pub(super) panic_threshold: u8,
    pub(super) ignores_new_hosts: bool,
    pub(super) session_health: SessionHealth,
    pub(super) hashing: hashing::HashSettings,
}

pub(super) fn common(
    at: At<'_>,
    m: &Option<pb::cluster::CommonLbConfig>,
) -> Result<CommonSettings, CompileError> {
    use pb::cluster::common_lb_config::LocalityConfigSpecifier as Locality;
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
    unsupported!(at, close_connections_on_host_set_change);
    ignored!(
        "an endpoint change costs little and is applied at once",
        update_merge_window
    );
    match locality_config_specifier {
        // Zone awareness needs the bootstrap's local cluster, which is not supported: without it
        // Envoy does nothing either.
        None | Some(Locality::ZoneAwareLbConfig(_)) => {}
        Some(Locality::LocalityWeightedLbConfig(_)) => {
            return at
                .field("locality_weighted_lb_config")
                .fail("is not supported by this proxy");
        }
    }
    let panic_threshold = match healthy_panic_threshold {
        Some(share) => percent(at.field("healthy_panic_threshold"), share)?,
        None => 50,
    };
    Ok(CommonSettings {
        panic_threshold,
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
