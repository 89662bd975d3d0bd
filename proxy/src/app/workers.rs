//! Worker threads: each a current-thread runtime with its own sockets, pools and connections.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{oneshot, watch};

use super::AppError;
use crate::bootstrap::capacity;
use crate::config::demand::OnDemandClient;
use crate::dispatcher::timer::TimerFd;
use crate::drain::Drain;
use crate::drain::Phase;
use crate::listener::{Bound, ListenerContext};
use crate::memory::{self, ConnectionCount, TrimPolicy};
use crate::snapshot::Follower;
use crate::snapshot::Store;
use crate::supervise::restart_on_panic;
use crate::telemetry::calls::Telemetry;
use crate::worker::Worker;

/// How often the end of a burst of connections is checked for.
const TRIM: Duration = Duration::from_secs(1);

/// All of them.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// In the order of the threads.
    started: Vec<oneshot::Receiver<Started>>,
    /// Of those that have started.
    open: Vec<ConnectionCount>,
    listening: watch::Sender<bool>,
}

/// A worker has tried to bind its listeners.
struct Started {
    open: ConnectionCount,
    /// What it could not bind, and why.
    failed: Vec<String>,
}

impl Workers {
    /// Starts `count` threads, which close idle connections when the process nears `memory` bytes.
    /// `listening` turns true once all of them listen.
    pub(super) fn start(
        count: usize,
        store: &Arc<Store>,
        telemetry: &Arc<Telemetry>,
        demand: Option<OnDemandClient>,
        drain: &Arc<Drain>,
        (flush_interval, memory): (Duration, Option<u64>),
        listening: watch::Sender<bool>,
    ) -> io::Result<Self> {
        let mut threads = Vec::with_capacity(count);
        let mut started = Vec::with_capacity(count);
        for index in 0..count {
            let follower = store.follow();
            let (store, demand, telemetry) = (store.clone(), demand.clone(), telemetry.clone());
            let phase = drain.subscribe();
            let quit = QuitOnPanic(drain.clone());
            let (report, reported) = oneshot::channel();
            started.push(reported);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let _quit = quit;
                let (runtime, timer_fd) = match runtime() {
                    Ok(made) => made,
                    Err(error) => {
                        let failed = vec![format!("worker {index} cannot start: {error}")];
                        let open = ConnectionCount::default();
                        // The receiver is gone when another worker failed.
                        let _ = report.send(Started { open, failed });
                        return;
                    }
                };
                runtime.block_on(async {
                    let worker = Worker::new(index, store, telemetry, demand, phase.clone());
                    worker.overload.watch(memory);
                    worker.pipes.limit(capacity::pipes(count));
                    work(worker, timer_fd, follower, (phase, flush_interval), report).await;
                });
            })?);
        }
        Ok(Workers {
            threads,
            started,
            open: Vec::with_capacity(count),
            listening,
        })
    }

    /// Waits until every worker has opened the first snapshot's listeners.
    pub(super) async fn bound(&mut self) -> Result<(), AppError> {
        for (index, started) in self.started.drain(..).enumerate() {
            let Ok(Started { open, failed }) = started.await else {
                let why = format!("worker {index} ended before it listened; its panic is logged");
                return Err(AppError::Bind(why));
            };
            if let Some(first) = failed.into_iter().next() {
                return Err(AppError::Bind(first));
            }
            self.open.push(open);
        }
        self.listening.send_replace(true);
        Ok(())
    }

    /// Connections open on all of them, whatever has become of their listeners.
    pub(super) fn open_connections(&self) -> usize {
        self.open.iter().map(ConnectionCount::open).sum()
    }

    /// Waits for the threads, which end once the drain is closing.
    ///
    /// # Errors
    /// When one of them panicked.
    pub(super) fn join(self) -> Result<(), AppError> {
        let ended = self.threads.into_iter().map(JoinHandle::join);
        match ended.filter(Result::is_err).count() {
            0 => Ok(()),
            _ => Err(AppError::Panicked),
        }
    }
}

