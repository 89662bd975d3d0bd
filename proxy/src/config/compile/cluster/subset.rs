//! Subsets, in both their forms.

use xds_proto::envoy::config::cluster::v3::cluster as pb;
use xds_proto::envoy::extensions::load_balancing_policies::subset::v3 as typed;
use xds_proto::google::protobuf::Struct;

use super::balancing::{Balancing, child};
use crate::config::balancing::{SelectorFallback, SubsetFallback, SubsetSelector, SubsetSettings};
use crate::config::compile::lb_metadata::lb_metadata;
use crate::config::compile::support::{At, CompileError, each, known};
use crate::config::endpoint::LbMetadata;

/// `lb_subset_config`; `None`: it has no selectors, and so no effect.
pub fn old(
    at: At<'_>,
    m: &Option<pb::LbSubsetConfig>,
) -> Result<Option<SubsetSettings>, CompileError> {
    match m {
        Some(m) => Ok(finished(settings(at.field("lb_subset_config"), m)?)),
        None => Ok(None),
    }
}

fn settings(at: At<'_>, m: &pb::LbSubsetConfig) -> Result<SubsetSettings, CompileError> {
    use pb::lb_subset_config::{
        LbSubsetFallbackPolicy as Fallback, LbSubsetMetadataFallbackPolicy as MetadataFallback,
        LbSubsetSelector, lb_subset_selector::LbSubsetSelectorFallbackPolicy as OfSelector,
    };
    let pb::LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = m;
    let selectors = each(at, "subset_selectors", subset_selectors, |at, m| {
        let LbSubsetSelector {
            keys,
            single_host_per_subset,
            fallback_policy,
            fallback_keys_subset,
        } = m;
        let fallback = match known(at.field("fallback_policy"), *fallback_policy)? {
            OfSelector::NotDefined => None,
            OfSelector::NoFallback => Some(SelectorFallback::None),
            OfSelector::AnyEndpoint => Some(SelectorFallback::AnyEndpoint),
            OfSelector::DefaultSubset => Some(SelectorFallback::DefaultSubset),
            OfSelector::KeysSubset => Some(SelectorFallback::Keys(sorted(fallback_keys_subset))),
        };
        selector(
            at,
            keys,
            *single_host_per_subset,
            fallback,
            fallback_keys_subset,
        )
    })?;
    Ok(SubsetSettings {
        selectors,
        fallback: match known(at.field("fallback_policy"), *fallback_policy)? {
            Fallback::NoFallback => SubsetFallback::None,
            Fallback::AnyEndpoint => SubsetFallback::AnyEndpoint,
            Fallback::DefaultSubset => SubsetFallback::DefaultSubset,
        },
        default_subset: default_of(at, default_subset)?,
        locality_weight_aware: *locality_weight_aware,
        scale_locality_weight: *scale_locality_weight,
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
        allow_redundant_keys: false,
        metadata_fallback: match known(
            at.field("metadata_fallback_policy"),
            *metadata_fallback_policy,
        )? {
            MetadataFallback::MetadataNoFallback => false,
            MetadataFallback::FallbackList => true,
        },
    })
}

/// envoy.extensions.load_balancing_policies.subset.v3.Subset.
pub fn typed(at: At<'_>, m: &typed::Subset, depth: u32) -> Result<Balancing, CompileError> {
    let typed::Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy,
    } = m;
    let same = pb::LbSubsetConfig {
        fallback_policy: *fallback_policy,
        default_subset: default_subset.clone(),
        subset_selectors: subset_selectors.iter().map(old_selector).collect(),
        locality_weight_aware: *locality_weight_aware,
        scale_locality_weight: *scale_locality_weight,
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
        metadata_fallback_policy: *metadata_fallback_policy,
    };
    let mut settings = settings(at, &same)?;
    settings.allow_redundant_keys = *allow_redundant_keys;
    let child = child(at.field("subset_lb_policy"), subset_lb_policy, depth)?;
    if child.subsets.is_some() {
        return at
            .field("subset_lb_policy")
            .fail("subsets of subsets are not supported by this proxy");
    }
    Ok(Balancing {
        subsets: finished(settings),
        ..child
    })
}

fn default_of(at: At<'_>, m: &Option<Struct>) -> Result<LbMetadata, CompileError> {
    match m {
        Some(m) => lb_metadata(at.field("default_subset"), m),
        None => Ok(LbMetadata::default()),
    }
}

fn sorted(keys: &[String]) -> Vec<Box<str>> {
    let mut keys: Vec<Box<str>> = keys.iter().map(|key| key.as_str().into()).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// The same in the old form, whose numbers of policies are the same.
fn old_selector(m: &typed::subset::LbSubsetSelector) -> pb::lb_subset_config::LbSubsetSelector {
    let typed::subset::LbSubsetSelector {
        keys,
        single_host_per_subset,
        fallback_policy,
        fallback_keys_subset,
    } = m;
    pb::lb_subset_config::LbSubsetSelector {
        keys: keys.clone(),
        single_host_per_subset: *single_host_per_subset,
        fallback_policy: *fallback_policy,
        fallback_keys_subset: fallback_keys_subset.clone(),
    }
}

fn selector(
    at: At<'_>,
    keys: &[String],
    single_host: bool,
    fallback: Option<SelectorFallback>,
    fallback_keys: &[String],
) -> Result<SubsetSelector, CompileError> {
    let keys = sorted(keys);
    let at_fallback = at.field("fallback_keys_subset");
    match &fallback {
        Some(SelectorFallback::Keys(fewer)) => {
            if fewer.is_empty() {
                return at_fallback.fail("is required by KEYS_SUBSET");
            }
            if fewer.len() >= keys.len() || !fewer.iter().all(|key| keys.contains(key)) {
                return at_fallback.fail("must be some of keys, and not all");
            }
        }
        _ if !fallback_keys.is_empty() => {
            return at_fallback.fail("is only for the fallback_policy KEYS_SUBSET");
        }
        _ => {}
    }
    Ok(SubsetSelector {
        keys,
        single_host,
        fallback,
    })
}

/// Without selectors that have no keys, and with those that are compared first in front.
fn finished(mut settings: SubsetSettings) -> Option<SubsetSettings> {
    let any = !settings.selectors.is_empty();
    settings
        .selectors
        .retain(|selector| !selector.keys.is_empty());
    if settings.allow_redundant_keys {
        let most_keys = |selector: &SubsetSelector| std::cmp::Reverse(selector.keys.len());
        settings.selectors.sort_by_key(most_keys);
    }
    any.then_some(settings)
}
