//! Subsets: endpoints by their metadata, of which a request's criteria choose one. Source: Envoy's
//! documentation of load balancer subsets.
//!
//! All subsets of an endpoint set are made with it; `members` finds which endpoints each has. What a
//! route's criteria mean for the set is found once and kept, so that a pick compares pointers only.

mod members;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use self::members::{Collected, SubsetKey, of_default, single_host};
use super::groups::BalanceSettings;
use super::{Balance, Choice, PickInput, RoundRobinCursor};
use crate::config::balancing::{
    SelectorFallback, SubsetCriteria, SubsetFallback, SubsetSelector, SubsetSettings,
};
use crate::config::cluster::LbPolicy;
use crate::config::endpoint::LbMetadata;
use crate::upstream::endpoint::Priority;

/// Subsets of a cluster; endpoints in no other are in none.
const MAX_SUBSETS: usize = 16_384;
/// Where each has a table of hashes, which is large.
const MAX_HASHED_SUBSETS: usize = 1024;
/// Criteria whose meaning is kept; that of more is found for each pick.
const MAX_RESOLVED: usize = 256;

/// The subsets of an endpoint set.
pub struct SubsetTable {
    settings: Arc<SubsetSettings>,
    subsets: Vec<Subset>,
    by_key: HashMap<SubsetKey, usize>,
    default: Option<Subset>,
    resolved: ArcSwap<Vec<(Arc<SubsetCriteria>, SubsetResolution)>>,
    /// Subsets that there was no place for.
    pub dropped: usize,
}

struct Subset {
    members: Members,
    turn: Arc<RoundRobinCursor>,
}

enum Members {
    Balanced(Balance),
    /// `single_host_per_subset`: whatever its health.
    Single(Choice),
}

/// What criteria mean for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubsetResolution {
    Subset(usize),
    /// There is no such subset, and the selector of the keys says what then.
    AnyEndpoint,
    DefaultSubset,
    Nothing,
    /// As [`SubsetSettings::fallback`] says.
    Fallback,
}

/// By what a subset was chosen; for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetChoice {
    Selected,
    Fallback,
    FallbackPanic,
}

/// A pick over a cluster that may have subsets.
#[derive(Clone, Copy)]
pub struct SubsetPick<'a> {
    pub policy: LbPolicy,
    /// Of all endpoints.
    pub all: &'a Balance,
    pub turn: &'a RoundRobinCursor,
    pub criteria: Option<&'a Arc<SubsetCriteria>>,
    pub input: PickInput<'a>,
}

impl SubsetTable {
    /// `before`: the last table, whose turns go on. Takes long: not for workers.
    pub fn new(
        settings: &Arc<SubsetSettings>,
        priorities: &[Priority],
        balance: &BalanceSettings<'_>,
        before: Option<&Self>,
    ) -> Self {
        let most = match balance.policy.is_hash() {
            true => MAX_HASHED_SUBSETS,
            false => MAX_SUBSETS,
        };
        let collected = Collected::new(settings, priorities, most);
        let localities = balance.localities(priorities);
        let mut turns = HashMap::new();
        if let Some(before) = before {
            let of = |(key, at): (&'_ SubsetKey, &usize)| {
                Some((key.clone(), before.subsets.get(*at)?.turn.clone()))
            };
            turns.extend(before.by_key.iter().filter_map(of));
        }
        let mut turn: Vec<Arc<RoundRobinCursor>> = Vec::new();
        turn.resize_with(collected.members.len(), Arc::default);
        for (key, at) in &collected.by_key {
            if let (Some(kept), Some(turn)) = (turns.get(key), turn.get_mut(*at)) {
                *turn = kept.clone();
            }
        }
        let subset = |((members, single), turn): ((Vec<Priority>, bool), _)| Subset {
            members: match single_host(&members).filter(|_| single) {
                Some(choice) => Members::Single(choice),
                None => Members::Balanced(balance.balance_part(&members, &localities)),
            },
            turn,
        };
        let default = settings.needs_default().then(|| Subset {
            members: Members::Balanced(
                balance.balance_part(&of_default(settings, priorities), &localities),
            ),
            turn: before
                .and_then(|before| Some(before.default.as_ref()?.turn.clone()))
                .unwrap_or_default(),
        });
        Self {
            settings: settings.clone(),
            subsets: collected
                .members
                .into_iter()
                .zip(turn)
                .map(subset)
                .collect(),
            by_key: collected.by_key,
            default,
            resolved: ArcSwap::default(),
            dropped: collected.dropped,
        }
    }

    /// How many subsets there are.
    pub fn count(&self) -> usize {
        self.subsets.len()
    }

    /// How many subsets there are that `other` lacks.
    pub fn not_in(&self, other: Option<&Self>) -> usize {
        let known = |key: &SubsetKey| other.is_some_and(|other| other.by_key.contains_key(key));
        self.by_key.keys().filter(|key| !known(key)).count()
    }

