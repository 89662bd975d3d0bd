//! The objects whose status is compared next, with time passed in. They take turns, so that one
//! that changes all the time delays no other. One that is written again and again, as when another
//! controller removes what is written, waits longer each time.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::{Duration, Instant};

use crate::model::ObjectId;

/// After a write of an object's status: first and longest pause before that object is taken again.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A write this soon after the last pause doubles the pause; after a longer one, a write within as
/// long as that pause.
const SOON: Duration = Duration::from_secs(10);

/// See the module. An object is in it at most once.
#[derive(Debug, Default)]
pub struct StatusQueue {
    waiting: BTreeSet<ObjectId>,
    /// What was taken last.
    last: Option<ObjectId>,
    /// Writes that are not forgotten yet, the last of each object: no more than the rate of writes
    /// allows in two minutes.
    writes: HashMap<ObjectId, RecentWrite>,
}

#[derive(Debug)]
struct RecentWrite {
    pause: Duration,
    /// When the pause ends.
    until: Instant,
    forgotten: Instant,
}

/// What [`StatusQueue::pop`] finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped {
    Object(ObjectId),
    /// All that wait have been written a short while ago; the first pause ends then.
    Later(Instant),
    Nothing,
}

impl StatusQueue {
    pub fn insert(&mut self, id: ObjectId) {
        self.waiting.insert(id);
    }

    pub fn remove(&mut self, id: &ObjectId) {
        self.waiting.remove(id);
    }

    /// Takes the next object in the order of ids, from the one that was taken last on and round.
    pub fn pop(&mut self, now: Instant) -> Popped {
        let last = self.last.as_ref();
        let after = (last.map_or(Unbounded, Excluded), Unbounded);
        let before = (Unbounded, last.map_or(Unbounded, Included));
        let after = self.waiting.range::<ObjectId, _>(after);
        let mut round = after.chain(self.waiting.range::<ObjectId, _>(before));
        let writes = &self.writes;
        let next = round.find(|id| writes.get(*id).is_none_or(|it| it.until <= now));
        if let Some(id) = next.cloned() {
            self.waiting.remove(&id);
            self.last = Some(id.clone());
            return Popped::Object(id);
        }
        let paused = self.waiting.iter().filter_map(|id| writes.get(id));
        let first = paused.map(|it| it.until).min();
        first.map_or(Popped::Nothing, Popped::Later)
    }

    /// The status of an object has been written.
    pub fn written(&mut self, id: &ObjectId, now: Instant) {
        self.writes.retain(|_, it| now < it.forgotten);
        let before = self.writes.get(id).map(|it| it.pause);
        let pause = before.map_or(PAUSE, |pause| (pause * 2).min(MAX_PAUSE));
        let until = now + pause;
        let write = RecentWrite {
            pause,
            until,
            forgotten: until + pause.max(SOON),
        };
        self.writes.insert(id.clone(), write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Kind};

    fn id(name: &str) -> ObjectId {
        ObjectId {
            kind: Kind::HttpRoute,
            key: Key::new("n", name),
        }
    }

    fn take(queue: &mut StatusQueue, now: Instant) -> Option<String> {
        match queue.pop(now) {
            Popped::Object(id) => Some(id.key.name),
            Popped::Later(_) | Popped::Nothing => None,
        }
    }

    #[test]
    fn objects_take_turns_whatever_is_added_again() {
        let now = Instant::now();
        let mut queue = StatusQueue::default();
        for name in ["a", "b", "c", "d"] {
            queue.insert(id(name));
        }
        let mut taken = Vec::new();
        for _ in 0..6 {
            taken.extend(take(&mut queue, now));
            // These change all the time, and sort first.
            queue.insert(id("a"));
            queue.insert(id("b"));
        }
        assert_eq!(taken, ["a", "b", "c", "d", "a", "b"]);
        queue.remove(&id("a"));
        queue.remove(&id("b"));
        assert_eq!(queue.pop(now), Popped::Nothing);
    }

    #[test]
    fn an_object_that_is_written_again_and_again_waits_longer_each_time() {
        let mut now = Instant::now();
        let mut queue = StatusQueue::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            queue.insert(id("a"));
            assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
            queue.written(&id("a"), now);
            queue.insert(id("a"));
            let Popped::Later(until) = queue.pop(now) else {
                panic!("it was just written");
            };
            // Others do not wait for it.
            queue.insert(id("b"));
            assert_eq!(take(&mut queue, now).as_deref(), Some("b"));
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn what_was_written_long_ago_is_forgotten() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut queue = StatusQueue::default();
        for number in 0..100 {
            queue.written(&id(&number.to_string()), begin);
        }
        // Pauses of 1 s and 10 s more.
        queue.written(&id("0"), after(10));
        assert_eq!(queue.writes[&id("0")].pause, 2 * PAUSE);
        queue.written(&id("1"), after(11));
        assert_eq!(queue.writes[&id("1")].pause, PAUSE);
        assert_eq!(queue.writes.len(), 2);
        queue.written(&id("2"), after(200));
        assert_eq!(queue.writes.len(), 1);
    }
}
