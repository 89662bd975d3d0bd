//! What one worker thread has: shared by all its connections, owned by nobody else.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::sync::watch;

use crate::config::demand::OnDemandClient;
use crate::dispatcher::buffer;
use crate::dispatcher::future_slab::FutureSlab;
use crate::dispatcher::pipe::Pipes;
use crate::dispatcher::timer::{Alarm, Timers};
use crate::http::message::date::DateCache;
use crate::http::message::head::Heads;
use crate::http::pool::Pools;
use crate::listener::ServerFirstCache;
use crate::memory::ConnectionCount;
use crate::overload::Overload;
use crate::snapshot::Store;
use crate::telemetry::{Telemetry, WorkerLogs};
use crate::tls::{Handshaker, STEPS_PER_PASS};

/// How far the process has come on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Serving,
    /// New work is still accepted, but every connection is asked to end: `Connection: close`,
    /// GOAWAY, idle ones closed.
    Draining,
    /// The deadline passed: what is left is cut.
    Closing,
}

/// See the module.
pub struct Worker {
    /// From 0.
    pub index: usize,
    pub store: Arc<Store>,
    pub buffers: buffer::Pool,
    pub heads: Heads,
    pub rooms: FutureSlab,
    pub timers: Timers,
    /// TLS handshakes, both ways.
    pub tls: Handshaker,
    /// Destinations whose servers speak first.
    pub speaks_first: ServerFirstCache,
    /// For bulk between plain sockets.
    pub pipes: Pipes,
    pub telemetry: Arc<Telemetry>,
    pub logs: WorkerLogs,
    pub date: DateCache,
    /// Connections to upstreams.
    pub pools: Pools,
    /// `None`: everything there is, is configured; nothing is asked for.
    pub demand: Option<OnDemandClient>,
    pub drain: watch::Receiver<Phase>,
    pub open: ConnectionCount,
    pub overload: Overload,
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
        Rc::new(Self {
            index,
            store,
            tls: Handshaker::new(buffers.clone(), STEPS_PER_PASS),
            buffers,
            heads: Heads::default(),
            rooms: FutureSlab::default(),
            logs: WorkerLogs::default(),
            date: DateCache::default(),
            timers: Timers::new(),
            speaks_first: ServerFirstCache::default(),
            pipes: Pipes::new(telemetry.splices.clone()),
            telemetry,
            pools: Pools::default(),
            demand,
            drain,
            open: ConnectionCount::default(),
            overload: Overload::default(),
            connections: Cell::new(0),
        })
    }

    /// The chores of a worker: timers, idle upstream connections, telling idle connections of a
    /// drain. Runs beside the connections, as long as they do.
    pub async fn run(self: &Rc<Self>, alarm: Alarm) {
        tokio::join!(
            self.timers.drive(alarm),
            self.pools.sweep(self),
            self.announce()
        );
    }

    /// Serves a connection in a task of its own, and keeps `held` for as long as that lasts.
    ///
    /// Each step of a connection is such a task, its future a part of the task itself: a connection
    /// takes up what its last step needs, in one piece.
    pub fn serve(&self, held: impl Sized + 'static, serving: impl Future<Output = ()> + 'static) {
        let held = (held, self.open.count_one());
        let task = Serving { held, serving };
        tokio::task::spawn_local(self.timers.turns(task));
    }

    pub fn is_draining(&self) -> bool {
        *self.drain.borrow() >= Phase::Draining
    }

    /// A number for a connection, unique in the process.
    pub fn next_connection_id(&self) -> u64 {
        let count = self.connections.get() + 1;
        self.connections.set(count);
        ((self.index as u64) << 48) | count
    }

    /// Wakes every connection that waits on a timer, at each phase of a drain and after each
    /// snapshot, so that those whose listener is gone can go too.
    async fn announce(&self) {
        let mut drain = self.drain.clone();
        let mut snapshots = self.store.subscribe();
        let (mut draining, mut publishing) = (true, true);
        while draining || publishing {
            tokio::select! {
                changed = drain.changed(), if draining => draining = changed.is_ok(),
                changed = snapshots.changed(), if publishing => publishing = changed.is_ok(),
            }
            // A snapshot may have brought another trust bundle or CRL.
            self.tls.rejudge().await;
            self.timers.wake_all();
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