    /// `None`: there is no endpoint. The other is for statistics.
    pub fn pick(
        &self,
        what: &SubsetPick<'_>,
        random: &mut fastrand::Rng,
    ) -> (Option<Choice>, SmallVec<[SubsetChoice; 1]>) {
        let mut counts = SmallVec::new();
        let variants = what
            .criteria
            .filter(|_| self.settings.metadata_fallback)
            .map_or(&[][..], |criteria| &criteria.variants);
        if variants.is_empty() {
            let picked = self.pick_by(what.criteria, what, &mut counts, random);
            return (picked, counts);
        }
        let mut tries = variants
            .iter()
            .map(|criteria| self.pick_by(Some(criteria), what, &mut counts, random));
        let picked = tries.find_map(|picked| picked);
        (picked, counts)
    }

    fn pick_by(
        &self,
        criteria: Option<&Arc<SubsetCriteria>>,
        what: &SubsetPick<'_>,
        counts: &mut SmallVec<[SubsetChoice; 1]>,
        random: &mut fastrand::Rng,
    ) -> Option<Choice> {
        let mut all = || what.all.pick(what.policy, what.turn, what.input, random);
        match criteria.map_or(SubsetResolution::Fallback, |criteria| {
            self.resolve(criteria)
        }) {
            SubsetResolution::Subset(at) => {
                counts.push(SubsetChoice::Selected);
                self.subsets.get(at)?.pick(what, random)
            }
            SubsetResolution::AnyEndpoint => all(),
            SubsetResolution::DefaultSubset => self.default.as_ref()?.pick(what, random),
            SubsetResolution::Nothing => None,
            SubsetResolution::Fallback => {
                let picked = match self.settings.fallback {
                    SubsetFallback::None => return None,
                    SubsetFallback::AnyEndpoint => all(),
                    SubsetFallback::DefaultSubset => {
                        let default = self.default.as_ref();
                        default.and_then(|default| default.pick(what, random))
                    }
                };
                if picked.is_some() {
                    counts.push(SubsetChoice::Fallback);
                    return picked;
                }
                if !self.settings.panic_mode_any {
                    return None;
                }
                let picked = what.all.pick(what.policy, what.turn, what.input, random)?;
                counts.push(SubsetChoice::FallbackPanic);
                Some(picked)
            }
        }
    }

    fn resolve(&self, criteria: &Arc<SubsetCriteria>) -> SubsetResolution {
        let resolved = self.resolved.load();
        let known = resolved
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, criteria));
        if let Some((_, resolution)) = known {
            return *resolution;
        }
        let resolution = self.find(criteria);
        if resolved.len() < MAX_RESOLVED {
            self.resolved.rcu(|before| {
                let mut next = before.to_vec();
                next.push((criteria.clone(), resolution));
                next
            });
        }
        resolution
    }

    fn find(&self, criteria: &SubsetCriteria) -> SubsetResolution {
        let mut pairs = criteria.pairs.clone();
        if self.settings.allow_redundant_keys {
            // The first of the selectors has the most keys.
            let mut selectors = self.settings.selectors.iter();
            let fitting = selectors.find_map(|selector| only(&pairs, &selector.keys));
            pairs = fitting.unwrap_or(pairs);
        }
        // Each turn has fewer keys.
        loop {
            let key: SubsetKey = pairs
                .iter()
                .map(|(key, value)| (key.clone(), value.value.clone()))
                .collect();
            if let Some(at) = self.by_key.get(&key) {
                return SubsetResolution::Subset(*at);
            }
            let has_keys = |selector: &&SubsetSelector| {
                selector.keys.iter().eq(pairs.iter().map(|(key, _)| key))
            };
            let selector = self.settings.selectors.iter().find(has_keys);
            match selector.and_then(|selector| selector.fallback.as_ref()) {
                None => return SubsetResolution::Fallback,
                Some(SelectorFallback::None) => return SubsetResolution::Nothing,
                Some(SelectorFallback::AnyEndpoint) => return SubsetResolution::AnyEndpoint,
                Some(SelectorFallback::DefaultSubset) => return SubsetResolution::DefaultSubset,
                Some(SelectorFallback::Keys(keys)) => match only(&pairs, keys) {
                    Some(fewer) if fewer.len() < pairs.len() => pairs = fewer,
                    _ => return SubsetResolution::Nothing,
                },
            }
        }
    }
}

impl Subset {
    fn pick(&self, what: &SubsetPick<'_>, random: &mut fastrand::Rng) -> Option<Choice> {
        match &self.members {
            Members::Balanced(balance) => balance.pick(what.policy, &self.turn, what.input, random),
            Members::Single(choice) => Some(choice.clone()),
        }
    }
}

/// The pairs of these keys; `None`: some are not there. Both are sorted.
fn only(pairs: &LbMetadata, keys: &[Box<str>]) -> Option<LbMetadata> {
    let pair = |key: &str| {
        let at = pairs.binary_search_by(|(known, _)| (**known).cmp(key));
        pairs.get(at.ok()?).cloned()
    };
    keys.iter().map(|key| pair(key)).collect()
}

#[cfg(test)]
mod tests;
