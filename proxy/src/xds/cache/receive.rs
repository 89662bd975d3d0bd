//! Processes a response: validates each resource on its own, keeps the accepted, reports the
//! rejected.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use super::entry::{AcceptedVersion, Entry, RejectedVersion};
use super::{Cache, Now, Validate, Validated};
use crate::xds::cache::DemandResult;
use crate::xds::message::{DeltaResponse, Resource, SotwResponse};
use crate::xds::resource_type::{Key, ResourceType};

/// Longest error detail sent back, bytes.
const MAX_DETAIL: usize = 4096;

impl<T> Cache<T> {
    pub(super) fn receive_delta<J: Validate<Value = T>>(
        &mut self,
        response: DeltaResponse,
        validator: &mut J,
        now: Now,
    ) {
        let Some(kind) = self.kind_of(&response.type_url) else {
            return;
        };
        let listed = self.streams.is_listed(kind);
        let mut errors = Vec::new();
        self.take_in(kind, response.resources, None, validator, &mut errors, now);
        for name in response.removed {
            self.remove(&Key::new(kind, name), now);
        }
        self.acknowledge(kind, response.nonce, String::new(), errors);
        if !listed {
            self.wake_all();
        }
    }

    pub(super) fn receive_sotw<J: Validate<Value = T>>(
        &mut self,
        response: SotwResponse,
        validator: &mut J,
        now: Now,
    ) {
        let Some(kind) = self.kind_of(&response.type_url) else {
            return;
        };
        let listed = self.streams.is_listed(kind);
        let mut errors = Vec::new();
        let version = Some(response.version.as_str());
        let seen = self.take_in(
            kind,
            response.resources,
            version,
            validator,
            &mut errors,
            now,
        );
        // A resource that could not be decoded has no name, so it is unknown which resources are
        // missing.
        // missing.
        if kind.is_complete_in_sotw() && errors.is_empty() {
            let gone = self.entries.iter().filter(|(key, _)| key.kind == kind);
            let gone: Vec<Key> = gone
                // One that never came may not have been asked for yet when this was sent.
                .filter(|(_, entry)| entry.newest().is_some())
                .map(|(key, _)| key)
                .filter(|key| !seen.contains(&key.name))
                .cloned()
                .collect();
            for key in gone {
                self.remove(&key, now);
            }
        }
        self.acknowledge(kind, response.nonce, response.version, errors);
        if !listed {
            self.wake_all();
        }
    }

    /// The type of a response, if it was asked for.
    fn kind_of(&mut self, type_url: &str) -> Option<ResourceType> {
        let kind =
            ResourceType::from_type_url(type_url).filter(|kind| self.streams.has_begun(*kind));
        if kind.is_none() {
            // An ACK, or even a NACK, would subscribe to everything of that type.
            self.unknown_types = self.unknown_types.saturating_add(1);
        }
        kind
    }

    /// Validates and keeps resources; returns the names of all of them.
    fn take_in<J: Validate<Value = T>>(
        &mut self,
        kind: ResourceType,
        resources: Vec<Resource>,
        version: Option<&str>,
        validator: &mut J,
        errors: &mut Vec<String>,
        now: Now,
    ) -> HashSet<String> {
        let mut validated = Vec::with_capacity(resources.len());
        let mut times: HashMap<String, u32> = HashMap::new();
        for resource in resources {
            let version = version.unwrap_or(&resource.version).to_owned();
            if self.is_unchanged(kind, &resource, &version) {
                count(&mut times, resource.name);
                continue;
            }
            match self.validate_one(kind, &resource, validator) {
                Ok(good) => {
                    count(&mut times, good.name.clone());
                    validated.push((version, resource.body, good));
                }
                Err(error) => {
                    let name = printable(&resource.name);
                    errors.push(format!("{kind} \"{name}\": {error}"));
                    count(&mut times, resource.name.clone());
                    self.reject(&Key::new(kind, resource.name), version, error, now);
                }
            }
        }
        for (version, body, good) in validated {
            let Validated {
                name,
                value,
                refs,
                initial_fetch_timeout,
            } = good;
            if times.get(&name).is_some_and(|times| *times > 1) {
                let error = "the name occurs more than once in one response".to_owned();
                errors.push(format!("{kind} \"{}\": {error}", printable(&name)));
                self.reject(&Key::new(kind, name), version, error, now);
                continue;
            }
            let key = Key::new(kind, name);
            if !self.is_wanted(kind, &key.name) {
                continue;
            }
            if !self.has_room_for(&key) {
                let error = format!("more than {} of this type", self.config.max_resources);
                errors.push(format!("{key}: {error}"));
                self.reject(&key, version, error, now);
                continue;
            }
            let held = AcceptedVersion {
                version,
                body,
                refs,
                updated: now.time,
            };
            let initial_fetch_timeout = initial_fetch_timeout.unwrap_or(self.config.init_timeout);
            self.keep(&key, held, value, initial_fetch_timeout, now);
        }
        times.into_keys().collect()
    }

