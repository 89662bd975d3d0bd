//! The state of one worker thread, shared by all its connections and by no other thread.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;
use tokio::sync::watch;

use crate::config::demand::OnDemandClient;
use crate::config::listener::{Direction, ListenerDef};
use crate::dispatcher::buffer;
use crate::dispatcher::date::DateCache;
use crate::dispatcher::future_slab::FutureSlab;
use crate::dispatcher::pipe::Pipes;
use crate::dispatcher::timer::{TimerFd, Timers};
use crate::drain::Phase;
use crate::jwt::TokenCaches;
use crate::memory::ConnectionCount;
use crate::message::head::Heads;
use crate::overload::Overload;
use crate::relay::RelayContext;
use crate::snapshot::Store;
use crate::supervise::restart_on_panic;
use crate::telemetry::{Callers, Telemetry, WorkerLogs};
use crate::tls::{Handshaker, STEPS_PER_PASS};
use crate::upstream::connect::Dialler;

/// See the module.
pub struct Worker {
    /// From 0.
    pub index: usize,
    pub store: Arc<Store>,
    pub buffers: buffer::Pool,
    pub heads: Heads,
    pub futures: FutureSlab,
    pub timers: Timers,
    /// TLS handshakes, both ways.
    pub tls: Handshaker,
    pub dialler: Dialler,
    /// Looks up the workloads that call this one.
    pub callers: Rc<Callers>,
    /// For large transfers between plaintext sockets.
    pub pipes: Pipes,
    pub telemetry: Arc<Telemetry>,
    pub logs: WorkerLogs,
    pub date: DateCache,
    /// `None`: there is no on-demand discovery.
    pub demand: Option<OnDemandClient>,
    pub drain: watch::Receiver<Phase>,
    pub open: ConnectionCount,
    pub overload: Overload,
    /// Tokens that were verified.
    pub jwts: TokenCaches,
    connections: Cell<u64>,
}

impl Worker {
    pub fn new(
        index: usize,
        store: Arc<Store>,
        telemetry: Arc<Telemetry>,
        demand: Option<OnDemandClient>,
        drain: watch::Receiver<Phase>,
    ) -> Rc<Self> {
        let buffers = buffer::Pool::default();
        let timers = Timers::new();
        let tls = Handshaker::new(buffers.clone(), STEPS_PER_PASS);
        Rc::new(Self {
            index,
            dialler: Dialler {
                timers: timers.clone(),
                tls: tls.clone(),
            },
            tls,
            callers: Rc::new(Callers {
                telemetry: telemetry.clone(),
                store: store.clone(),
                demand: demand.clone(),
                timers: timers.clone(),
            }),
            store,
            buffers,
            heads: Heads::default(),
            futures: FutureSlab::default(),
            logs: WorkerLogs::default(),
            date: DateCache::default(),
            timers,
            pipes: Pipes::new(telemetry.splices.clone()),
            telemetry,
            demand,
            drain,
            open: ConnectionCount::default(),
            overload: Overload::default(),
            jwts: TokenCaches::default(),
            connections: Cell::new(0),
        })
    }

    /// Drives timers, wakes connections at each phase of a drain and after each snapshot, and
    /// verifies their peers again. Runs beside the connections, for as long as they do.
    pub async fn run(&self, timer_fd: TimerFd) {
        tokio::join!(
            restart_on_panic(|| self.timers.drive(&timer_fd)),
            restart_on_panic(|| self.wake_connections()),
            restart_on_panic(|| self.verify_peers()),
        );
    }

    /// Serves a connection in a task of its own, and keeps `held` for as long as that lasts. A panic
    /// ends that task, and with it this connection: the runtime catches it.
    ///
    /// Each step of a connection is such a task, its future a part of the task: the task is only as
    /// large as the current step's future.
    pub fn serve(&self, held: impl Sized + 'static, serving: impl Future<Output = ()> + 'static) {
        let held = (held, self.open.count_one());
        let task = Serving { held, serving };
        tokio::task::spawn_local(self.timers.with_cached_clock(task));
    }

    /// What a relay uses; `most`: bytes that it may hold for either side.
    pub fn relay_context(&self, most: usize) -> RelayContext<'_> {
        RelayContext {
            buffers: &self.buffers,
            pipes: &self.pipes,
            timers: &self.timers,
            stalled: &self.overload.stalled,
            most,
        }
    }

    /// Whether a connection of `listener`, idle since `since`, is to be closed because memory or
    /// connections are short.
    pub fn reclaims(&self, listener: &ListenerDef, since: Instant) -> bool {
        let idle = &self.overload.idle;
        let ends = idle.is_active() && listener.closes_idle() && idle.ends(since);
        if ends {
            listener.metrics.idle_closed.inc();
        }
        ends
    }

    /// Whether connections of a listener of this direction are to end.
    pub fn is_draining(&self, direction: Direction) -> bool {
        self.drain.borrow().drains(direction)
    }

    /// A number for a connection, unique in the process.
    pub fn next_connection_id(&self) -> u64 {
        let count = self.connections.get() + 1;
        self.connections.set(count);
        ((self.index as u64) << 48) | count
    }

    /// Wakes every connection that waits on a timer, at each phase of a drain, after each snapshot
    /// and at the end of each removed listener's drain, so that those that must end are closed.
    async fn wake_connections(&self) {
        let mut drain = self.drain.clone();
        let mut snapshots = self.store.subscribe();
        let (mut draining, mut publishing) = (true, true);
        let drained = self.timers.timer();
        while draining || publishing {
            // At the start too: this loop may have been restarted after a panic, and what was
            // published before it subscribed is not reported to it.
            self.timers.wake_all();
            let end = self.store.borrow().removed.next_end(self.timers.now());
            if let Some(end) = end {
                drained.set_at(end);
            }
            tokio::select! {
                changed = drain.changed(), if draining => draining = changed.is_ok(),
                changed = snapshots.changed(), if publishing => publishing = changed.is_ok(),
                () = drained.expired(), if end.is_some() => {}
            }
        }
        self.timers.wake_all();
    }

    /// Verifies the peers of open connections again after each snapshot, which may have brought
    /// another trust bundle or CRL. Separate from [`Worker::wake_connections`], because a large
    /// bundle takes a while, and other changes of policy must not wait for it.
    async fn verify_peers(&self) {
        let mut snapshots = self.store.subscribe();
        loop {
            self.tls.reverify().await;
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    }
}

pin_project! {
    // Not an async block: one holds what it awaits twice.
    struct Serving<H, F> {
        held: H,
        #[pin]
        serving: F,
    }
}

impl<H, F: Future<Output = ()>> Future for Serving<H, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().serving.poll(cx)
    }
}
