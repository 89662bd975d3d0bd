//! Names asked for by the data path: answered from what is held, else subscribed to, within
//! bounds.

use std::time::Instant;

use super::entry::Entry;
use super::{Cache, Now, after};
use crate::xds::resource_type::{Key, ResourceType};

/// The outcome of an on-demand request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemandResult {
    /// In force.
    Found,
    /// The server has none, or what it sent was rejected.
    Absent,
    /// There is no stream to a server.
    Unavailable,
}

impl<T> Cache<T> {
    /// The data path needs a resource. `None`: the outcome comes through [`Cache::take_answers`].
    pub fn want(&mut self, key: &Key, now: Now) -> Option<DemandResult> {
        self.look_at(key, now);
        if let Some(outcome) = self.known(key, now) {
            return Some(outcome);
        }
        self.make_room(key.kind, now);
        self.pin(key, Some(now.instant));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.awaited = true;
        }
        if let Some(since) = self.disconnected {
            self.look_again_at(after(since, self.config.disconnect_timeout), key.clone());
        }
        self.flush();
        None
    }

    fn known(&mut self, key: &Key, now: Now) -> Option<DemandResult> {
        if let Some(entry) = self.entries.get_mut(key) {
            if entry.wanted.is_some() {
                entry.wanted = Some(now.instant);
            }
            if entry.active.is_some() {
                return Some(DemandResult::Found);
            }
            if entry.absent_until.is_some() || entry.rejected.is_some() && entry.pending.is_none() {
                return Some(DemandResult::Absent);
            }
        }
        self.is_overdue(now).then_some(DemandResult::Unavailable)
    }

    pub(super) fn is_overdue(&self, now: Now) -> bool {
        self.disconnected
            .is_some_and(|since| now.instant >= after(since, self.config.disconnect_timeout))
    }

    /// The data path has not used an on-demand resource for long: it is evicted.
    pub fn evict(&mut self, key: &Key, now: Now) {
        let evictable = |entry: &Entry<T>| entry.wanted.is_some() && !entry.awaited;
        if self.entries.get(key).is_some_and(evictable) {
            self.unpin(key, now);
            self.settle(now);
            self.flush();
        }
    }

    /// On-demand resources of a type that are in force and were not asked for since `before`.
    pub fn idle_on_demand(&self, kind: ResourceType, before: Instant) -> Vec<Key> {
        self.entries
            .iter()
            .filter(|(key, entry)| key.kind == kind && entry.active.is_some())
            .filter(|(_, entry)| entry.wanted.is_some_and(|wanted| wanted < before))
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Key> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.awaited)
            .map(|(key, _)| key)
    }

    /// Answers the requests that wait for `key`.
    pub(super) fn answer(&mut self, key: &Key, outcome: DemandResult) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.awaited
        {
            entry.awaited = false;
            self.answers.push((key.clone(), outcome));
        }
    }

    /// Keeps an entry and its subscription whether or not something refers to it: for ever, or
    /// since it was wanted at an instant until it is evicted.
    pub(super) fn pin(&mut self, key: &Key, wanted: Option<Instant>) {
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
        if wanted.is_none() {
            entry.root = true;
        } else if !entry.root {
            if entry.wanted.is_none() {
                let count = self.on_demand.entry(key.kind).or_default();
                *count = count.saturating_add(1);
            }
            entry.wanted = wanted;
        }
        self.streams.subscribe(key.kind, &key.name);
    }

    pub(super) fn unpin(&mut self, key: &Key, now: Now) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.wanted.take().is_some() {
            let count = self.on_demand.entry(key.kind).or_default();
            *count = count.saturating_sub(1);
        }
        self.release_if_unneeded(key, now);
    }

    /// At the bound of a type evicts the sixteenth that has been unused longest, absent resources before
    /// others: a listener in use is asked for once only, and its connections would end with it.
    fn make_room(&mut self, kind: ResourceType, now: Now) {
        let count = self.on_demand.get(&kind).copied().unwrap_or(0);
        if count < self.config.max_on_demand {
            return;
        }
        let entries = self.entries.iter().filter(|(key, _)| key.kind == kind);
        let mut wanted: Vec<(bool, Instant, Key)> = entries
            .filter_map(|(key, entry)| Some((entry.active.is_some(), entry.wanted?, key.clone())))
            .collect();
        wanted.sort();
        let surplus = count
            .saturating_add(1)
            .saturating_sub(self.config.max_on_demand);
        let leaving = surplus.max(self.config.max_on_demand / 16);
        for (_, _, key) in wanted.into_iter().take(leaving) {
            self.answer(&key, DemandResult::Unavailable);
            self.unpin(&key, now);
        }
    }
}
