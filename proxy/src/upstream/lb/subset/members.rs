//! Which endpoints each subset has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::only;
use crate::config::balancing::{SubsetSelector, SubsetSettings};
use crate::upstream::endpoint::{Endpoint, Priority};
use crate::upstream::lb::Choice;

/// Subsets of one selector that one endpoint is in, by lists in its metadata.
pub(super) const MAX_OF_ENDPOINT: usize = 256;
/// Keys, sorted, with their values.
pub(super) type SubsetKey = Box<[(Box<str>, Box<[u8]>)]>;

/// Subsets while they are collected.
#[derive(Default)]
pub(super) struct Collected {
    pub by_key: HashMap<SubsetKey, usize>,
    /// Each one's endpoints by priority.
    pub members: Vec<(Vec<Priority>, bool)>,
    pub dropped: usize,
}

impl Collected {
    /// `most`: how many subsets there may be.
    pub fn new(settings: &SubsetSettings, priorities: &[Priority], most: usize) -> Self {
        let mut collected = Self::default();
        for (at, priority) in priorities.iter().enumerate() {
            for endpoint in &priority.endpoints {
                for selector in &settings.selectors {
                    for key in keys(endpoint, selector, settings.list_as_any) {
                        collected.add(key, selector, endpoint, at, priorities.len(), most);
                    }
                }
            }
        }
        collected
    }

    fn add(
        &mut self,
        key: SubsetKey,
        selector: &SubsetSelector,
        endpoint: &Arc<Endpoint>,
        priority: usize,
        priorities: usize,
        most: usize,
    ) {
        let next = self.members.len();
        let at = match self.by_key.entry(key) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if next >= most => {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            Entry::Vacant(new) => {
                let empty = vec![Priority::default(); priorities];
                self.members.push((empty, selector.single_host));
                *new.insert(next)
            }
        };
        let members = self.members.get_mut(at);
        let of = members.and_then(|(members, _)| members.get_mut(priority));
        if let Some(of) = of {
            // Several elements of a list may be the same.
            if !of
                .endpoints
                .last()
                .is_some_and(|last| Arc::ptr_eq(last, endpoint))
            {
                of.endpoints.push(endpoint.clone());
            }
        }
    }
}

/// The subsets of a selector that an endpoint is in.
fn keys(endpoint: &Endpoint, selector: &SubsetSelector, list_as_any: bool) -> Vec<SubsetKey> {
    let metadata = endpoint.lb_metadata.as_ref();
    let Some(pairs) = metadata.and_then(|metadata| only(metadata, &selector.keys)) else {
        return Vec::new();
    };
    type Pairs = Vec<(Box<str>, Box<[u8]>)>;
    let mut made: Vec<Pairs> = vec![Pairs::new()];
    for (key, value) in pairs {
        let values = match &value.elements {
            Some(elements) if list_as_any => &**elements,
            _ => std::slice::from_ref(&value.value),
        };
        let more = made.iter().flat_map(|begun| {
            values.iter().map(|value| {
                let mut longer = begun.clone();
                longer.push((key.clone(), value.clone()));
                longer
            })
        });
        made = more.take(MAX_OF_ENDPOINT).collect();
    }
    made.into_iter().map(Into::into).collect()
}

/// The first endpoint.
pub(super) fn single_host(members: &[Priority]) -> Option<Choice> {
    let mut all = (0u32..).zip(members);
    all.find_map(|(priority, members)| {
        Some(Choice {
            endpoint: members.endpoints.first()?.clone(),
            priority,
            panic: false,
            zone: None,
        })
    })
}

pub(super) fn of_default(settings: &SubsetSettings, priorities: &[Priority]) -> Vec<Priority> {
    let has = |endpoint: &Endpoint| {
        settings.default_subset.iter().all(|(key, wanted)| {
            let metadata = endpoint.lb_metadata.as_ref();
            let pair = metadata.and_then(|all| all.iter().find(|(known, _)| known == key));
            pair.is_some_and(|(_, value)| value.matches(wanted, settings.list_as_any))
        })
    };
    let of = |priority: &Priority| Priority {
        endpoints: priority
            .endpoints
            .iter()
            .filter(|e| has(e))
            .cloned()
            .collect(),
    };
    priorities.iter().map(of).collect()
}
