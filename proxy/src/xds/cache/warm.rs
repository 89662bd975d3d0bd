//! References between resources: warming before use, and keeping until after.

use std::collections::HashSet;
use std::collections::hash_map;

use super::demand::DemandResult;
use super::entry::{AcceptedVersion, Entry, PendingVersion};
use super::{Cache, Change, Mode, Now};
use crate::xds::resource_type::{Key, ResourceType};
use std::time::{Duration, Instant};

impl<T> Cache<T> {
    /// A version of `key` was accepted: it is pending until what it refers to is there.
    pub(super) fn accept(
        &mut self,
        key: &Key,
        held: AcceptedVersion,
        value: T,
        initial_fetch_timeout: Duration,
        now: Now,
    ) {
        let deadline = now.after(initial_fetch_timeout);
        for reference in held.refs.clone() {
            self.refer(key, &reference);
        }
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
        if entry.newest().is_none() {
            let count = self.held.entry(key.kind).or_default();
            *count = count.saturating_add(1);
        }
        entry.absent_until = None;
        entry.removed_until = None;
        entry.rejected = None;
        let pending = PendingVersion {
            held,
            value,
            deadline,
        };
        if let Some(superseded) = entry.pending.replace(pending) {
            self.unrefer(key, superseded.held.refs, now);
        }
        self.look_again_at(deadline, key.clone());
        self.dirty.push_back(key.clone());
    }

    /// Activates resources whose dependencies have arrived.
    pub(super) fn settle(&mut self, now: Now) {
        while let Some(key) = self.dirty.pop_front() {
            let Some(pending) = self.entries.get(&key).and_then(|e| e.pending.as_ref()) else {
                continue;
            };
            let due = now.instant >= pending.deadline;
            if due || pending.held.refs.iter().all(|key| self.is_met(key)) {
                self.activate(&key, now);
            }
        }
    }

