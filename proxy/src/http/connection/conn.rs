//! The state that the requests of one downstream connection share, and their configuration.

use std::cell::{Cell, RefCell};
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
use crate::policy::{Addresses, PolicySubject, Readmission};
use crate::snapshot::Link;
use crate::snapshot::Listener;
use crate::snapshot::RouteConfig;
use crate::snapshot::Snapshot;
use crate::upstream::cluster::Cluster;
use crate::worker::Worker;

/// How an open connection would be admitted under a snapshot.
pub type Readmit = for<'a> fn(&'a Snapshot, &PolicySubject<'a>) -> Readmission<'a>;

/// A downstream connection.
pub struct Conn {
    pub worker: Rc<Worker>,
    pub pools: Rc<Pools>,
    pub downstream: Rc<Downstream>,
    /// Header name case travels over HTTP/2, as agreed on by ALPN.
    pub spell: bool,
    /// The canonical authority of its last request.
    pub authority: RefCell<authority::Memo>,
    /// Buckets of rate limits that apply per connection.
    pub buckets: ConnectionBuckets,
    /// A draining host served a request, because there was no other: the client is to choose anew.
    /// Endpoints change between snapshots, too.
    pub met_draining: Cell<bool>,
    readmit: Readmit,
    current: RefCell<Rc<Resolved>>,
}

/// One snapshot, as far as this connection is concerned. A request runs by one from its beginning
/// to its end, retries included.
pub struct Resolved {
    pub snapshot: Arc<Snapshot>,
    pub manager: Arc<HttpConnectionManager>,
    /// `None`: not (yet) known.
    pub routes: Option<Arc<RouteConfig>>,
    /// The listener or filter chain is not configured any more: the connection is drained.
    pub is_gone: bool,
    /// The connection would not be admitted any more: it is closed at once.
    pub is_denied: bool,
    /// All hosts that the routes lead to drain: the client is to choose anew, also one that is idle.
    has_draining_hosts_only: bool,
    /// Its listener was removed: what is left of the connection then is closed.
    drains_until: Option<Instant>,
    /// Changes whenever the rules for a request may have changed: with another connection manager,
    /// whose filters have the rules, or with another route table, which overrides them.
    pub rules_version: u64,
}

impl Conn {
    pub fn new(
        worker: Rc<Worker>,
        pools: Rc<Pools>,
        downstream: Downstream,
        manager: Arc<HttpConnectionManager>,
        readmit: Readmit,
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
            has_draining_hosts_only: false,
            drains_until: None,
            rules_version: 0,
        };
        let newest = look_up(&downstream, first.snapshot.clone(), &first, readmit);
        Self {
            worker,
            pools,
            downstream: Rc::new(downstream),
            spell,
            authority: RefCell::default(),
            buckets: ConnectionBuckets::default(),
            met_draining: Cell::new(false),
            readmit,
            current: RefCell::new(Rc::new(newest)),
        }
    }

    /// The newest configuration. Names are looked up only after a new snapshot was published.
    pub fn resolve(&self) -> Rc<Resolved> {
        let mut current = self.current.borrow_mut();
        if self.worker.store.generation() != current.snapshot.generation {
            let newest = self.worker.store.load();
            let newest = look_up(&self.downstream, newest, &current, self.readmit);
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

    /// Whether the connection would not be accepted any more, or the drain of its listener is over.
    pub fn must_close(&self) -> bool {
        let resolved = self.resolve();
        resolved.is_denied || self.is_drained(&resolved)
    }

    /// Whether the drain of its listener, which was removed, is over.
    pub fn is_drained(&self, resolved: &Resolved) -> bool {
        let until = resolved.drains_until;
        until.is_some_and(|until| until <= self.worker.timers.now())
    }

    /// Awaits `waiting`; `None` when the connection must be closed before it is ready. The task
    /// notices that only if it has set a timer.
    pub fn unless_closed<F: Future>(&self, waiting: F) -> UnlessClosed<'_, F> {
        UnlessClosed {
            conn: self,
            waiting,
        }
    }

    /// Whether the connection, idle since `since`, is to be closed because memory or connections
    /// are short.
    pub fn is_reclaimed(&self, since: Instant) -> bool {
        self.worker.reclaims(&self.downstream.listener.def, since)
    }

    /// Whether the connection should end as soon as it can end in order.
    pub fn is_draining(&self) -> bool {
        let current = self.resolve();
        let direction = self.downstream.listener.def.direction;
        self.worker.is_draining(direction)
            || current.is_gone
            || current.is_denied
            || current.has_draining_hosts_only
            || self.met_draining.get()
    }
}

pin_project! {
    /// See [`Conn::unless_closed`]. Not an async block: one holds what it awaits twice.
    pub struct UnlessClosed<'a, F> {
        conn: &'a Conn,
        #[pin]
        waiting: F,
    }
}

impl<F: Future> Future for UnlessClosed<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.waiting.poll(cx) {
            Poll::Ready(ready) => Poll::Ready(Some(ready)),
            Poll::Pending if this.conn.must_close() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A connection's configuration in `snapshot`; `before` stays in force where its chain is gone.
fn look_up(
    down: &Downstream,
    snapshot: Arc<Snapshot>,
    before: &Resolved,
    readmit: Readmit,
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
    let found = readmit(&snapshot, &subject);
    let is_denied = matches!(found, Readmission::Refused);
    let drains_until = match found {
        Readmission::Removed { until } => until,
        Readmission::Refused | Readmission::By(..) => None,
    };
    // Another chain may have replaced the connection's own. Until the connection ends, the filters
    // of that chain authorise its requests.
    if let Readmission::By(listener, chain) = found
        && let TerminalFilter::Http(manager) = &chain.terminal
    {
        let routes = routes(listener, manager);
        let are_same = Arc::ptr_eq(manager, &before.manager)
            && have_same_table(routes.as_ref(), before.routes.as_ref());
        return Resolved {
            rules_version: before.rules_version.wrapping_add(u64::from(!are_same)),
            has_draining_hosts_only: routes.as_deref().is_some_and(lead_to_draining_hosts_only),
            routes,
            manager: manager.clone(),
            is_gone: !stands_for(chain, &down.chain),
            is_denied,
            drains_until,
            snapshot,
        };
    }
    Resolved {
        rules_version: before.rules_version,
        routes: before.routes.clone(),
        manager: before.manager.clone(),
        is_gone: true,
        is_denied,
        has_draining_hosts_only: false,
        drains_until,
        snapshot,
    }
}

/// Ends at the first cluster that has another host, which is the first one as a rule.
fn lead_to_draining_hosts_only(routes: &RouteConfig) -> bool {
    let clusters = &routes.clusters;
    let drains = |link: &Link<Cluster>| link.target.as_ref().is_some_and(|it| it.is_draining());
    !clusters.is_empty() && clusters.iter().all(drains)
}

/// Whether two route configurations differ in their clusters at most, which rules do not look at.
fn have_same_table(one: Option<&Arc<RouteConfig>>, other: Option<&Arc<RouteConfig>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(&one.table, &other.table),
        (None, None) => true,
        _ => false,
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

/// Whether a chain replaces the connection's own: it is the same, or has the same name and the same
/// certificate settings.
fn stands_for(chain: &FilterChain, own: &FilterChain) -> bool {
    let same_tls = match (&chain.tls, &own.tls) {
        (Some(new), Some(old)) => Arc::ptr_eq(new, old),
        (None, None) => true,
        _ => false,
    };
    std::ptr::eq(chain, own) || chain.name == own.name && chain.matches == own.matches && same_tls
}
