//! Coarse timers, one set per worker.
//!
//! A connection keeps one [`Timer`] and moves its deadline with every request; moving it later is
//! one store, because the wheel reads the deadline again only when the old slot comes up. So a
//! busy connection touches the wheel once per time-out and not once per request. Deadlines are
//! rounded up to [`TICK`].
//!
//! - `timer_fd`: the descriptor that becomes readable at the next tick. A worker's runtime has no
//!   timers of its own: tokio would read the clock four times a turn for them, and have the kernel
//!   arm a timer for each wait.
//! - `clock`: the time, read once for each poll of a task
//! - `race`: a future with a deadline

mod clock;
mod race;
mod timer_fd;

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::clock::CachedClock;
pub use self::clock::CachedClockTask;
use self::race::Race;
pub use self::timer_fd::TimerFd;

/// Resolution.
pub const TICK: Duration = Duration::from_millis(5);
const TICK_NANOS: u32 = TICK.subsec_nanos();
const TICK_MILLIS: u64 = TICK_NANOS as u64 / 1_000_000;
const TICKS_PER_SECOND: u64 = 1_000_000_000 / TICK_NANOS as u64;
/// Longer than any wait; it keeps `Instant`s in range.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// "Not set".
const NEVER: u64 = u64::MAX;

/// The worker's timers. Clones share them.
#[derive(Clone)]
pub struct Timers(Rc<Wheel>);

struct Wheel {
    origin: Instant,
    clock: CachedClock,
    slots: RefCell<BTreeSet<Slot>>,
    /// The tick for which the driver sleeps.
    sleeping_until: Cell<u64>,
    earlier: Notify,
}

/// An entry in the order of the ticks at which they are looked at; those of one tick by address.
struct Slot(u64, Rc<TimerEntry>);

