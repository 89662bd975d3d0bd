//! One resource and its states: requested, pending, active, absent.

use std::time::{Instant, SystemTime};

use bytes::Bytes;

use crate::xds::resource_type::Key;

/// An accepted version of a resource.
pub(super) struct AcceptedVersion {
    pub(super) version: String,
    pub(super) body: Bytes,
    pub(super) refs: Vec<Key>,
    pub(super) updated: SystemTime,
}

/// A version that waits for resources that it refers to.
pub(super) struct PendingVersion<T> {
    pub(super) held: AcceptedVersion,
    pub(super) value: T,
    pub(super) deadline: Instant,
}

/// A version that was refused.
pub(super) struct RejectedVersion {
    pub(super) version: String,
    pub(super) error: String,
    pub(super) at: SystemTime,
}

pub(super) struct Entry<T> {
    pub(super) active: Option<AcceptedVersion>,
    pub(super) pending: Option<PendingVersion<T>>,
    pub(super) rejected: Option<RejectedVersion>,
    /// Until then the server's answer that there is no such resource is cached.
    pub(super) absent_until: Option<Instant>,
    /// The server removed it while something in force refers to it; it is dropped then at the
    /// latest.
    pub(super) removed_until: Option<Instant>,
    /// Subscribed to for ever.
    pub(super) root: bool,
    /// When the data path last asked for it; subscribed to until evicted.
    pub(super) wanted: Option<Instant>,
    /// A request waits for an answer.
    pub(super) awaited: bool,
}

impl<T> Entry<T> {
    pub(super) fn new() -> Self {
        Entry {
            active: None,
            pending: None,
            rejected: None,
            absent_until: None,
            removed_until: None,
            root: false,
            wanted: None,
            awaited: false,
        }
    }

    /// The accepted version that was acknowledged to the server.
    pub(super) fn newest(&self) -> Option<&AcceptedVersion> {
        match &self.pending {
            Some(pending) => Some(&pending.held),
            None => self.active.as_ref(),
        }
    }

    /// Kept whether or not something refers to it.
    pub(super) fn is_pinned(&self) -> bool {
        self.root || self.wanted.is_some()
    }

    pub(super) fn is_warming(&self) -> bool {
        self.active.is_none() && self.pending.is_some()
    }

    pub(super) fn status(&self) -> ResourceStatus<'_> {
        let version =
            |held: &'_ AcceptedVersion| (held.version.clone(), held.body.clone(), held.updated);
        ResourceStatus {
            active: self.active.as_ref().map(version),
            warming: self.pending.as_ref().map(|pending| version(&pending.held)),
            rejected: self
                .rejected
                .as_ref()
                .map(|r| (r.version.as_str(), r.error.as_str(), r.at)),
            absent: self.absent_until.is_some(),
        }
    }
}

/// The status of a resource, for dumps. Versions with bytes and time of arrival.
pub struct ResourceStatus<'a> {
    pub active: Option<(String, Bytes, SystemTime)>,
    pub warming: Option<(String, Bytes, SystemTime)>,
    /// Version, reason and time of the last rejection.
    pub rejected: Option<(&'a str, &'a str, SystemTime)>,
    pub absent: bool,
}
