//! Signals: SIGTERM and SIGINT drain, a second one ends the process at once; SIGUSR1 reopens logs.
//!
//! A drain ends inbound connections in order. Outbound connections, and new ones, are served as
//! before, because the app may have work to finish. The process ends when no connection of either
//! direction is open and, with `--wait-for-app`, no app listens any more; at the latest after the
//! drain time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::listening;
use super::supervisor::Supervisor;
use crate::bug;
use crate::drain::Drain;
use crate::log_sink::Sinks;

/// How often the number of open connections is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is checked whether the app still listens, once no connection is open.
const APP_INTERVAL: Duration = Duration::from_millis(200);
/// After the drain time, connections have this long to close and to write their access log lines.
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

/// SIGUSR1 reopens log files, as after a rotation. SIGHUP and SIGUSR2, by which other servers
/// reload their configuration or replace themselves, are ignored. Signals are handled from this
/// call on.
pub(super) fn handle_signals(sinks: Arc<Sinks>) -> impl Future<Output = ()> {
    let mut signals = LogSignals {
        usr1: listen(SignalKind::user_defined1()),
        hangup: listen(SignalKind::hangup()),
        usr2: listen(SignalKind::user_defined2()),
    };
    async move {
        let mut supervisor = Supervisor::new("signals");
        while supervisor.panicked(signals.handle(&sinks)).await {}
    }
}

/// The signals that do not end the process. They outlive a panic of their handler, so that none is
/// missed before it runs again.
struct LogSignals {
    usr1: Option<Signal>,
    hangup: Option<Signal>,
    usr2: Option<Signal>,
}

impl LogSignals {
    async fn handle(&mut self, sinks: &Sinks) {
        loop {
            tokio::select! {
                () = one(&mut self.usr1) => {
                    bug::point("sigusr1");
                    tracing::info!("SIGUSR1: opening logs again");
                    sinks.reopen();
                }
                () = one(&mut self.hangup) => tracing::info!("SIGHUP has no meaning here"),
                () = one(&mut self.usr2) => tracing::info!("SIGUSR2 has no meaning here"),
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

/// Returns when the process may end: after a signal, once all connections have ended or the drain
/// time is over. `open`: the number of open connections; `wait_for_app`: also wait until no other
/// process listens.
pub(super) async fn wait(
    drain: &Drain,
    open: impl Fn() -> usize,
    wait_for_app: bool,
    limit: Duration,
) {
    let mut signals = Signals::new();
    tokio::select! {
        () = signals.next() => tracing::info!(?limit, "stop requested: draining"),
        () = drain.quit_asked() => tracing::info!(?limit, "quitquitquit: draining"),
    }
    drain.begin_inbound();
    let began = Instant::now();
    tokio::select! {
        left = drained(open, wait_for_app, limit) => match left {
            Remaining::Nothing => tracing::info!("drained in {:?}", began.elapsed()),
            Remaining::Connections(left) => {
                tracing::warn!(left, "drain time is over; cutting connections");
            }
            Remaining::App => tracing::warn!("drain time is over; the app still listens"),
        },
        () = signals.next() => {
            tracing::warn!("second signal: ending at once");
            std::process::exit(EXIT_SECOND_SIGNAL);
        }
    }
    drain.close();
    tokio::time::sleep(LOG_WRITE).await;
}

/// What the drain is still waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remaining {
    Nothing,
    Connections(usize),
    /// The app still listens.
    App,
}

/// Waits until nothing is left or `limit` is over.
async fn drained(open: impl Fn() -> usize, wait_for_app: bool, limit: Duration) -> Remaining {
    let deadline = Instant::now().checked_add(limit);
    loop {
        let (left, again) = match open() {
            0 if wait_for_app && listening::others_listen() => (Remaining::App, APP_INTERVAL),
            0 => return Remaining::Nothing,
            count => (Remaining::Connections(count), CHECK_INTERVAL),
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return left;
        }
        tokio::time::sleep(again).await;
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::log_sink::Destination;

    /// The first SIGUSR1 ends in a panic; the second one opens the log.
    #[tokio::test]
    async fn logs_are_opened_again_after_a_panic_of_the_signal_handler() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sinks = Sinks::new(IntCounter::new("dropped", "dropped").unwrap(), 16);
        let sinks = Arc::new(sinks);
        let _open = sinks.open(Destination::File(path.clone())).unwrap();
        let handling = tokio::spawn(handle_signals(sinks));
        std::fs::remove_file(&path).unwrap();
        bug::count_panics();
        let before = bug::panics();
        bug::panic_at(std::thread::current().id(), "sigusr1");
        let until = async |done: &dyn Fn() -> bool| {
            while !done() {
                kill_process(getpid(), Signal::USR1).unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reopened = async {
            until(&|| bug::panics() > before).await;
            until(&|| path.exists()).await;
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, reopened).await.unwrap();
        handling.abort();
    }
}
