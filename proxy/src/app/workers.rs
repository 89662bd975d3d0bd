//! Worker threads: each a current-thread runtime with its own sockets, pools and connections.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, watch};

use super::AppError;
use crate::config::Store;
use crate::config::demand::Demand;
use crate::config::snapshot::Follower;
use crate::drain::Drain;
use crate::listener::Bound;
use crate::memory::{self, Keeper};
use crate::telemetry::calls::Telemetry;
use crate::timer::Alarm;
use crate::worker::{Phase, Worker};

/// The longest an access log line waits in a worker's buffer.
const FLUSH: Duration = Duration::from_secs(1);

/// All of them.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// What each worker could not bind at first.
    reports: mpsc::UnboundedReceiver<Vec<String>>,
    listening: watch::Sender<bool>,
}

impl Workers {
    /// Starts `count` threads. The receiver turns true once all of them listen.
    pub(super) fn start(
        count: usize,
        store: &Arc<Store>,
        telemetry: &Arc<Telemetry>,
        demand: Option<Demand>,
        drain: &Arc<Drain>,
    ) -> io::Result<(Self, watch::Receiver<bool>)> {
        let (sender, reports) = mpsc::unbounded_channel();
        let (listening, watched) = watch::channel(false);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let follower = store.follow();
            let (store, demand, telemetry) = (store.clone(), demand.clone(), telemetry.clone());
            let (phase, report) = (drain.subscribe(), sender.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let (runtime, alarm) = match ground() {
                    Ok(ground) => ground,
                    Err(error) => {
                        // Nobody listens any more when another worker failed.
                        let _ = report.send(vec![format!("worker {index} cannot start: {error}")]);
                        return;
                    }
                };
                runtime.block_on(async {
                    let worker = Worker::new(index, store, telemetry, demand, phase.clone());
                    work(worker, alarm, follower, phase, report).await;
                });
            })?);
        }
        let workers = Workers {
            threads,
            reports,
            listening,
        };
        Ok((workers, watched))
    }

    /// Waits until every worker has opened the first snapshot's listeners.
    pub(super) async fn bound(&mut self) -> Result<(), AppError> {
        for _ in 0..self.threads.len() {
            let failed = self.reports.recv().await.unwrap_or_default();
            if let Some(first) = failed.into_iter().next() {
                return Err(AppError::Bind(first));
            }
        }
        self.listening.send_replace(true);
        Ok(())
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
    mut phase: watch::Receiver<Phase>,
    report: mpsc::UnboundedSender<Vec<String>>,
) {
    let bound = Bound::new(worker.clone(), follower);
    let failed = bound.reconcile().iter().map(ToString::to_string).collect();
    // Nobody listens any more when another worker failed.
    let _ = report.send(failed);
    let flushing = async {
        let mut keeper = Keeper::default();
        loop {
            worker.timers.sleep(FLUSH).await;
            worker.logs.flush();
            if keeper.crowd_has_left(&worker.presence) {
                worker.tls.prune();
                worker.buffers.forget();
                worker.heads.forget();
                worker.rooms.forget();
                memory::give_back();
            }
        }
    };
    let closing = async {
        let closed = phase.wait_for(|phase| *phase == Phase::Closing).await;
        drop(closed);
    };
    tokio::select! {
        () = closing => {}
        ((), (), ()) = async { tokio::join!(worker.run(alarm), bound.run(), flushing) } => {}
    }
    // What was told to close gets one turn to do so, and to write its last line.
    tokio::task::yield_now().await;
    worker.logs.flush();
}
