//! The addresses a worker listens on, kept in step with the snapshot.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use persistent::Map;
use tokio::task::{AbortHandle, spawn_local};

use super::ListenerContext;
use super::accept;
use super::socket::{BindOptions, bind};
use crate::config::Name;
use crate::config::listener::{ListenerKey, SocketProtocol};
use crate::drain::Phase;
use crate::snapshot::{Follower, Listener, Snapshot};
use crate::supervise::restart_on_panic;

/// A worker's listening sockets. Accepted connections do not depend on them.
pub struct Bound {
    context: Rc<ListenerContext>,
    follower: Follower,
    loops: RefCell<HashMap<ListenerKey, AbortHandle>>,
    /// Those of the last snapshot that was followed.
    listeners: RefCell<Map<Name, Arc<Listener>>>,
    /// Not all of their sockets could be opened.
    is_incomplete: Cell<bool>,
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {address}: {error}")]
pub struct BindError {
    pub name: Name,
    pub address: SocketAddr,
    pub error: io::Error,
}

impl Bound {
    /// `follower`: of the worker's store.
    pub fn new(context: Rc<ListenerContext>, follower: Follower) -> Self {
        Bound {
            context,
            follower,
            loops: RefCell::default(),
            listeners: RefCell::default(),
            is_incomplete: Cell::default(),
        }
    }

    /// Follows the snapshot until the process closes. What cannot be bound is logged, and tried
    /// again with the next snapshot.
    pub async fn run(&mut self) {
        let mut drain = self.context.drain.clone();
        loop {
            for error in self.reconcile() {
                tracing::error!(%error, "traffic to this listener will be refused");
            }
            tokio::select! {
                changed = self.follower.changed() => if changed.is_err() { break },
                closing = drain.wait_for(|phase| *phase == Phase::Closing) => {
                    drop(closing);
                    break;
                }
            }
        }
        self.loops
            .borrow_mut()
            .drain()
            .for_each(|(_, accepting)| accepting.abort());
    }

    /// Binds new listeners, closes removed ones; returns those that could not be bound.
    pub fn reconcile(&self) -> Vec<BindError> {
        let snapshot = self.context.store.borrow();
        let before = self.listeners.replace(snapshot.listeners.clone());
        let mut failed = Vec::new();
        if changes_sockets(&before, &snapshot.listeners) || self.is_incomplete.get() {
            // Until it is known, because this may panic.
            self.is_incomplete.set(true);
            failed = self.open_and_close(&snapshot);
            self.is_incomplete.set(!failed.is_empty());
        }
        self.follower.applied(snapshot.generation);
        failed
    }

    fn open_and_close(&self, snapshot: &Snapshot) -> Vec<BindError> {
        let mut loops = self.loops.borrow_mut();
        let listeners = || snapshot.listeners.values().filter(|l| l.def.bind_to_port);
        let wanted: HashSet<_> = listeners()
            .flat_map(|listener| listener.def.keys())
            .collect();
        loops.retain(|key, accepting| {
            let stays = wanted.contains(key);
            if !stays {
                accepting.abort();
            }
            stays
        });
        let mut failed = Vec::new();
        let places = listeners().flat_map(|listener| {
            let keys = listener.def.keys();
            keys.map(move |key| (listener, key))
        });
        for (listener, key) in places {
            if loops.contains_key(&key) {
                continue;
            }
            let options = BindOptions {
                backlog: listener.def.backlog,
                transparent: false,
            };
            let ListenerKey { protocol, address } = key;
            let bound = match protocol {
                SocketProtocol::Tcp => bind(address, &options),
            };
            match bound {
                Ok(socket) => {
                    let context = self.context.clone();
                    let accepting = async move {
                        restart_on_panic(|| accept::run(&context, &socket, key)).await;
                    };
                    loops.insert(key, spawn_local(accepting).abort_handle());
                }
                // A kernel without this address family: no client can connect over it.
                Err(error)
                    if error.raw_os_error() == Some(libc::EAFNOSUPPORT)
                        && address != listener.def.address => {}
                Err(error) => {
                    failed.push(BindError {
                        name: listener.def.name.clone(),
                        address,
                        error,
                    });
                }
            }
        }
        failed
    }
}

/// Whether a listener that binds its sockets was added, removed or replaced by another version.
fn changes_sockets(before: &Map<Name, Arc<Listener>>, now: &Map<Name, Arc<Listener>>) -> bool {
    now.changes(before)
        .any(|(name, now)| match (before.get(name), now) {
            // It has fresh links.
            (Some(before), Some(now)) if Arc::ptr_eq(&before.def, &now.def) => false,
            (before, now) => before.into_iter().chain(now).any(|l| l.def.bind_to_port),
        })
}
