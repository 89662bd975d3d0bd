//! Counts and logs violated assumptions that the caller survived, and panics, each with its place.
//! The counters are the process's: a panic hook is one for all threads too, and code that finds a
//! violated assumption (a span of a head) has no registry at hand.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{Location, PanicHookInfo};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::stderr;

/// This many of each kind are logged, and afterwards only at every doubling of the count, so that a
/// peer that can cause them cannot fill the disk.
const LOGGED: u64 = 100;

/// How long a thread that panics waits for its line to be on stderr.
const PRINTED: Duration = Duration::from_millis(200);

static FAILURES: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Records a violated assumption, after which the caller goes on with a safe value (Envoy's
/// `ENVOY_BUG`).
#[cold]
#[inline(never)]
#[track_caller]
pub fn failed(what: &'static str) {
    if let Some(count) = note(&FAILURES) {
        let place = Location::caller();
        tracing::error!(%place, count, "{what}: please report this");
    }
}

/// Times that [`failed`] was called.
pub fn failures() -> u64 {
    FAILURES.load(Relaxed)
}

/// Panics on any thread since [`count_panics`].
pub fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// Installs the panic hook: panics are counted, and logged with their place; on stderr where no log
/// is set up yet.
pub fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(on_panic)));
}

fn on_panic(panic: &PanicHookInfo<'_>) {
    let Some(count) = note(&PANICS) else { return };
    let what = panic.payload_as_str().unwrap_or("a value that is no text");
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(place, thread, count, "panicked: {what}: please report this");
        return;
    }
    let trace = Backtrace::capture();
    let line = match trace.status() {
        BacktraceStatus::Captured => format!("{place}: {thread} panicked: {what}\n{trace}"),
        _ => format!("{place}: {thread} panicked: {what}"),
    };
    stderr::print(line, PRINTED);
}

/// Counts one; returns the count when it is to be logged.
fn note(counter: &AtomicU64) -> Option<u64> {
    let count = counter.fetch_add(1, Relaxed).wrapping_add(1);
    (count <= LOGGED || count.is_power_of_two()).then_some(count)
}

/// A point at which tests can cause a panic ([`panic_at`]). Optimised builds have none.
#[inline]
pub fn point(_name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(_name);
}

/// The next time that `thread` reaches [`point`] `name`, it panics there. For tests.
#[cfg(debug_assertions)]
pub use self::armed::panic_at;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Mutex, PoisonError};
    use std::thread::ThreadId;

    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static PLACES: Mutex<Vec<(ThreadId, &str)>> = Mutex::new(Vec::new());

    pub fn panic_at(thread: ThreadId, name: &'static str) {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        places.push((thread, name));
        COUNT.store(places.len(), SeqCst);
    }

    pub(super) fn pass(name: &'static str) {
        if COUNT.load(SeqCst) == 0 {
            return;
        }
        let this = (std::thread::current().id(), name);
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = places.iter().position(|place| *place == this) else {
            return;
        };
        places.remove(at);
        COUNT.store(places.len(), SeqCst);
        drop(places);
        panic!("at {name}, as a test wants it");
    }
}
