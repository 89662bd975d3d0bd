//! What an end of an edge counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xds_proto::anyam::inspect::v1::Edge as Reported;

use super::latency::{BUCKETS, Counts};
use crate::text::bounded;

const MAX_NAME: usize = 256;
const MAX_FLAGS: usize = 16;

/// What was counted, in one slot or over the window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) denied: u64,
    pub(super) opened: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) latency: Counts,
    pub(super) flags: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        for (mine, theirs) in [
            (&mut self.requests, other.requests),
            (&mut self.failures, other.failures),
            (&mut self.denied, other.denied),
            (&mut self.opened, other.opened),
            (&mut self.sent, other.sent),
            (&mut self.received, other.received),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in self.latency.iter_mut().zip(other.latency) {
            *mine = mine.saturating_add(theirs);
        }
        for (flag, count) in &other.flags {
            if self.flags.len() < MAX_FLAGS || self.flags.contains_key(flag) {
                let mine = self.flags.entry(flag.clone()).or_default();
                *mine = mine.saturating_add(*count);
            }
        }
    }

    pub(super) fn of(edge: &Reported) -> Tally {
        let mut latency = [0; BUCKETS];
        for (mine, theirs) in latency.iter_mut().zip(&edge.latency) {
            *mine = *theirs;
        }
        let flags = edge.response_flags.iter().take(MAX_FLAGS);
        Tally {
            requests: edge.requests,
            failures: edge.failures,
            denied: edge.denied,
            opened: edge.connections_opened,
            sent: edge.bytes_sent,
            received: edge.bytes_received,
            latency,
            flags: flags.map(|(flag, count)| (short(flag), *count)).collect(),
        }
    }
}

/// A reported name, bounded.
pub(super) fn short(text: &str) -> String {
    let mut text = bounded(text);
    if let Some((at, _)) = text.char_indices().nth(MAX_NAME) {
        text.truncate(at);
    }
    text
}
