//! Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGUSR1 opens logs again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::Drain;
use crate::log_sink::Sinks;

/// How often the number of open connections is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// After the deadline connections get this long to close and to write their log lines.
const LOG_WRITE: Duration = Duration::from_millis(100);
/// As a shell reports a process ended by SIGTERM.
const EXIT_SECOND_SIGNAL: i32 = 143;

struct Signals {
    term: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    fn new() -> Self {
        Signals {
            term: listen(SignalKind::terminate()),
            interrupt: listen(SignalKind::interrupt()),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            () = one(&mut self.term) => {}
            () = one(&mut self.interrupt) => {}
        }
    }
}

/// SIGUSR1 opens log files again, as after a rotation. SIGHUP and SIGUSR2, which tell other servers
/// to read their configuration or to replace themselves, do nothing.
/// They are handled from this call on.
pub(super) fn handle_signals(sinks: Arc<Sinks>) -> impl Future<Output = ()> {
    let mut usr1 = listen(SignalKind::user_defined1());
    let mut hangup = listen(SignalKind::hangup());
    let mut usr2 = listen(SignalKind::user_defined2());
    async move {
        loop {
            tokio::select! {
                () = one(&mut usr1) => {
                    tracing::info!("SIGUSR1: opening logs again");
                    sinks.reopen();
                }
                () = one(&mut hangup) => tracing::info!("SIGHUP has no meaning here"),
                () = one(&mut usr2) => tracing::info!("SIGUSR2 has no meaning here"),
            }
        }
    }
}

fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| tracing::error!(%error, "cannot listen for signals"))
        .ok()
}

async fn one(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Returns when the process may end: after a signal, once all connections are drained or the drain
/// time is over. `open`: the number of open connections.
pub(super) async fn wait(drain: &Drain, open: impl Fn() -> usize, limit: Duration) {
    let mut signals = Signals::new();
    tokio::select! {
        () = signals.next() => tracing::info!(?limit, "stop requested: draining"),
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
    tokio::time::sleep(LOG_WRITE).await;
}

/// Waits until no connection is left or `limit` is over; how many are left.
async fn drained(open: impl Fn() -> usize, limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    loop {
        let left = open();
        if left == 0 || Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}
