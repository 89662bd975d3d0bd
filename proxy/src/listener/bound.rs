//! The addresses a worker listens on, kept in step with the snapshot.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::task::{AbortHandle, spawn_local};

use super::ListenerContext;
use super::accept;
use super::socket::{BindOptions, bind};
use crate::config::Name;
use crate::config::listener::{ListenerKey, SocketProtocol};
use crate::drain::Phase;
use crate::snapshot::Follower;
use crate::supervise::restart_on_panic;

/// A worker's listening sockets. Accepted connections do not depend on them.
pub struct Bound {
    context: Rc<ListenerContext>,
    follower: Follower,
    loops: RefCell<HashMap<ListenerKey, AbortHandle>>,
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
        self.follower.applied(snapshot.generation);
        failed
    }
}
