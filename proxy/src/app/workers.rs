//! Worker threads: each a current-thread runtime with its own sockets, pools and connections.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{oneshot, watch};

use super::AppError;
use crate::config::demand::OnDemandClient;
use crate::dispatcher::timer::Alarm;
use crate::drain::Drain;
use crate::drain::Phase;
use crate::listener::{Bound, ListenerContext};
use crate::memory::{self, ConnectionCount, TrimPolicy};
use crate::snapshot::Follower;
use crate::snapshot::Store;
use crate::telemetry::calls::Telemetry;
use crate::worker::Worker;

/// How often it is looked whether a burst of connections has ended.
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
    /// Starts `count` threads. The receiver turns true once all of them listen.
    pub(super) fn start(
        count: usize,
        store: &Arc<Store>,
        telemetry: &Arc<Telemetry>,
        demand: Option<OnDemandClient>,
        drain: &Arc<Drain>,
        flush_interval: Duration,
    ) -> io::Result<(Self, watch::Receiver<bool>)> {
        let (listening, watched) = watch::channel(false);
        let mut threads = Vec::with_capacity(count);
        let mut started = Vec::with_capacity(count);
        for index in 0..count {
            let follower = store.follow();
            let (store, demand, telemetry) = (store.clone(), demand.clone(), telemetry.clone());
            let phase = drain.subscribe();
            let (report, reported) = oneshot::channel();
            started.push(reported);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let (runtime, alarm) = match ground() {
                    Ok(ground) => ground,
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
                    work(worker, alarm, follower, (phase, flush_interval), report).await;
                });
            })?);
        }
        let workers = Workers {
            threads,
            started,
            open: Vec::with_capacity(count),
            listening,
        };
        Ok((workers, watched))
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
    pub(super) fn join(self) {
        for thread in self.threads {
            // A worker that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

/// What a worker stands on: sockets and tasks by its runtime, time by its own alarm.
fn ground() -> io::Result<(LocalRuntime, Alarm)> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_io().build_local(LocalOptions::default())?;
    let alarm = runtime.block_on(async { Alarm::new() })?;
    Ok((runtime, alarm))
}

async fn work(
    worker: Rc<Worker>,
    alarm: Alarm,
    follower: Follower,
    (mut phase, flush_interval): (watch::Receiver<Phase>, Duration),
    report: oneshot::Sender<Started>,
) {
    let context = ListenerContext::new(worker.clone());
    let bound = Bound::new(context.clone(), follower);
    let failed = bound.reconcile().iter().map(ToString::to_string).collect();
    let open = worker.open.clone();
    // The receiver is gone when another worker failed.
    let _ = report.send(Started { open, failed });
    let flushing = async {
        loop {
            worker.timers.sleep(flush_interval).await;
            worker.logs.flush();
        }
    };
    let trimming = async {
        let mut policy = TrimPolicy::default();
        loop {
            worker.timers.sleep(TRIM).await;
            if policy.burst_is_over(worker.open.open()) {
                worker.tls.prune();
                worker.buffers.forget();
                worker.heads.forget();
                worker.rooms.forget();
                memory::trim();
            }
        }
    };
    let closing = async {
        let closed = phase.wait_for(|phase| *phase == Phase::Closing).await;
        drop(closed);
    };
    tokio::select! {
        () = closing => {}
        ((), (), (), ()) = async {
            tokio::join!(context.run(alarm), bound.run(), flushing, trimming)
        } => {}
    }
    // What was told to close gets one turn to do so, and to write its last line.
    tokio::task::yield_now().await;
    worker.logs.flush();
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
