//! One version for all resources of a type, as reports to people have it.

use std::collections::BTreeMap;

use super::cache::Cache;
use super::resource_type::ResourceType;

/// Of each type that is held: the server's own version (state of the world), else one made from its
/// resources' versions; and how many there are.
pub(super) fn of<T: Clone>(cache: &Cache<T>) -> BTreeMap<ResourceType, (String, u32)> {
    let mut sums: BTreeMap<ResourceType, (u64, u32)> = BTreeMap::new();
    for (key, status) in cache.resources() {
        if let Some((version, ..)) = status.active {
            let sum = sums.entry(key.kind).or_default();
            // Order does not matter and one resource's change shows: a report, no proof.
            sum.0 = sum.0.wrapping_add(fnv(&key.name, &version));
            sum.1 = sum.1.saturating_add(1);
        }
    }
    let version = |kind: ResourceType, sum: u64| match cache.type_version(kind) {
        "" => format!("{sum:016x}"),
        version => version.to_owned(),
    };
    sums.into_iter()
        .map(|(kind, (sum, count))| (kind, (version(kind, sum), count)))
        .collect()
}

/// FNV-1a over both texts.
fn fnv(a: &str, b: &str) -> u64 {
    let bytes = a.bytes().chain([0]).chain(b.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
