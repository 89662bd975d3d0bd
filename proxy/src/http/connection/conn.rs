//! The state that the requests of one downstream connection share, and their configuration.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use crate::config::http::HttpConnectionManager;
use crate::config::listener::{FilterChain, TerminalFilter};
use crate::http::filter::ConnectionBuckets;
use crate::http::pool::Pools;
use crate::http::request::stream_info::Downstream;
use crate::lifecycle::Limits;
use crate::message::authority;
use crate::policy::{Addresses, PolicySubject};
use crate::snapshot::Listener;
use crate::snapshot::RouteConfig;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Whether a snapshot would still accept an open connection.
pub type WouldAdmit = fn(&Snapshot, &PolicySubject<'_>) -> bool;

/// A downstream connection.
pub struct Conn {
    pub worker: Rc<Worker>,
    pub pools: Rc<Pools>,
    pub downstream: Rc<Downstream>,
    /// Header name case travels over HTTP/2, as agreed on by ALPN.
    pub spell: bool,
    /// The canonical authority of its last request.
    pub authority: RefCell<authority::Memo>,
    /// Of rate limits that hold for each connection by itself.
    pub buckets: ConnectionBuckets,
    would_admit: WouldAdmit,
    current: RefCell<Rc<Resolved>>,
}

/// One snapshot, as far as this connection is concerned. A request runs by one from its beginning
/// to its end, retries included.
pub struct Resolved {
    pub snapshot: Arc<Snapshot>,
    pub manager: Arc<HttpConnectionManager>,
    /// `None`: not (yet) known.
    pub routes: Option<Arc<RouteConfig>>,
    /// The listener or chain is not configured any more: the connection is to end.
    pub is_gone: bool,
    /// The connection would not be accepted any more: it is cut.
    pub is_denied: bool,
}

impl Conn {
    pub fn new(
        worker: Rc<Worker>,
        pools: Rc<Pools>,
        downstream: Downstream,
        manager: Arc<HttpConnectionManager>,
        would_admit: WouldAdmit,
    ) -> Self {
        let snapshot = worker.store.load();
        let spell = downstream
            .tls
            .as_ref()
            .and_then(|tls| tls.alpn.as_deref())
            .is_some_and(|alpn| alpn == b"anyam-h2-case");
        let first = Resolved {
            routes: routes(&downstream.listener, &manager),
            manager,
            snapshot,
            is_gone: false,
            is_denied: false,
        };
        let newest = look_up(&downstream, first.snapshot.clone(), &first, would_admit);
        Self {
            worker,
            pools,
            downstream: Rc::new(downstream),
            spell,
            authority: RefCell::default(),
            buckets: ConnectionBuckets::default(),
            would_admit,
            current: RefCell::new(Rc::new(newest)),
        }
    }

    /// The newest configuration. Names are looked up only after a new snapshot was published.
    pub fn resolve(&self) -> Rc<Resolved> {
        let mut current = self.current.borrow_mut();
        if self.worker.store.generation() != current.snapshot.generation {
            let newest = self.worker.store.load();
            let newest = look_up(&self.downstream, newest, &current, self.would_admit);
            *current = Rc::new(newest);
        }
        current.clone()
    }

    /// The limits that apply to it now.
    pub fn limits(&self) -> Limits {
        let resolved = self.resolve();
        let manager = &resolved.manager;
        Limits {
            idle: manager.idle_timeout,
            lifetime: manager.max_connection_duration,
            requests: manager.max_requests_per_connection,
        }
    }

    /// Whether the connection would not be accepted any more.
    pub fn is_denied(&self) -> bool {
        self.resolve().is_denied
    }

    /// Awaits `waiting`; `None` when the connection is no longer allowed before it is ready. A newer
    /// snapshot is noticed only if the task has set a timer.
    pub fn unless_denied<F: Future>(&self, waiting: F) -> UnlessDenied<'_, F> {
        UnlessDenied {
            conn: self,
            waiting,
        }
    }

    /// Whether the connection, idle since `since`, is to be closed to make room for others.
    pub fn is_reclaimed(&self, since: Instant) -> bool {
        let (idle, listener) = (&self.worker.overload.idle, &self.downstream.listener.def);
        let ends = idle.is_active() && listener.closes_idle() && idle.ends(since);
        if ends {
            listener.metrics.idle_closed.inc();
        }
        ends
    }

    /// The connection should end at the next occasion.
    pub fn is_draining(&self) -> bool {
        let current = self.resolve();
        self.worker.is_draining() || current.is_gone || current.is_denied
    }
}

pin_project! {
    /// See [`Conn::unless_denied`]. Not an async block: one holds what it awaits twice.
    pub struct UnlessDenied<'a, F> {
        conn: &'a Conn,
        #[pin]
        waiting: F,
    }
}

impl<F: Future> Future for UnlessDenied<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.waiting.poll(cx) {
            Poll::Ready(ready) => Poll::Ready(Some(ready)),
            Poll::Pending if this.conn.is_denied() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A connection's configuration in `snapshot`; `before` stays in force where its chain is gone.
fn look_up(
    down: &Downstream,
    snapshot: Arc<Snapshot>,
    before: &Resolved,
    would_admit: WouldAdmit,
) -> Resolved {
    let subject = PolicySubject {
        listener: &down.listener,
        chain: &down.chain,
        addresses: Addresses {
            peer: down.peer,
            destination: down.local,
        },
        protocol: &down.protocol,
        tls: down.tls.as_deref(),
    };
    let is_denied = !would_admit(&snapshot, &subject);
    let listener = snapshot.listeners.get(&down.listener.def.name);
    let found = listener.and_then(|listener| {
        let chain = same_chain(listener, &down.chain)?;
        match &chain.terminal {
            TerminalFilter::Http(manager) => Some((listener, manager.clone())),
            TerminalFilter::Tcp(_) | TerminalFilter::Tunnel(_) => None,
        }
    });
    match found {
        Some((listener, manager)) => Resolved {
            is_denied,
            routes: routes(listener, &manager),
            manager,
            snapshot,
            is_gone: false,
        },
        None => Resolved {
            routes: before.routes.clone(),
            manager: before.manager.clone(),
            snapshot,
            is_gone: true,
            is_denied,
        },
    }
}

/// The routes of a filter chain; `None`: not (yet) known.
pub(crate) fn routes(
    listener: &Listener,
    manager: &HttpConnectionManager,
) -> Option<Arc<RouteConfig>> {
    let at = usize::try_from(manager.routes.0).ok()?;
    listener.routes.get(at)?.target().cloned()
}

/// The chain that replaces the connection's own: the same, or one of the same name with the same
/// certificate settings.
fn same_chain<'a>(listener: &'a Listener, own: &Arc<FilterChain>) -> Option<&'a Arc<FilterChain>> {
    let def = &listener.def;
    let mut all = def.chains.iter().chain(&def.default_chain);
    let stands_for = |chain: &&Arc<FilterChain>| {
        Arc::ptr_eq(chain, own)
            || chain.name == own.name
                && chain.matches == own.matches
                && match (&chain.tls, &own.tls) {
                    (Some(new), Some(old)) => Arc::ptr_eq(new, old),
                    (None, None) => true,
                    _ => false,
                }
    };
    all.find(stands_for)
}
