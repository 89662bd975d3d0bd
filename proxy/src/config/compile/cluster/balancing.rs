//! Load balancing policies, in both their forms.

use std::sync::Arc;

use xds_proto::envoy::config::cluster::v3 as pb;
use xds_proto::envoy::config::core::v3::RuntimeDouble;
use xds_proto::envoy::extensions::load_balancing_policies as policies;
use xds_proto::google::protobuf as google;

use super::discovery::original_dst;
use super::hashing::{self, HashSettings};
use super::{locality, subset};
use crate::config::balancing::{LocalityPolicy, SlowStart, SubsetSettings, ZoneAware};
use crate::config::cluster::LbPolicy;
use crate::config::compile::support::{
    At, CompileError, bool_or, decode, ignored, known, required, type_name, u32_or, unknown_type,
    unsupported,
};
use crate::config::compile::values::extension;
use crate::config::hash::HashPolicy;

/// How deep policies may be nested in one another.
const MAX_DEPTH: u32 = 4;

/// How a cluster balances.
pub struct Balancing {
    pub policy: LbPolicy,
    pub hash_policy: Option<Arc<HashPolicy>>,
    pub slow_start: Option<SlowStart>,
    pub locality: LocalityPolicy,
    pub subsets: Option<SubsetSettings>,
}

impl From<LbPolicy> for Balancing {
    fn from(policy: LbPolicy) -> Self {
        Self {
            policy,
            hash_policy: None,
            slow_start: None,
            locality: match policy.is_hash() {
                true => LocalityPolicy::Ignored,
                false => LocalityPolicy::ZoneAware(ZoneAware::default()),
            },
            subsets: None,
        }
    }
}

/// What clusters are configured with in place of `load_balancing_policy`.
pub struct OldFields<'a> {
    pub policy: i32,
    pub config: &'a Option<pb::cluster::LbConfig>,
    pub hashing: HashSettings,
    pub locality: LocalityPolicy,
    pub subsets: &'a Option<pb::cluster::LbSubsetConfig>,
    /// A field that `load_balancing_policy` must not be combined with, and that is set.
    pub exclusive: Option<&'static str>,
}

/// `lb_policy` with its `lb_config`, or `load_balancing_policy`, which wins.
pub fn policy(
    at: At<'_>,
    old: &OldFields<'_>,
    new: &Option<pb::LoadBalancingPolicy>,
) -> Result<Balancing, CompileError> {
    use pb::cluster::LbPolicy as Old;
    let configured = config(at, old)?;
    let subsets = subset::old(at, old.subsets)?;
    if let Some(m) = new {
        if let Some(field) = old.exclusive {
            return at
                .field("load_balancing_policy")
                .fail(format_args!("cannot be combined with {field}"));
        }
        return typed(at.field("load_balancing_policy"), m, 0);
    }
    let policy = match known(at.field("lb_policy"), old.policy)? {
        Old::RoundRobin => LbPolicy::RoundRobin,
        Old::LeastRequest => configured.least_request,
        Old::Random => LbPolicy::Random,
        // Only ORIGINAL_DST clusters provide their own; they pick by address.
        Old::ClusterProvided => LbPolicy::RoundRobin,
        Old::RingHash => configured.ring_hash,
        Old::Maglev => configured.maglev,
        Old::LoadBalancingPolicyConfig => {
            return at
                .field("load_balancing_policy")
                .fail("is required by this lb_policy");
        }
    };
    let locality = match old.locality {
        LocalityPolicy::ZoneAware(_) if policy.is_hash() => LocalityPolicy::Ignored,
        locality => locality,
    };
    Ok(Balancing {
        slow_start: match policy {
            LbPolicy::RoundRobin => configured.round_robin_slow_start,
            LbPolicy::LeastRequest { .. } => configured.least_request_slow_start,
            LbPolicy::Random | LbPolicy::ConsistentHash(_) => None,
        },
        locality,
        subsets,
        ..Balancing::from(policy)
    })
}

/// The policies that `lb_config` can configure.
struct Configured {
    round_robin_slow_start: Option<SlowStart>,
    least_request: LbPolicy,
    least_request_slow_start: Option<SlowStart>,
    ring_hash: LbPolicy,
    maglev: LbPolicy,
}

