//! Changes that were published, and changes that could not be.
//!
//! A new version replaces one in force. What the replaced version refers to is kept until the
//! change is published, so that the version can stay in force if publishing fails.

use std::collections::btree_map;

use super::demand::DemandResult;
use super::entry::{AcceptedVersion, RejectedVersion};
use super::receive::detail;
use super::{Cache, Change, Now};
use crate::xds::resource_type::Key;

/// Whether a version of a key is in force, before a change that was taken and after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenChange {
    before: bool,
    after: bool,
}

impl<T> Cache<T> {
    /// Steps towards the next snapshot; publish them together, then call [`Cache::published`]. Only
    /// what is in force is removed: what was refused never was.
    pub fn take_changes(&mut self) -> Vec<Change<T>> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.retain(|change| {
            let (key, after) = match change {
                Change::Upsert(key, _) => (key, true),
                Change::Remove(key) => (key, false),
            };
            let taken = self.taken.get(key).map(|taken| taken.after);
            let before = taken.unwrap_or_else(|| self.in_force.contains(key));
            if before || after {
                self.taken
                    .insert(key.clone(), TakenChange { before, after });
            }
            before || after
        });
        changes
    }

    /// Records that a version in force was replaced, by a change that is not published yet.
    pub(super) fn replace(&mut self, key: &Key, replaced: AcceptedVersion, now: Now) {
        match self.replaced.entry(key.clone()) {
            btree_map::Entry::Vacant(slot) => drop(slot.insert(replaced)),
            // This version was never in force: an older one is, until the changes are published.
            btree_map::Entry::Occupied(_) => self.unrefer(key, replaced.refs, now),
        }
    }

    /// To be called when all changes that were taken are published or [`Cache::refuse`]d: removes
    /// what only replaced versions referred to. That makes further changes, which must be published
    /// too.
    pub fn published(&mut self, now: Now) {
        for (key, taken) in self.taken.drain() {
            match taken.after {
                true => drop(self.in_force.insert(key)),
                false => drop(self.in_force.remove(&key)),
            }
        }
        for (key, held) in std::mem::take(&mut self.replaced) {
            self.unrefer(&key, held.refs, now);
        }
        self.settle(now);
        self.flush();
    }

    /// The change of `key` could not be published: the version before it stays in force, if there
    /// is one, and the server receives a NACK. [`Cache::published`] must still be called.
    pub fn refuse(&mut self, key: &Key, error: &str, now: Now) {
        let text = detail(&[format!("{key}: {error}")]);
        self.streams.refuse(key.kind, text, &mut self.outbox);
        if let Some(taken) = self.taken.get_mut(key) {
            taken.after = taken.before;
        }
        let previous = self.replaced.remove(key);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(refused) = entry.active.take() else {
            return;
        };
        entry.active = previous;
        entry.rejected = Some(RejectedVersion {
            version: refused.version,
            error: error.to_owned(),
            at: now.time,
        });
        let nothing = entry.active.is_none();
        if entry.newest().is_none() {
            let held = self.held.entry(key.kind).or_default();
            *held = held.saturating_sub(1);
        }
        if nothing {
            for (_, outcome) in self.answers.iter_mut().filter(|(other, _)| other == key) {
                *outcome = DemandResult::Absent;
            }
        }
        self.unrefer(key, refused.refs, now);
        self.wake_dependants(key);
    }
}