impl Slot {
    fn key(&self) -> (u64, *const TimerEntry) {
        (self.0, Rc::as_ptr(&self.1))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Slot {}

struct TimerEntry {
    deadline: Cell<u64>,
    /// Tick of the slot that holds this entry; [`NEVER`] when none does.
    slot: Cell<u64>,
    waker: Cell<Option<Waker>>,
}

/// One deadline that can be moved and cleared at will.
pub struct Timer {
    entry: Rc<TimerEntry>,
    wheel: Rc<Wheel>,
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}

impl Timers {
    /// Timers fire while [`Timers::drive`] runs.
    pub fn new() -> Self {
        Self::since(Instant::now())
    }

    /// Timers whose ticks are counted from `origin`.
    pub fn since(origin: Instant) -> Self {
        Self(Rc::new(Wheel {
            origin,
            clock: CachedClock::new(),
            slots: RefCell::default(),
            sleeping_until: Cell::new(NEVER),
            earlier: Notify::new(),
        }))
    }

    /// The time, read once for each poll of a task of [`Timers::with_cached_clock`].
    #[inline]
    pub fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// `task`, which gets one value of [`Timers::now`] for each poll.
    pub fn with_cached_clock<F: Future>(&self, task: F) -> CachedClockTask<F> {
        CachedClockTask {
            wheel: self.0.clone(),
            task,
        }
    }

    pub fn timer(&self) -> Timer {
        Timer {
            entry: Rc::new(TimerEntry {
                deadline: Cell::new(NEVER),
                slot: Cell::new(NEVER),
                waker: Cell::new(None),
            }),
            wheel: self.0.clone(),
        }
    }

    /// Waits for `after`, to the next tick.
    pub async fn sleep(&self, after: Duration) {
        let timer = self.timer();
        timer.set(after);
        timer.expired().await;
    }

    /// Runs `future` for at most `after`.
    pub fn timeout<F: Future>(&self, after: Duration, future: F) -> Race<Timer, F> {
        let timer = self.timer();
        timer.set(after);
        Race::new(timer, future)
    }

    /// Wakes all waiting tasks, expired or not.
    pub fn wake_all(&self) {
        let slots = self.0.slots.borrow();
        let waiting: Vec<_> = slots.iter().map(|slot| slot.1.clone()).collect();
        drop(slots);
        for entry in waiting {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Fires what is due; runs for as long as the worker does.
    pub async fn drive(&self, timer_fd: &TimerFd) {
        let wheel = &*self.0;
        loop {
            let next = wheel.slots.borrow().first().map(|slot| slot.0);
            wheel.sleeping_until.set(next.unwrap_or(NEVER));
            timer_fd.set(next.map(|tick| wheel.until(tick)));
            tokio::select! {
                () = timer_fd.expired() => wheel.fire(),
                () = wheel.earlier.notified() => {}
            }
        }
    }
}

/// Whole seconds and ticks of the next; below [`NEVER`].
fn ticks(seconds: u64, more: u32) -> u64 {
    let whole = seconds.saturating_mul(TICKS_PER_SECOND);
    whole.saturating_add(more.into()).min(NEVER - 1)
}

impl Wheel {
    /// Time left to `tick`, by the system's clock.
    fn until(&self, tick: u64) -> Duration {
        let passed = Instant::now().saturating_duration_since(self.origin);
        Duration::from_millis(tick.saturating_mul(TICK_MILLIS)).saturating_sub(passed)
    }

    fn tick(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.origin);
        ticks(since.as_secs(), since.subsec_nanos() / TICK_NANOS)
    }

    fn fire(&self) {
        let now = self.tick();
        while let Some(entry) = self.take_due(now) {
            entry.slot.set(NEVER);
            match entry.deadline.get() {
                NEVER => {}
                deadline if deadline > now => self.insert(&entry, deadline),
                _ => {
                    if let Some(waker) = entry.waker.take() {
                        waker.wake();
                    }
                }
            }
        }
    }

    fn take_due(&self, now: u64) -> Option<Rc<TimerEntry>> {
        let mut slots = self.slots.borrow_mut();
        if slots.first()?.0 > now {
            return None;
        }
        slots.pop_first().map(|slot| slot.1)
    }

    fn insert(&self, entry: &Rc<TimerEntry>, tick: u64) {
        self.remove(entry);
        entry.slot.set(tick);
        self.slots.borrow_mut().insert(Slot(tick, entry.clone()));
        if tick < self.sleeping_until.get() {
            self.earlier.notify_one();
        }
    }

    fn remove(&self, entry: &Rc<TimerEntry>) {
        if entry.slot.get() != NEVER {
            let slot = Slot(entry.slot.get(), entry.clone());
            self.slots.borrow_mut().remove(&slot);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.wheel.remove(&self.entry);
    }
}

impl Timer {
    /// Expires `after` from now.
    pub fn set(&self, after: Duration) {
        let now = self.wheel.clock.now();
        self.set_at(now.checked_add(after.min(FAR)).unwrap_or(now));
    }

    /// As [`Timers::now`].
    #[inline]
    pub fn now(&self) -> Instant {
        self.wheel.clock.now()
    }

    /// Expires at `at`.
    pub fn set_at(&self, at: Instant) {
        let since = at.saturating_duration_since(self.wheel.origin);
        let deadline = ticks(since.as_secs(), since.subsec_nanos().div_ceil(TICK_NANOS));
        let before = self.entry.deadline.replace(deadline);
        let slot = self.entry.slot.get();
        // Fired, and not yet noticed by its task: in a slot again, it would have to fire again, and
        // a task that sets it whenever it runs would never see it expire.
        let fired = slot == NEVER && before == deadline;
        if deadline < slot && !fired {
            self.wheel.insert(&self.entry, deadline);
        }
    }

    /// [`Timer::set`]; for `None` a deadline that never comes. [`Timers::wake_all`] still wakes the
    /// task, which may have nothing else to be woken by.
    pub fn set_or_never(&self, after: Option<Duration>) {
        self.set(after.unwrap_or(Duration::MAX));
    }

    /// Unsets the timer: it wakes no task, and [`Timers::wake_all`] may skip it.
    pub fn clear(&self) {
        self.entry.deadline.set(NEVER);
    }

    pub fn is_set(&self) -> bool {
        self.entry.deadline.get() != NEVER
    }

    /// Whether the deadline has passed.
    pub fn is_expired(&self) -> bool {
        let deadline = self.entry.deadline.get();
        deadline != NEVER && deadline <= self.wheel.tick()
    }

    /// Ready once the deadline has passed; never when it is not set.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.entry.deadline.get() == NEVER {
            self.remember(cx);
            return Poll::Pending;
        }
        // The clock is read only once the wheel has removed the entry: it fired, or is due.
        if self.entry.slot.get() == NEVER && self.is_expired() {
            return Poll::Ready(());
        }
        self.remember(cx);
        Poll::Pending
    }

    pub async fn expired(&self) {
        std::future::poll_fn(|cx| self.poll_expired(cx)).await;
    }

    /// Runs `future` until the deadline.
    pub fn race<F: Future>(&self, future: F) -> Race<&Timer, F> {
        Race::new(self, future)
    }

    fn remember(&self, cx: &mut Context<'_>) {
        let known = self.entry.waker.take();
        let known = known.filter(|known| known.will_wake(cx.waker()));
        let waker = known.unwrap_or_else(|| cx.waker().clone());
        self.entry.waker.set(Some(waker));
    }
}

#[cfg(test)]
mod tests;
