//! From the listener that accepted a connection to the one of its original destination, which may
//! have to be fetched on demand first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::ListenerContext;
use super::conn::AcceptedConnection;
use super::refused::Refused;
use crate::config::demand::{OnDemandResource, OnDemandResponse};
use crate::config::listener::{Direction, ListenerKey};
use crate::snapshot::Listener;
use crate::snapshot::Snapshot;

/// The listener for the original destination, where the accepting listener has `use_original_dst`.
pub(super) async fn find_listener(
    worker: &Rc<ListenerContext>,
    accepted: &AcceptedConnection,
) -> Result<Arc<Listener>, Refused> {
    let entry = &accepted.listener;
    let destination = match look_up(&worker.store.borrow(), entry, accepted.original_dst) {
        LookUp::Found(listener) => return Ok(listener),
        LookUp::Own => return Ok(entry.clone()),
        LookUp::Unknown(destination) => destination,
    };
    let Some(demand) = &worker.demand else {
        return Ok(entry.clone());
    };
    let wanted = OnDemandResource::Listener(destination);
    match demand.ask_by(&worker.timers, wanted).await {
        OnDemandResponse::Found | OnDemandResponse::Name(_) => {
            // The accepting listener may be newer now too, so both are taken from one snapshot.
            let snapshot = worker.store.load();
            let entry = snapshot.listeners.get(&entry.def.name).unwrap_or(entry);
            // This fails closed too: if the listener is gone again since the answer, the accepting
            // one would forward an address of the mesh in plaintext.
            at(&snapshot, destination, entry).ok_or(Refused::Unknown)
        }
        OnDemandResponse::Absent => Ok(entry.clone()),
        // Fails closed: it may be a destination in the mesh, which must not be reached in
        // plaintext.
        OnDemandResponse::Unavailable => Err(Refused::Unknown),
    }
}

/// The listener that serves a connection, by one snapshot.
pub(crate) enum LookUp {
    /// The listener of its original destination.
    Found(Arc<Listener>),
    /// The entry itself.
    Own,
    /// There is no listener at this original destination. The control plane may have one; otherwise
    /// it is the entry itself.
    Unknown(SocketAddr),
}

/// Looks up the listener for a connection that `entry` accepted.
pub(crate) fn look_up(
    snapshot: &Snapshot,
    entry: &Listener,
    original_dst: Option<SocketAddr>,
) -> LookUp {
    let (true, Some(destination)) = (entry.def.use_original_dst, original_dst) else {
        return LookUp::Own;
    };
    match at(snapshot, destination, entry) {
        Some(listener) => LookUp::Found(listener),
        None if entry.def.direction == Direction::Outbound => LookUp::Unknown(destination),
        None => LookUp::Own,
    }
}

/// The listener whose socket accepts connections to `destination`: one that is bound to it, else
/// the one that connections are redirected to.
pub(crate) fn accepting(
    snapshot: &Snapshot,
    direction: Direction,
    destination: SocketAddr,
) -> Option<&Arc<Listener>> {
    let is_bound = |listener: &&Arc<Listener>| {
        listener.def.bind_to_port && listener.def.direction == direction
    };
    // Of several, the same each time: a map has no order.
    snapshot
        .listeners
        .values()
        .filter(is_bound)
        .min_by_key(|listener| {
            let def = &listener.def;
            let is_at = def.address == destination || def.more_addresses.contains(&destination);
            (!is_at, !def.use_original_dst, def.name.clone())
        })
}

/// The listener at exactly this address, else at its port on any address.
fn at(snapshot: &Snapshot, destination: SocketAddr, entry: &Listener) -> Option<Arc<Listener>> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let find = |address| {
        let key = ListenerKey::tcp(address);
        snapshot.by_socket.get(&key).cloned()
    };
    // A bound listener serves only connections to itself: an app that dials port 15006 of another
    // host must not reach its own sidecar's inbound listener.
    let unbound = |listener: &Arc<Listener>| !listener.def.bind_to_port;
    find(destination)
        .or_else(|| find(SocketAddr::new(any, destination.port())).filter(unbound))
        .filter(|listener| listener.def.name != entry.def.name)
}
