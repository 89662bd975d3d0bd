//! From the listener that accepted a connection to the one of its original destination, which may
//! have to be fetched on demand first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::ListenerContext;
use super::conn::Accepted;
use super::refused::Refused;
use crate::config::demand::{OnDemandResource, OnDemandResponse};
use crate::config::listener::Direction;
use crate::snapshot::Listener;
use crate::snapshot::Snapshot;

/// The listener for the original destination, where the accepting listener has `use_original_dst`.
pub(super) async fn hand_over(
    worker: &Rc<ListenerContext>,
    accepted: &Accepted,
) -> Result<Arc<Listener>, Refused> {
    let entry = &accepted.listener;
    let (true, Some(destination)) = (entry.def.use_original_dst, accepted.original_dst) else {
        return Ok(entry.clone());
    };
    if let Some(listener) = at(&worker.store.peek(), destination, entry) {
        return Ok(listener);
    }
    let Some(demand) = worker.demand.as_ref().filter(|_| is_outbound(entry)) else {
        return Ok(entry.clone());
    };
    let wanted = OnDemandResource::Listener(destination);
    match demand.ask_by(&worker.timers, wanted).await {
        OnDemandResponse::Found | OnDemandResponse::Addresses { .. } => {
            // The accepting listener may be newer now too: everything is taken from one snapshot.
            let snapshot = worker.store.load();
            let entry = snapshot.listeners.get(&entry.def.name).unwrap_or(entry);
            Ok(at(&snapshot, destination, entry).unwrap_or_else(|| entry.clone()))
        }
        OnDemandResponse::Absent => Ok(entry.clone()),
        // Fails closed: it may be a destination in the mesh, which must not be reached in
        // plaintext.
        OnDemandResponse::Unavailable => Err(Refused::Unknown),
    }
}

fn is_outbound(listener: &Listener) -> bool {
    listener.def.direction == Direction::Outbound
}

/// The listener at exactly this address, else at its port on any address.
fn at(snapshot: &Snapshot, destination: SocketAddr, entry: &Listener) -> Option<Arc<Listener>> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let find = |address| snapshot.by_address.get(&address).cloned();
    // A bound listener serves only connections to itself: an app that dials port 15006 of another
    // host must not reach its own sidecar's inbound listener.
    let unbound = |listener: &Arc<Listener>| !listener.def.bind_to_port;
    find(destination)
        .or_else(|| find(SocketAddr::new(any, destination.port())).filter(unbound))
        .filter(|listener| listener.def.name != entry.def.name)
}