    fn activate(&mut self, key: &Key, now: Now) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(pending) = entry.pending.take() else {
            return;
        };
        let replaced = entry.active.replace(pending.held);
        self.changes
            .push(Change::Upsert(key.clone(), pending.value));
        if let Some(replaced) = replaced {
            self.replace(key, replaced, now);
        }
        self.answer(key, DemandResult::Found);
        self.wake_dependants(key);
    }

    /// Whether no resource has to wait for `key` (any more).
    pub(super) fn is_met(&self, key: &Key) -> bool {
        match self.entries.get(key) {
            Some(entry) if entry.active.is_some() => true,
            Some(entry) if entry.pending.is_some() => false,
            Some(entry) if entry.absent_until.is_some() || entry.rejected.is_some() => true,
            _ => match self.mode(key.kind) {
                Mode::Off => true,
                Mode::Wildcard => self.streams.is_listed(key.kind),
                Mode::Named => false,
            },
        }
    }

    pub(super) fn wake_dependants(&mut self, key: &Key) {
        if let Some(dependants) = self.dependants.get(key) {
            self.dirty.extend(dependants.iter().cloned());
        }
    }

    /// After the first complete list of a type: wakes resources that wait for one that was not in
    /// it.
    pub(super) fn wake_all(&mut self) {
        let warming = self.entries.iter().filter(|(_, e)| e.pending.is_some());
        self.dirty.extend(warming.map(|(key, _)| key.clone()));
    }

    /// The server has no such resource (any more).
    pub(super) fn remove(&mut self, key: &Key, now: Now) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if entry.newest().is_some() && !key.kind.is_removable() {
            return;
        }
        if self.is_used(key) && entry.active.is_some() {
            let until = now.after(self.config.init_timeout);
            if let Some(entry) = self.entries.get_mut(key) {
                entry.removed_until.get_or_insert(until);
            }
            self.look_again_at(until, key.clone());
            return;
        }
        self.forget(key, now);
    }

    /// Drops what is held of `key`, and caches for a while that it does not exist.
    fn forget(&mut self, key: &Key, now: Now) {
        self.drop_versions(key, now);
        let until = now.after(self.config.miss_ttl);
        let named = self.mode(key.kind) == Mode::Named;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.removed_until = None;
            entry.rejected = None;
            entry.absent_until = Some(until);
        }
        self.answer(key, DemandResult::Absent);
        self.wake_dependants(key);
        if named {
            self.look_again_at(until, key.clone());
        }
        self.release_if_unneeded(key, now);
    }

    fn drop_versions(&mut self, key: &Key, now: Now) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let pending = entry.pending.take();
        let active = entry.active.take();
        let replaced = self.replaced.remove(key);
        if pending.is_some() || active.is_some() {
            let held = self.held.entry(key.kind).or_default();
            *held = held.saturating_sub(1);
        }
        if active.is_some() {
            self.changes.push(Change::Remove(key.clone()));
        }
        let refs = pending
            .into_iter()
            .map(|pending| pending.held)
            .chain(active)
            .chain(replaced);
        for held in refs {
            self.unrefer(key, held.refs, now);
        }
    }

    /// Whether something in force refers to `key`.
    fn is_used(&self, key: &Key) -> bool {
        let Some(dependants) = self.dependants.get(key) else {
            return false;
        };
        dependants.iter().any(|dependant| {
            let active = self.entries.get(dependant).and_then(|e| e.active.as_ref());
            let replaced = self.replaced.get(dependant);
            let mut versions = active.into_iter().chain(replaced);
            versions.any(|held| held.refs.contains(key))
        })
    }

    fn refer(&mut self, from: &Key, to: &Key) {
        self.dependants
            .entry(to.clone())
            .or_default()
            .insert(from.clone());
        if self.mode(to.kind) == Mode::Named {
            self.entries.entry(to.clone()).or_insert_with(Entry::new);
            self.streams.subscribe(to.kind, &to.name);
        }
    }

    /// A version of `from` is gone: removes what only that version referred to.
    pub(super) fn unrefer(&mut self, from: &Key, refs: Vec<Key>, now: Now) {
        let kept: HashSet<Key> = match self.entries.get(from) {
            Some(entry) => {
                let active = entry.active.iter();
                let pending = entry.pending.iter().map(|pending| &pending.held);
                active
                    .chain(pending)
                    .chain(self.replaced.get(from))
                    .flat_map(|held| held.refs.iter().cloned())
                    .collect()
            }
            None => HashSet::new(),
        };
        for to in refs.into_iter().filter(|key| !kept.contains(key)) {
            if let hash_map::Entry::Occupied(mut slot) = self.dependants.entry(to.clone()) {
                slot.get_mut().remove(from);
                if slot.get().is_empty() {
                    slot.remove();
                }
            }
            self.release_if_unneeded(&to, now);
        }
    }

    /// Unsubscribes from `key` and drops it, if nothing refers to it and the data path does not
    /// need it.
    pub(super) fn release_if_unneeded(&mut self, key: &Key, now: Now) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if entry.removed_until.is_some() && !self.is_used(key) {
            return self.forget(key, now);
        }
        let listed = self.mode(key.kind) == Mode::Wildcard && entry.newest().is_some();
        if listed || entry.is_pinned() || self.dependants.contains_key(key) {
            return;
        }
        self.drop_versions(key, now);
        self.entries.remove(key);
        self.streams.unsubscribe(key.kind, &key.name);
    }

    /// A timer of `key` fired: does what is due.
    pub(super) fn look_at(&mut self, key: &Key, now: Now) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        let due = |at: Option<Instant>| at.is_some_and(|at| now.instant >= at);
        if due(entry.removed_until) {
            return self.forget(key, now);
        }
        if entry.pending.is_some() {
            self.dirty.push_back(key.clone());
            return;
        }
        if entry.awaited && self.is_overdue(now) {
            return self.answer(key, DemandResult::Unavailable);
        }
        // Other absent ones stay subscribed to: something refers to them, and waits no longer.
        if due(entry.absent_until) && entry.wanted.is_some() {
            self.unpin(key, now);
        }
    }

    /// Whether another resource of this type may be held.
    pub(super) fn has_room_for(&self, key: &Key) -> bool {
        let known = self.entries.get(key).is_some_and(|e| e.newest().is_some());
        known || self.held.get(&key.kind).copied().unwrap_or(0) < self.config.max_resources
    }

    /// Whether a resource that came was asked for.
    pub(super) fn is_wanted(&self, kind: ResourceType, name: &str) -> bool {
        self.streams.is_subscribed(kind, name)
    }
}