    fn validate_one<J: Validate<Value = T>>(
        &self,
        kind: ResourceType,
        resource: &Resource,
        validator: &mut J,
    ) -> Result<Validated<T>, String> {
        if let Some(field) = resource.unsupported {
            return Err(format!("{field}: not supported"));
        }
        if resource.type_url != kind.type_url() {
            let got = printable(&resource.type_url);
            return Err(format!("is a \"{got}\", not a {}", kind.type_url()));
        }
        if resource.body.len() > self.config.max_resource_bytes {
            return Err(format!(
                "{} bytes; the limit is {}",
                resource.body.len(),
                self.config.max_resource_bytes
            ));
        }
        // A resource at which the compiler panics is rejected like any other invalid one.
        let validating = || validator.validate(kind, &resource.name, &resource.body);
        let validated = std::panic::catch_unwind(AssertUnwindSafe(validating));
        let mut validated =
            validated.map_err(|_| "the proxy panicked at it; its log has the place")??;
        if validated.name.is_empty() {
            return Err("name: required".into());
        }
        if !resource.name.is_empty() && resource.name != validated.name {
            let inner = printable(&validated.name);
            return Err(format!("name: is \"{inner}\" inside the resource"));
        }
        validated.refs.sort();
        validated.refs.dedup();
        Ok(validated)
    }

    /// Keeps a valid version, unless it is the one that is held.
    fn keep(
        &mut self,
        key: &Key,
        held: AcceptedVersion,
        value: T,
        initial_fetch_timeout: Duration,
        now: Now,
    ) {
        if let Some(entry) = self.entries.get_mut(key) {
            let newest = match &mut entry.pending {
                Some(pending) => Some(&mut pending.held),
                None => entry.active.as_mut(),
            };
            if let Some(newest) = newest.filter(|newest| newest.body == held.body) {
                newest.version = held.version;
                entry.rejected = None;
                entry.removed_until = None;
                return;
            }
        }
        self.accept(key, held, value, initial_fetch_timeout, now);
    }

    /// The same version with the same bytes again, as after a reconnect: nothing to do.
    fn is_unchanged(&mut self, kind: ResourceType, resource: &Resource, version: &str) -> bool {
        if resource.unsupported.is_some()
            || resource.name.is_empty()
            || resource.type_url != kind.type_url()
        {
            return false;
        }
        let key = Key::new(kind, resource.name.as_str());
        let Some(entry) = self.entries.get_mut(&key) else {
            return false;
        };
        let same = entry
            .newest()
            .is_some_and(|held| held.version == version && held.body == resource.body);
        if same {
            entry.removed_until = None;
            entry.rejected = None;
        }
        same
    }

    /// Remembers why; what is in force stays.
    fn reject(&mut self, key: &Key, version: String, error: String, now: Now) {
        if key.name.is_empty() || !self.is_wanted(key.kind, &key.name) || !self.has_room_for(key) {
            return;
        }
        if !self.entries.contains_key(key) && self.entries.len() / 2 >= self.config.max_resources {
            return;
        }
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
        entry.rejected = Some(RejectedVersion {
            version,
            error,
            at: now.time,
        });
        if entry.newest().is_none() {
            self.answer(key, DemandResult::Absent);
            self.wake_dependants(key);
        }
    }

    fn acknowledge(
        &mut self,
        kind: ResourceType,
        nonce: String,
        version: String,
        errors: Vec<String>,
    ) {
        let error = (!errors.is_empty()).then(|| detail(&errors));
        self.streams
            .acknowledge(kind, nonce, version, error, &mut self.outbox);
    }
}

fn count(times: &mut HashMap<String, u32>, name: String) {
    let count = times.entry(name).or_default();
    *count = count.saturating_add(1);
}

/// All errors in one text of limited length.
pub(super) fn detail(errors: &[String]) -> String {
    let mut text = String::new();
    for (index, error) in errors.iter().enumerate() {
        let mut error = error.as_str();
        let room = MAX_DETAIL.saturating_sub(text.len());
        if error.len().saturating_add(32) > room {
            if index == 0 {
                let cut = (0..=room.min(error.len()).saturating_sub(32))
                    .rev()
                    .find(|at| error.is_char_boundary(*at));
                error = error.get(..cut.unwrap_or(0)).unwrap_or_default();
                text.push_str(error);
            }
            let more = errors.len().saturating_sub(index);
            text.push_str(&format!(" … and {more} more"));
            break;
        }
        if index > 0 {
            text.push_str("; ");
        }
        text.push_str(error);
    }
    text
}

/// A name as it may stand in a log line.
fn printable(name: &str) -> String {
    name.chars()
        .take(256)
        .flat_map(char::escape_default)
        .collect()
}
