//! Objects whose status could not be written, and when they are tried again, with time passed in.
//! The log says it once for each kind: a right that is missing is missing for all objects of a kind.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use crate::kubernetes::call::FailureLog;
use crate::model::{Kind, ObjectId};

/// Back-off after a failure: first and longest pause.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// See the module.
pub struct FailedStatuses {
    objects: BTreeSet<ObjectId>,
    again: Option<Instant>,
    pause: Duration,
    /// Of the kinds of `objects`.
    logs: HashMap<Kind, FailureLog>,
}

impl FailedStatuses {
    pub fn new() -> Self {
        FailedStatuses {
            objects: BTreeSet::new(),
            again: None,
            pause: PAUSE,
            logs: HashMap::new(),
        }
    }

    /// `error`: one text for all objects that fail for the same reason.
    pub fn failed(&mut self, id: ObjectId, error: &impl fmt::Display, now: Instant) {
        let log = self.logs.entry(id.kind);
        let log = log.or_insert_with(|| FailureLog::new("writing the status of objects"));
        log.failed(&format_args!("{}: {error}", id.kind.name()));
        if self.again.is_none() {
            self.again = Some(now + self.pause);
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
        self.objects.insert(id);
    }

    /// The status of an object is as it should be.
    pub fn succeeded(&mut self, id: &ObjectId) {
        let had_failed = self.objects.remove(id);
        if had_failed
            && !self.objects.iter().any(|it| it.kind == id.kind)
            && let Some(mut log) = self.logs.remove(&id.kind)
        {
            log.succeeded();
        }
        if self.objects.is_empty() {
            self.pause = PAUSE;
        }
    }

    /// When all of them are to be tried again; `None`: nothing has failed since they were.
    pub fn again(&self) -> Option<Instant> {
        self.again
    }

    /// They are tried again; those that do not exist any more are forgotten.
    pub fn retry(&mut self, exists: impl Fn(&ObjectId) -> bool) -> &BTreeSet<ObjectId> {
        self.again = None;
        self.objects.retain(exists);
        let kinds: BTreeSet<Kind> = self.objects.iter().map(|id| id.kind).collect();
        self.logs.retain(|kind, _| kinds.contains(kind));
        &self.objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Key;
    use crate::tests::log::logged;

    fn id(kind: Kind, name: &str) -> ObjectId {
        ObjectId {
            kind,
            key: Key::new("n", name),
        }
    }

    #[test]
    fn what_many_objects_fail_for_is_logged_once_until_all_succeed() {
        let now = Instant::now();
        let routes: Vec<_> = ["a", "b", "c"].map(|name| id(Kind::HttpRoute, name)).into();
        let policy = id(Kind::MeshPolicy, "p");
        let mut failed = FailedStatuses::new();
        let lines = logged(|| {
            for _ in 0..3 {
                for id in routes.iter().chain([&policy]) {
                    failed.failed(id.clone(), &"may not", now);
                }
                assert_eq!(failed.retry(|_| true).len(), 4);
            }
            // Another namespace may grant the right.
            failed.succeeded(&id(Kind::HttpRoute, "other"));
            failed.succeeded(&routes[0]);
            failed.failed(routes[1].clone(), &"may not", now);
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("HTTPRoute: may not"), "{lines:?}");
        assert!(lines[1].contains("MeshPolicy: may not"), "{lines:?}");
        let lines = logged(|| {
            failed.succeeded(&routes[1]);
            failed.succeeded(&routes[2]);
            failed.failed(routes[0].clone(), &"may not", now);
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("succeeds again"), "{lines:?}");
    }

    #[test]
    fn the_pause_doubles_until_nothing_fails_and_what_is_gone_is_forgotten() {
        let now = Instant::now();
        let [a, b] = ["a", "b"].map(|name| id(Kind::HttpRoute, name));
        let mut failed = FailedStatuses::new();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            failed.failed(a.clone(), &"no", now);
            failed.failed(b.clone(), &"no", now);
            pauses.push((failed.again().unwrap() - now).as_secs());
            failed.retry(|_| true);
            assert_eq!(failed.again(), None);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(failed.retry(|id| *id == b).len(), 1);
        failed.succeeded(&b);
        assert!(failed.objects.is_empty() && failed.logs.is_empty());
        failed.failed(b, &"no", now);
        assert_eq!(failed.again(), Some(now + PAUSE));
    }
}