/// A panic of the thread itself, not of one of its tasks, ends more than one connection: the
/// process drains and exits, so that its supervisor (kubelet, systemd) restarts it.
struct QuitOnPanic(Arc<Drain>);

impl Drop for QuitOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a worker's thread panicked: the process ends");
            self.0.quit();
        }
    }
}

/// A worker's runtime (sockets, tasks) and its kernel timer.
fn runtime() -> io::Result<(LocalRuntime, TimerFd)> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_io().build_local(LocalOptions::default())?;
    let timer_fd = runtime.block_on(async { TimerFd::new() })?;
    Ok((runtime, timer_fd))
}

async fn work(
    worker: Rc<Worker>,
    timer_fd: TimerFd,
    follower: Follower,
    (mut phase, flush_interval): (watch::Receiver<Phase>, Duration),
    report: oneshot::Sender<Started>,
) {
    let context = ListenerContext::new(worker.clone());
    let mut bound = Bound::new(context.clone(), follower);
    let failed = bound.reconcile().iter().map(ToString::to_string).collect();
    let open = worker.open.clone();
    // The receiver is gone when another worker failed.
    let _ = report.send(Started { open, failed });
    let closing = async {
        let closed = phase.wait_for(|phase| *phase == Phase::Closing).await;
        drop(closed);
    };
    tokio::select! {
        () = closing => {}
        ((), (), (), ()) = async {
            tokio::join!(
                context.run(timer_fd),
                follow(&mut bound),
                restart_on_panic(|| flush(&worker, flush_interval)),
                restart_on_panic(|| trim(&worker)),
            )
        } => {}
    }
    // Connections that were cancelled are polled once more to close and to write their log line.
    tokio::task::yield_now().await;
    worker.logs.flush();
}

/// Opens and closes listening sockets as snapshots require.
async fn follow(bound: &mut Bound) {
    let bound = RefCell::new(bound);
    // Only one run borrows it at a time, and a panic drops the borrow.
    #[expect(clippy::await_holding_refcell_ref, reason = "one run at a time")]
    restart_on_panic(|| async { bound.borrow_mut().run().await }).await;
}

/// Passes buffered access log lines to their sinks.
async fn flush(worker: &Worker, interval: Duration) {
    loop {
        worker.timers.sleep(interval).await;
        worker.logs.flush();
    }
}

/// Closes idle connections when memory or descriptors run short, and returns free memory to the
/// kernel after a burst of connections.
async fn trim(worker: &Worker) {
    let mut policy = TrimPolicy::default();
    loop {
        worker.timers.sleep(TRIM).await;
        worker.overload.check(&worker.timers);
        if policy.burst_is_over(worker.open.open()) {
            worker.tls.prune();
            worker.buffers.forget();
            worker.heads.forget();
            worker.futures.forget();
            memory::trim();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(started: Vec<oneshot::Receiver<Started>>) -> Workers {
        Workers {
            threads: Vec::new(),
            started,
            open: Vec::new(),
            listening: watch::channel(false).0,
        }
    }

    #[tokio::test]
    async fn a_thread_that_panics_ends_the_process_in_order() {
        let drain = Arc::new(Drain::default());
        let quit = QuitOnPanic(drain.clone());
        let dying = std::thread::spawn(move || {
            let _quit = quit;
            panic!("on purpose");
        });
        // As after /quitquitquit.
        let quit = tokio::time::timeout(Duration::from_secs(20), drain.quit_asked());
        assert!(quit.await.is_ok());
        let mut workers = workers(Vec::new());
        workers.threads.push(dying);
        assert!(matches!(workers.join(), Err(AppError::Panicked)));
    }

    #[tokio::test]
    async fn a_worker_that_died_did_not_listen() {
        let (fine, first) = oneshot::channel();
        let (dead, second) = oneshot::channel();
        let mut workers = workers(vec![first, second]);
        let open = ConnectionCount::default();
        let failed = Vec::new();
        assert!(fine.send(Started { open, failed }).is_ok());
        drop(dead);
        let error = workers.bound().await.unwrap_err().to_string();
        assert!(error.contains("worker 1 ended"), "{error}");
        assert!(!*workers.listening.borrow());
    }
}
