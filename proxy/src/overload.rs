//! Room is made when there is too little: idle connections and stalled streams end, those that have
//! rested longest first. Envoy's overload manager shortens time-outs for the same end
//! (`reduce_timeouts`).
//!
//! Nothing is kept in order for this. When room is wanted, all that wait are woken and say since
//! when they rest; the eighth that has rested longest ends at the second call.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::dispatcher::timer::Timers;

/// Time between two calls.
const PAUSE: Duration = Duration::from_millis(100);
/// What rests for less is left alone.
const IDLE: Duration = Duration::from_secs(1);
const STALLED: Duration = Duration::from_secs(10);

/// A worker's.
pub struct Overload {
    /// HTTP connections without a request.
    pub idle: Relief,
    /// Streams whose peer does not take what waits for it.
    pub stalled: Relief,
    /// Bytes that the process may take up; `None`: not watched.
    memory: Cell<Option<u64>>,
}

impl Default for Overload {
    fn default() -> Self {
        Overload {
            idle: Relief::new(IDLE),
            stalled: Relief::new(STALLED),
            memory: Cell::new(None),
        }
    }
}

impl Overload {
    /// Makes room from now on when the process takes up most of so many bytes.
    pub fn watch(&self, memory: Option<u64>) {
        self.memory.set(memory);
    }

    /// To be called about once a second.
    pub fn look(&self, timers: &Timers) {
        let Some(most) = self.memory.get() else {
            return;
        };
        if resident().is_some_and(|bytes| bytes > most / 100 * 85) {
            self.idle.begin(timers);
            self.stalled.begin(timers);
        }
    }
}

/// Memory of this process, bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Ends what has rested longest of one kind; clones share it.
#[derive(Clone)]
pub struct Relief(Rc<State>);

struct State {
    least: Duration,
    step: Cell<Step>,
    since: RefCell<Vec<Instant>>,
    began: Cell<Option<Instant>>,
}

#[derive(Clone, Copy)]
enum Step {
    Off,
    /// Those that rest say since when.
    Asking,
    /// Those that rest since then or before end.
    Ending(Instant),
}

impl Relief {
    fn new(least: Duration) -> Self {
        Relief(Rc::new(State {
            least,
            step: Cell::new(Step::Off),
            since: RefCell::default(),
            began: Cell::new(None),
        }))
    }

    /// Calls all that rest, unless that was done a moment ago. Runs beside them.
    pub fn begin(&self, timers: &Timers) {
        let now = timers.now();
        let before = self.0.began.get();
        let soon = before.is_some_and(|began| now.saturating_duration_since(began) < PAUSE);
        if soon || self.is_active() {
            return;
        }
        self.0.began.set(Some(now));
        self.0.step.set(Step::Asking);
        timers.wake_all();
        let (state, timers) = (self.0.clone(), timers.clone());
        tokio::task::spawn_local(async move {
            // Those that were woken come before this task.
            tokio::task::yield_now().await;
            if let Some(last) = state.last_to_end(now) {
                state.step.set(Step::Ending(last));
                timers.wake_all();
                tokio::task::yield_now().await;
            }
            state.step.set(Step::Off);
        });
    }

    /// Whether anybody is called at all.
    pub fn is_active(&self) -> bool {
        !matches!(self.0.step.get(), Step::Off)
    }

    /// Asked by what rests since `since`, whenever it is woken; true: it is to end.
    pub fn ends(&self, since: Instant) -> bool {
        match self.0.step.get() {
            Step::Off => false,
            Step::Asking => {
                self.0.since.borrow_mut().push(since);
                false
            }
            Step::Ending(last) => since <= last,
        }
    }
}

impl State {
    fn last_to_end(&self, now: Instant) -> Option<Instant> {
        let mut since = self.since.take();
        since.retain(|since| now.saturating_duration_since(*since) >= self.least);
        if since.is_empty() {
            return None;
        }
        let few = since.len() / 8;
        Some(*since.select_nth_unstable(few).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_that_has_rested_longest_ends() {
        let relief = Relief::new(IDLE);
        let now = Instant::now() + Duration::from_secs(100);
        relief.0.step.set(Step::Asking);
        for n in 0..80 {
            assert!(!relief.ends(now - Duration::from_secs(1) - Duration::from_millis(n)));
        }
        assert!(!relief.ends(now - IDLE / 2), "it rests for a moment only");
        let last = relief.0.last_to_end(now).unwrap();
        let few = now - Duration::from_secs(1) - Duration::from_millis(69);
        assert_eq!(last, few);
        assert_eq!(relief.0.last_to_end(now), None, "nothing rests any more");
    }

    #[test]
    fn a_process_knows_its_size() {
        assert!(resident().unwrap() > 1 << 20);
    }
}
