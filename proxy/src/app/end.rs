//! The end: SIGTERM and SIGINT drain, a second one ends at once.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::Drain;

/// How often it is looked whether connections are left.
const GLANCE: Duration = Duration::from_millis(50);
/// After the deadline connections get this to write their last words.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// As a shell reports a process ended by SIGTERM.
const EXIT_SECOND_SIGNAL: i32 = 143;

struct Signals {
    term: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    fn new() -> Self {
        let listen = |kind| {
            signal(kind)
                .inspect_err(|error| tracing::error!(%error, "cannot listen for signals"))
                .ok()
        };
        Signals {
            term: listen(SignalKind::terminate()),
            interrupt: listen(SignalKind::interrupt()),
        }
    }

    async fn next(&mut self) {
        let one = async |signal: &mut Option<Signal>| match signal {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        };
        tokio::select! {
            () = one(&mut self.term) => {}
            () = one(&mut self.interrupt) => {}
        }
    }
}

/// Returns when the process may end: told to, and drained or out of time. `open`: how many
/// connections there are.
pub(super) async fn wait(drain: &Drain, open: impl Fn() -> usize, limit: Duration) {
    let mut signals = Signals::new();
    tokio::select! {
        () = signals.next() => tracing::info!(?limit, "told to stop: draining"),
        () = drain.quit_asked() => tracing::info!(?limit, "quitquitquit: draining"),
    }
    drain.begin();
    let began = Instant::now();
    tokio::select! {
        left = drained(open, limit) => match left {
            0 => tracing::info!("drained in {:?}", began.elapsed()),
            left => tracing::warn!(left, "drain time is over; cutting connections"),
        },
        () = signals.next() => {
            tracing::warn!("second signal: ending at once");
            std::process::exit(EXIT_SECOND_SIGNAL);
        }
    }
    drain.close();
    tokio::time::sleep(LAST_WORDS).await;
}

/// Waits until no connection is left or `limit` is over; how many are left.
async fn drained(open: impl Fn() -> usize, limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    loop {
        let left = open();
        if left == 0 || Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(GLANCE).await;
    }
}
