//! Settings of load balancing beside its policy: slow start, localities, subsets.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::LbMetadata;

/// `slow_start_config`: endpoints that are new get a growing share of their weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long it lasts; above zero.
    pub window: Duration,
    /// 1: the share grows with time; above, it grows faster at first. Above zero.
    pub aggression: f64,
    /// The least share of its weight that an endpoint has, of one.
    pub min_weight: f64,
}

/// What an endpoint's locality means for the choice of endpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LocalityPolicy {
    /// Nothing.
    Ignored,
    /// `locality_weighted_lb_config`: localities share requests by their weights.
    Weighted,
    /// `zone_aware_lb_config`; without effect unless the bootstrap names the local cluster.
    ZoneAware(ZoneAware),
}

/// `zone_aware_lb_config`: requests stay in the proxy's own locality as far as its endpoints do not
/// get more than others by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneAware {
    /// Percent of requests that it is for.
    pub routing_enabled: u32,
    /// Healthy endpoints that the cluster has at least.
    pub min_cluster_size: u64,
    /// Requests fail in panic; else all endpoints get them.
    pub fail_traffic_on_panic: bool,
    /// All requests stay when the own locality has so many healthy endpoints.
    pub force_local_zone: Option<u32>,
    /// Localities are compared by the weight of their healthy endpoints, not by their number.
    pub by_weight: bool,
}

impl Default for ZoneAware {
    /// Envoy's.
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
            force_local_zone: None,
            by_weight: false,
        }
    }
}

/// `lb_subset_config`: requests with criteria go to the endpoints whose metadata has the same.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetSettings {
    pub selectors: Vec<SubsetSelector>,
    pub fallback: SubsetFallback,
    pub default_subset: LbMetadata,
    pub locality_weight_aware: bool,
    pub scale_locality_weight: bool,
    pub panic_mode_any: bool,
    pub list_as_any: bool,
    pub allow_redundant_keys: bool,
    /// Criteria may have a list of others, which are tried in turn.
    pub metadata_fallback: bool,
}

impl SubsetSettings {
    /// Whether any fallback leads to the default subset.
    pub fn needs_default(&self) -> bool {
        let by_selector =
            |selector: &SubsetSelector| selector.fallback == Some(SelectorFallback::DefaultSubset);
        self.fallback == SubsetFallback::DefaultSubset || self.selectors.iter().any(by_selector)
    }
}

/// Endpoints that have all of these keys form a subset for each combination of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsetSelector {
    /// Sorted; at least one.
    pub keys: Vec<Box<str>>,
    /// A subset is its first endpoint.
    pub single_host: bool,
    /// `None`: as the cluster has it.
    pub fallback: Option<SelectorFallback>,
}

/// What a request gets that no subset matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetFallback {
    None,
    AnyEndpoint,
    DefaultSubset,
}

/// As [`SubsetFallback`], where the criteria have a selector's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorFallback {
    None,
    AnyEndpoint,
    DefaultSubset,
    /// Another search, with these of the keys; sorted, fewer than the selector's.
    Keys(Vec<Box<str>>),
}

/// `metadata_match` of a route or TCP proxy: what a request asks of its endpoint's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsetCriteria {
    /// Sorted by key.
    pub pairs: LbMetadata,
    /// Criteria to try in turn where the cluster's `metadata_fallback_policy` is FALLBACK_LIST; empty:
    /// there is no such list.
    pub variants: Vec<Arc<SubsetCriteria>>,
}
