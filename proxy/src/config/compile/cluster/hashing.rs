//! RING_HASH and MAGLEV, in both their forms.

use std::num::NonZeroU32;
use std::sync::Arc;

use xds_proto::envoy::config::cluster::v3::cluster as pb;
use xds_proto::envoy::extensions::load_balancing_policies as policies;
use xds_proto::google::protobuf as google;

use super::balancing::Balancing;
use super::locality;
use crate::config::cluster::{ConsistentHashing, HashFunction, HashTableKind, LbPolicy};
use crate::config::compile::route::hash::hash_policy;
use crate::config::compile::support::{At, CompileError, known, u32_opt};
use crate::config::hash::HashPolicy;

/// Envoy's bounds of the ring's size, and its default of the least.
const MAX_RING: u32 = 8 << 20;
const MIN_RING: u32 = 1024;
/// Envoy's default and bound of the size of Maglev's table.
const MAGLEV: u32 = 65537;
const MAX_MAGLEV: u64 = 5_000_011;

pub const DEFAULT_RING: HashTableKind = HashTableKind::Ring {
    minimum: MIN_RING,
    maximum: MAX_RING,
    function: HashFunction::XxHash,
};
pub const DEFAULT_MAGLEV: HashTableKind = HashTableKind::Maglev { size: MAGLEV };

/// `consistent_hashing_lb_config`, in both its forms.
#[derive(Clone, Copy, Default)]
pub struct HashSettings {
    use_hostname: bool,
    balance_factor: Option<NonZeroU32>,
}

impl HashSettings {
    pub fn with(self, table: HashTableKind) -> LbPolicy {
        LbPolicy::ConsistentHash(ConsistentHashing {
            table,
            use_hostname: self.use_hostname,
            balance_factor: self.balance_factor,
        })
    }
}

/// `ring_hash_lb_config`.
pub fn old_ring(at: At<'_>, m: &pb::RingHashLbConfig) -> Result<HashTableKind, CompileError> {
    use pb::ring_hash_lb_config::HashFunction as Function;
    let pb::RingHashLbConfig {
        minimum_ring_size,
        hash_function,
        maximum_ring_size,
    } = m;
    let function = match known(at.field("hash_function"), *hash_function)? {
        Function::XxHash => HashFunction::XxHash,
        Function::MurmurHash2 => HashFunction::MurmurHash2,
    };
    ring(at, minimum_ring_size, maximum_ring_size, function)
}

/// `maglev_lb_config`.
pub fn old_maglev(at: At<'_>, m: &pb::MaglevLbConfig) -> Result<HashTableKind, CompileError> {
    let pb::MaglevLbConfig { table_size } = m;
    maglev(at, table_size)
}

pub fn typed_maglev(
    at: At<'_>,
    m: &policies::maglev::v3::Maglev,
) -> Result<Balancing, CompileError> {
    let policies::maglev::v3::Maglev {
        table_size,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = m;
    let (settings, hash_policy) = hashing(at, consistent_hashing_lb_config)?;
    Ok(Balancing {
        hash_policy,
        locality: locality::of_hashing(locality_weighted_lb_config),
        ..Balancing::from(settings.with(maglev(at, table_size)?))
    })
}

pub fn typed_ring(
    at: At<'_>,
    m: &policies::ring_hash::v3::RingHash,
) -> Result<Balancing, CompileError> {
    use policies::ring_hash::v3::ring_hash::HashFunction as Function;
    let policies::ring_hash::v3::RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = m;
    let function = match known(at.field("hash_function"), *hash_function)? {
        Function::DefaultHash | Function::XxHash => HashFunction::XxHash,
        Function::MurmurHash2 => HashFunction::MurmurHash2,
    };
    let ring = ring(at, minimum_ring_size, maximum_ring_size, function)?;
    let (mut settings, hash_policy) = hashing(at, consistent_hashing_lb_config)?;
    if consistent_hashing_lb_config.is_none() {
        settings = HashSettings {
            use_hostname: *use_hostname_for_hashing,
            balance_factor: balance_factor(at, hash_balance_factor)?,
        };
    }
    Ok(Balancing {
        hash_policy,
        locality: locality::of_hashing(locality_weighted_lb_config),
        ..Balancing::from(settings.with(ring))
    })
}

/// `consistent_hashing_lb_config` of a policy.
fn hashing(
    at: At<'_>,
    m: &Option<policies::common::v3::ConsistentHashingLbConfig>,
) -> Result<(HashSettings, Option<Arc<HashPolicy>>), CompileError> {
    let Some(m) = m else {
        return Ok((HashSettings::default(), None));
    };
    let at = at.field("consistent_hashing_lb_config");
    let policies::common::v3::ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
        hash_policy: own,
    } = m;
    let settings = HashSettings {
        use_hostname: *use_hostname_for_hashing,
        balance_factor: balance_factor(at, hash_balance_factor)?,
    };
    Ok((settings, hash_policy(at, own)?))
}

/// `consistent_hashing_lb_config` of `common_lb_config`.
pub fn old_hashing(
    at: At<'_>,
    m: &pb::common_lb_config::ConsistentHashingLbConfig,
) -> Result<HashSettings, CompileError> {
    let pb::common_lb_config::ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
    } = m;
    Ok(HashSettings {
        use_hostname: *use_hostname_for_hashing,
        balance_factor: balance_factor(at, hash_balance_factor)?,
    })
}

fn balance_factor(
    at: At<'_>,
    m: &Option<google::UInt32Value>,
) -> Result<Option<NonZeroU32>, CompileError> {
    match u32_opt(m) {
        None => Ok(None),
        Some(percent @ 100..) => Ok(NonZeroU32::new(percent)),
        Some(_) => at.field("hash_balance_factor").fail("must be 100 or more"),
    }
}

fn ring(
    at: At<'_>,
    minimum: &Option<google::UInt64Value>,
    maximum: &Option<google::UInt64Value>,
    function: HashFunction,
) -> Result<HashTableKind, CompileError> {
    let size = |name: &'static str, given: &Option<google::UInt64Value>, default: u32| {
        let Some(given) = given else {
            return Ok(default);
        };
        match u32::try_from(given.value) {
            Ok(size @ 1..=MAX_RING) => Ok(size),
            _ => at
                .field(name)
                .fail(format_args!("{} is not in 1..={MAX_RING}", given.value)),
        }
    };
    let maximum = size("maximum_ring_size", maximum, MAX_RING)?;
    let minimum = size("minimum_ring_size", minimum, MIN_RING)?;
    if minimum > maximum {
        return at
            .field("minimum_ring_size")
            .fail(format_args!("{minimum} is above the maximum, {maximum}"));
    }
    Ok(HashTableKind::Ring {
        minimum,
        maximum,
        function,
    })
}

fn maglev(at: At<'_>, size: &Option<google::UInt64Value>) -> Result<HashTableKind, CompileError> {
    let size = size.as_ref().map_or(u64::from(MAGLEV), |size| size.value);
    let at = at.field("table_size");
    if size > MAX_MAGLEV {
        return at.fail(format_args!("is above {MAX_MAGLEV}"));
    }
    match u32::try_from(size) {
        Ok(size) if is_prime(size) => Ok(HashTableKind::Maglev { size }),
        _ => at.fail(format_args!("{size} is not a prime")),
    }
}

fn is_prime(number: u32) -> bool {
    let divides = |divisor: u32| number.is_multiple_of(divisor);
    number >= 2 && !(2..number).take_while(|d| d * d <= number).any(divides)
}
