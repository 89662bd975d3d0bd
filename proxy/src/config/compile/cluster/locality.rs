//! Localities and slow start, in both their forms.

use std::time::Duration;

use xds_proto::envoy::config::cluster::v3::cluster as pb;
use xds_proto::envoy::config::core::v3::RuntimeDouble;
use xds_proto::envoy::extensions::load_balancing_policies::common::v3 as common;
use xds_proto::envoy::r#type::v3::Percent;
use xds_proto::google::protobuf as google;

use crate::config::balancing::{LocalityPolicy, SlowStart, ZoneAware};
use crate::config::compile::support::{At, CompileError, duration, ignored, known, u32_or};
use crate::config::compile::values::percent;

/// Envoy's default for `min_weight_percent`.
const MIN_WEIGHT: f64 = 10.0;
/// No window is longer, so that it can be added to any time.
const LONGEST_WINDOW: Duration = Duration::from_secs(365 * 24 * 3600);

/// `common_lb_config`.
pub fn old(
    at: At<'_>,
    m: &Option<pb::common_lb_config::LocalityConfigSpecifier>,
) -> Result<LocalityPolicy, CompileError> {
    use pb::common_lb_config::{
        LocalityConfigSpecifier as Specifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
    };
    let m = match m {
        None => return Ok(LocalityPolicy::ZoneAware(ZoneAware::default())),
        Some(Specifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            return Ok(LocalityPolicy::Weighted);
        }
        Some(Specifier::ZoneAwareLbConfig(m)) => m,
    };
    let ZoneAwareLbConfig {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
    } = m;
    Ok(LocalityPolicy::ZoneAware(ZoneAware {
        fail_traffic_on_panic: *fail_traffic_on_panic,
        ..zone_aware(
            at.field("zone_aware_lb_config"),
            routing_enabled,
            min_cluster_size,
        )?
    }))
}

/// `locality_lb_config` of a policy.
pub fn typed(
    at: At<'_>,
    m: &Option<common::LocalityLbConfig>,
) -> Result<LocalityPolicy, CompileError> {
    use common::locality_lb_config::{
        LocalityConfigSpecifier as Specifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
        zone_aware_lb_config::{ForceLocalZone, LocalityBasis},
    };
    let Some(common::LocalityLbConfig {
        locality_config_specifier,
    }) = m
    else {
        return Ok(LocalityPolicy::ZoneAware(ZoneAware::default()));
    };
    let at = at.field("locality_lb_config");
    let m = match locality_config_specifier {
        None => return at.fail("has neither zone_aware_lb_config nor locality_weighted_lb_config"),
        Some(Specifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            return Ok(LocalityPolicy::Weighted);
        }
        Some(Specifier::ZoneAwareLbConfig(m)) => m,
    };
    let at = at.field("zone_aware_lb_config");
    let ZoneAwareLbConfig {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
        force_locality_direct_routing,
        force_local_zone,
        locality_basis,
    } = m;
    let force_local_zone = match (force_local_zone, force_locality_direct_routing) {
        (Some(ForceLocalZone { min_size }), _) => Some(u32_or(min_size, 1)),
        // The older field of the same.
        (None, true) => Some(1),
        (None, false) => None,
    };
    Ok(LocalityPolicy::ZoneAware(ZoneAware {
        fail_traffic_on_panic: *fail_traffic_on_panic,
        force_local_zone,
        by_weight: match known(at.field("locality_basis"), *locality_basis)? {
            LocalityBasis::HealthyHostsNum => false,
            LocalityBasis::HealthyHostsWeight => true,
        },
        ..zone_aware(at, routing_enabled, min_cluster_size)?
    }))
}

fn zone_aware(
    at: At<'_>,
    routing_enabled: &Option<Percent>,
    min_cluster_size: &Option<google::UInt64Value>,
) -> Result<ZoneAware, CompileError> {
    let mut zone = ZoneAware::default();
    if let Some(share) = routing_enabled {
        zone.routing_enabled = percent(at.field("routing_enabled"), share)?.into();
    }
    if let Some(size) = min_cluster_size {
        zone.min_cluster_size = size.value;
    }
    Ok(zone)
}

/// The weights of localities, where a policy that hashes asks for them.
pub fn of_hashing(
    m: &Option<common::locality_lb_config::LocalityWeightedLbConfig>,
) -> LocalityPolicy {
    match m {
        Some(common::locality_lb_config::LocalityWeightedLbConfig {}) => LocalityPolicy::Weighted,
        None => LocalityPolicy::Ignored,
    }
}

/// `slow_start_config` of `lb_config`.
pub fn old_slow_start(
    at: At<'_>,
    m: &Option<pb::SlowStartConfig>,
) -> Result<Option<SlowStart>, CompileError> {
    let Some(pb::SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    }) = m
    else {
        return Ok(None);
    };
    let at = at.field("slow_start_config");
    slow_start(at, slow_start_window, aggression, min_weight_percent)
}

/// `slow_start_config` of a policy.
pub fn typed_slow_start(
    at: At<'_>,
    m: &Option<common::SlowStartConfig>,
) -> Result<Option<SlowStart>, CompileError> {
    let Some(common::SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    }) = m
    else {
        return Ok(None);
    };
    let at = at.field("slow_start_config");
    slow_start(at, slow_start_window, aggression, min_weight_percent)
}

/// `None`: the window is zero, or there is none.
fn slow_start(
    at: At<'_>,
    window: &Option<google::Duration>,
    aggression: &Option<RuntimeDouble>,
    min_weight: &Option<Percent>,
) -> Result<Option<SlowStart>, CompileError> {
    // Envoy reckons in milliseconds.
    let window = duration(at.field("slow_start_window"), window)?.unwrap_or_default();
    let window = Duration::from_millis(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    let aggression = match aggression {
        None => 1.0,
        Some(RuntimeDouble {
            default_value,
            runtime_key,
        }) => {
            ignored!("there is no runtime layer; the default holds", runtime_key);
            *default_value
        }
    };
    if !(aggression.is_finite() && aggression > 0.0) {
        return at.field("aggression").fail("must be above zero");
    }
    let min_weight = min_weight.as_ref().map_or(MIN_WEIGHT, |share| {
        let Percent { value } = share;
        *value
    });
    if !(0.0..=100.0).contains(&min_weight) {
        return at
            .field("min_weight_percent")
            .fail(format_args!("{min_weight} is not between 0 and 100"));
    }
    Ok((!window.is_zero()).then_some(SlowStart {
        window: window.min(LONGEST_WINDOW),
        aggression,
        min_weight: min_weight / 100.0,
    }))
}
