//! Load balancing policies, in both their forms.

use xds_proto::envoy::config::cluster::v3 as pb;
use xds_proto::envoy::config::core::v3::RuntimeDouble;
use xds_proto::envoy::extensions::load_balancing_policies as policies;
use xds_proto::google::protobuf as google;

use policies::common::v3::LocalityLbConfig;
use policies::common::v3::locality_lb_config::LocalityConfigSpecifier;

use super::discovery::original_dst;
use crate::config::cluster::LbPolicy;
use crate::config::compile::support::{
    At, CompileError, bool_or, decode, ignored, known, required, type_name, u32_or, unknown_type,
    unsupported,
};
use crate::config::compile::values::extension;

/// `lb_policy` with its `lb_config`, or `load_balancing_policy`, which wins.
pub fn policy(
    at: At<'_>,
    old: i32,
    old_config: &Option<pb::cluster::LbConfig>,
    new: &Option<pb::LoadBalancingPolicy>,
) -> Result<LbPolicy, CompileError> {
    use pb::cluster::LbPolicy as Old;
    let least_request = config(at, old_config)?;
    if let Some(m) = new {
        return typed(at.field("load_balancing_policy"), m);
    }
    let field = at.field("lb_policy");
    match known(field, old)? {
        Old::RoundRobin => Ok(LbPolicy::RoundRobin),
        Old::LeastRequest => Ok(least_request),
        Old::Random => Ok(LbPolicy::Random),
        // Only ORIGINAL_DST clusters provide their own; they pick by address.
        Old::ClusterProvided => Ok(LbPolicy::RoundRobin),
        Old::RingHash | Old::Maglev => field.fail("balancing by hash is not supported"),
        Old::LoadBalancingPolicyConfig => at
            .field("load_balancing_policy")
            .fail("is required by this lb_policy"),
    }
}

/// LEAST_REQUEST as `lb_config` has it. What belongs to another policy is checked, too, and has no
/// effect, as in Envoy.
fn config(at: At<'_>, m: &Option<pb::cluster::LbConfig>) -> Result<LbPolicy, CompileError> {
    use pb::cluster::LbConfig as Config;
    match m {
        None => {}
        Some(Config::RoundRobinLbConfig(m)) => {
            let at = at.field("round_robin_lb_config");
            let pb::cluster::RoundRobinLbConfig { slow_start_config } = m;
            unsupported!(at, slow_start_config);
        }
        Some(Config::LeastRequestLbConfig(m)) => {
            let at = at.field("least_request_lb_config");
            let pb::cluster::LeastRequestLbConfig {
                choice_count,
                active_request_bias,
                slow_start_config,
            } = m;
            unsupported!(at, slow_start_config);
            return least_request(at, choice_count, active_request_bias);
        }
        Some(Config::OriginalDstLbConfig(m)) => {
            original_dst(at.field("original_dst_lb_config"), m)?;
        }
        Some(Config::RingHashLbConfig(_)) => {
            let at = at.field("ring_hash_lb_config");
            return at.fail("balancing by hash is not supported");
        }
        Some(Config::MaglevLbConfig(_)) => {
            let at = at.field("maglev_lb_config");
            return at.fail("balancing by hash is not supported");
        }
    }
    least_request(at, &None, &None)
}

/// The first policy that is known, as in Envoy.
fn typed(at: At<'_>, m: &pb::LoadBalancingPolicy) -> Result<LbPolicy, CompileError> {
    let pb::LoadBalancingPolicy { policies } = m;
    let mut unknown = None;
    for (index, m) in policies.iter().enumerate() {
        let at = at.index("policies", index);
        let pb::load_balancing_policy::Policy {
            typed_extension_config,
        } = m;
        let config = required!(at, typed_extension_config);
        let at = at.field("typed_extension_config");
        let any = extension(at, config)?;
        if let Some(policy) = known_policy(at.field("typed_config"), any)? {
            return Ok(policy);
        }
        unknown = unknown.or(unknown_type::<()>(at, any).err());
    }
    Err(unknown.unwrap_or_else(|| at.field("policies").error("is required")))
}

fn known_policy(at: At<'_>, any: &google::Any) -> Result<Option<LbPolicy>, CompileError> {
    Ok(Some(match type_name(any) {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            let m: policies::round_robin::v3::RoundRobin = decode(at, any)?;
            let policies::round_robin::v3::RoundRobin {
                slow_start_config,
                locality_lb_config,
            } = &m;
            unsupported!(at, slow_start_config);
            locality(at, locality_lb_config)?;
            LbPolicy::RoundRobin
        }
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            let m: policies::least_request::v3::LeastRequest = decode(at, any)?;
            let policies::least_request::v3::LeastRequest {
                choice_count,
                active_request_bias,
                slow_start_config,
                locality_lb_config,
                enable_full_scan,
                selection_method,
            } = &m;
            let enable_full_scan = &bool_or(enable_full_scan, false);
            unsupported!(at, slow_start_config, enable_full_scan, selection_method);
            locality(at, locality_lb_config)?;
            least_request(at, choice_count, active_request_bias)?
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            let m: policies::random::v3::Random = decode(at, any)?;
            let policies::random::v3::Random { locality_lb_config } = &m;
            locality(at, locality_lb_config)?;
            LbPolicy::Random
        }
        "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided" => {
            LbPolicy::RoundRobin
        }
        _ => return Ok(None),
    }))
}

fn locality(at: At<'_>, m: &Option<LocalityLbConfig>) -> Result<(), CompileError> {
    let specifier = m.as_ref().and_then(|m| {
        let LocalityLbConfig {
            locality_config_specifier,
        } = m;
        locality_config_specifier.as_ref()
    });
    match specifier {
        // Needs the bootstrap's local cluster, which is not supported: Envoy does nothing without.
        None | Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => Ok(()),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            let at = at.field("locality_lb_config");
            at.field("locality_weighted_lb_config")
                .fail("is not supported by this proxy")
        }
    }
}

fn least_request(
    at: At<'_>,
    choices: &Option<google::UInt32Value>,
    bias: &Option<RuntimeDouble>,
) -> Result<LbPolicy, CompileError> {
    let bias = match bias {
        None => 1.0,
        Some(RuntimeDouble {
            default_value,
            runtime_key,
        }) => {
            ignored!("there is no runtime layer; the default holds", runtime_key);
            *default_value
        }
    };
    let at_bias = at.field("active_request_bias");
    if !bias.is_finite() || bias < 0.0 {
        return at_bias.fail("must be zero or more");
    }
    match u32_or(choices, 2) {
        choices @ 2..=64 => Ok(LbPolicy::LeastRequest { choices, bias }),
        choices => at
            .field("choice_count")
            .fail(format_args!("{choices} is not in 2..=64")),
    }
}