/// What belongs to another policy is checked, too, and has no effect, as in Envoy.
fn config(at: At<'_>, old: &OldFields<'_>) -> Result<Configured, CompileError> {
    use pb::cluster::LbConfig as Config;
    let mut configured = Configured {
        round_robin_slow_start: None,
        least_request: least_request(at, &None, &None)?,
        least_request_slow_start: None,
        ring_hash: old.hashing.with(hashing::DEFAULT_RING),
        maglev: old.hashing.with(hashing::DEFAULT_MAGLEV),
    };
    match old.config {
        None => {}
        Some(Config::RoundRobinLbConfig(m)) => {
            let at = at.field("round_robin_lb_config");
            let pb::cluster::RoundRobinLbConfig { slow_start_config } = m;
            configured.round_robin_slow_start = locality::old_slow_start(at, slow_start_config)?;
        }
        Some(Config::LeastRequestLbConfig(m)) => {
            let at = at.field("least_request_lb_config");
            let pb::cluster::LeastRequestLbConfig {
                choice_count,
                active_request_bias,
                slow_start_config,
            } = m;
            configured.least_request_slow_start = locality::old_slow_start(at, slow_start_config)?;
            configured.least_request = least_request(at, choice_count, active_request_bias)?;
        }
        Some(Config::OriginalDstLbConfig(m)) => {
            original_dst(at.field("original_dst_lb_config"), m)?;
        }
        Some(Config::RingHashLbConfig(m)) => {
            let ring = hashing::old_ring(at.field("ring_hash_lb_config"), m)?;
            configured.ring_hash = old.hashing.with(ring);
        }
        Some(Config::MaglevLbConfig(m)) => {
            let maglev = hashing::old_maglev(at.field("maglev_lb_config"), m)?;
            configured.maglev = old.hashing.with(maglev);
        }
    }
    Ok(configured)
}

/// A policy inside another, at `depth`.
pub fn child(
    at: At<'_>,
    m: &Option<pb::LoadBalancingPolicy>,
    depth: u32,
) -> Result<Balancing, CompileError> {
    match m {
        Some(_) if depth >= MAX_DEPTH => at.fail("is nested too deep"),
        Some(m) => typed(at, m, depth + 1),
        None => at.fail("is required"),
    }
}

/// The first policy that is known, as in Envoy.
fn typed(at: At<'_>, m: &pb::LoadBalancingPolicy, depth: u32) -> Result<Balancing, CompileError> {
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
        if let Some(policy) = known_policy(at.field("typed_config"), any, depth)? {
            return Ok(policy);
        }
        unknown = unknown.or(unknown_type::<()>(at, any).err());
    }
    Err(unknown.unwrap_or_else(|| at.field("policies").error("is required")))
}

fn known_policy(
    at: At<'_>,
    any: &google::Any,
    depth: u32,
) -> Result<Option<Balancing>, CompileError> {
    let balancing = match type_name(any) {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            let m: policies::round_robin::v3::RoundRobin = decode(at, any)?;
            let policies::round_robin::v3::RoundRobin {
                slow_start_config,
                locality_lb_config,
            } = &m;
            Balancing {
                slow_start: locality::typed_slow_start(at, slow_start_config)?,
                locality: locality::typed(at, locality_lb_config)?,
                ..Balancing::from(LbPolicy::RoundRobin)
            }
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
            unsupported!(at, enable_full_scan, selection_method);
            Balancing {
                slow_start: locality::typed_slow_start(at, slow_start_config)?,
                locality: locality::typed(at, locality_lb_config)?,
                ..Balancing::from(least_request(at, choice_count, active_request_bias)?)
            }
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            let m: policies::random::v3::Random = decode(at, any)?;
            let policies::random::v3::Random { locality_lb_config } = &m;
            Balancing {
                locality: locality::typed(at, locality_lb_config)?,
                ..Balancing::from(LbPolicy::Random)
            }
        }
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => {
            hashing::typed_ring(at, &decode(at, any)?)?
        }
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" => {
            hashing::typed_maglev(at, &decode(at, any)?)?
        }
        "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided" => {
            LbPolicy::RoundRobin.into()
        }
        "envoy.extensions.load_balancing_policies.subset.v3.Subset" => {
            subset::typed(at, &decode(at, any)?, depth)?
        }
        "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality" => {
            let m: policies::wrr_locality::v3::WrrLocality = decode(at, any)?;
            let policies::wrr_locality::v3::WrrLocality {
                endpoint_picking_policy,
            } = &m;
            let at = at.field("endpoint_picking_policy");
            Balancing {
                locality: LocalityPolicy::Weighted,
                ..child(at, endpoint_picking_policy, depth)?
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(balancing))
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
