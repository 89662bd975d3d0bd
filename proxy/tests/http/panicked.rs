//! Which threads have panicked: the runtime catches a panic of a connection's task, and a test would
//! see no more than an end of that connection.

use std::sync::{Mutex, Once, PoisonError};
use std::thread::ThreadId;

use anyam_proxy::bug;

static PANICKED: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

/// From here on they are remembered.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        bug::count_panics();
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let this = std::thread::current().id();
            PANICKED
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(this);
            next(panic);
        }));
    });
}

/// Times that this thread, or a task on it, has panicked.
pub fn times(thread: ThreadId) -> usize {
    let panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
    panicked.iter().filter(|other| **other == thread).count()
}
