//! What the requests of one downstream connection share, and the configuration they run by.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::http::HttpConnectionManager;
use crate::config::listener::{FilterChain, Listener, TerminalFilter};
use crate::config::route::RouteConfig;
use crate::http::filter::rbac;
use crate::http::message::authority;
use crate::http::request::stream_info::Downstream;
use crate::lifecycle::Limits;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// A downstream connection.
pub struct Conn {
    pub worker: Rc<Worker>,
    pub downstream: Rc<Downstream>,
    /// Spellings of header names come and go with HTTP/2: agreed on by ALPN.
    pub spell: bool,
    /// The canonical form of what its last request named.
    pub authority: RefCell<authority::Memo>,
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
    /// Its rules do not let this client in any more.
    pub is_denied: bool,
}

impl Conn {
    pub fn new(
        worker: Rc<Worker>,
        downstream: Downstream,
        manager: Arc<HttpConnectionManager>,
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
        let newest = look_up(&downstream, first.snapshot.clone(), &first);
        Self {
            worker,
            downstream: Rc::new(downstream),
            spell,
            authority: RefCell::default(),
            current: RefCell::new(Rc::new(newest)),
        }
    }

    /// The newest configuration. Looks names up only after a new snapshot was published.
    pub fn resolve(&self) -> Rc<Resolved> {
        let mut current = self.current.borrow_mut();
        if self.worker.store.generation() != current.snapshot.generation {
            let newest = self.worker.store.load();
            *current = Rc::new(look_up(&self.downstream, newest, &current));
        }
        current.clone()
    }

    /// What it is bounded by now.
    pub fn limits(&self) -> Limits {
        let resolved = self.resolve();
        let manager = &resolved.manager;
        Limits {
            idle: manager.idle_timeout,
            lifetime: manager.max_connection_duration,
            requests: manager.max_requests_per_connection,
        }
    }

    /// Asked while it has no request, since `since`: whether it is to end so that others may come.
    pub fn makes_room(&self, since: Instant) -> bool {
        let (idle, listener) = (&self.worker.overload.idle, &self.downstream.listener.def);
        let ends = idle.is_active() && listener.makes_room() && idle.ends(since);
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

/// What `snapshot` says of a connection; what was said `before` holds on where its chain is gone.
fn look_up(down: &Downstream, snapshot: Arc<Snapshot>, before: &Resolved) -> Resolved {
    let listener = snapshot.listeners.get(&down.listener.def.name);
    let found = listener.and_then(|listener| {
        let chain = same_chain(listener, &down.chain)?;
        match &chain.terminal {
            TerminalFilter::Http(manager) => Some((listener, chain, manager.clone())),
            TerminalFilter::Tcp(_) | TerminalFilter::Tunnel(_) => None,
        }
    });
    match found {
        Some((listener, chain, manager)) => Resolved {
            is_denied: !rbac::may_stay(chain, down),
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
            is_denied: false,
        },
    }
}

fn routes(listener: &Listener, manager: &HttpConnectionManager) -> Option<Arc<RouteConfig>> {
    let at = usize::try_from(manager.routes.0).ok()?;
    listener.routes.get(at)?.target().cloned()
}

/// The chain that stands where the connection's own stood: the same, or one of the same name with
/// the same certificate settings.
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
