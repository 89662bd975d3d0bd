//! Whether the current configuration would still accept an open connection.
//!
//! A connection was authorised by its chain, which may be older than the newest snapshot: first
//! bytes and a handshake take time. So a connection counts as checked by a snapshot only after a
//! look-up in that snapshot.

use std::cell::Cell;
use std::sync::Arc;

use super::chain::{ChainMatchInput, choose};
use super::conn::authorise;
use super::detect::DetectedProtocol;
use crate::config::listener::{FilterChain, ListenerDef, TransportProtocol};
use crate::drain::Phase;
use crate::policy::PolicySubject;
use crate::snapshot::Snapshot;
use crate::tls::ConnectionInfo;
use crate::tls::hello::ClientHello;
use crate::worker::Worker;

/// The snapshot by which a connection was last checked; at first none.
#[derive(Default)]
pub(crate) struct Judged(Cell<Option<u64>>);

/// Whether an open connection must be closed: the process closes, or the connection would not be
/// accepted any more.
pub(crate) fn must_end(worker: &Worker, party: &PolicySubject<'_>, judged: &Judged) -> bool {
    if *worker.drain.borrow() == Phase::Closing {
        return true;
    }
    if judged.0.get() == Some(worker.store.generation()) {
        return false;
    }
    let snapshot = worker.store.peek();
    judged.0.set(Some(snapshot.generation));
    !would_admit(&snapshot, party)
}

/// Whether `snapshot` would accept a connection: its listener has a chain for it, with or without
/// TLS as its own, whose network filters allow it. A removed listener revokes nothing: its
/// connections are drained.
pub fn would_admit(snapshot: &Snapshot, party: &PolicySubject<'_>) -> bool {
    let Some(listener) = snapshot.listeners.get(&party.listener.def.name) else {
        return true;
    };
    // The listener that accepted it has not changed, and so neither has its choice. With TLS, the
    // certificate is judged again all the same.
    if Arc::ptr_eq(&listener.def, &party.listener.def) {
        return party.tls.is_none() || authorise(party.ends, party.chain, party.tls, None).is_ok();
    }
    let Some(chain) = chain_now(&listener.def, party) else {
        return false;
    };
    chain.tls.is_some() == party.chain.tls.is_some()
        && authorise(party.ends, chain, party.tls, None).is_ok()
}

fn chain_now<'a>(def: &'a ListenerDef, party: &PolicySubject<'_>) -> Option<&'a Arc<FilterChain>> {
    let protocol = protocol(party.chain, party.tls);
    let facts = ChainMatchInput {
        destination: party.ends.destination,
        source: party.ends.peer,
        protocol: &protocol,
    };
    choose(def, &facts)
}

/// The protocol of the connection's first bytes, from TLS and from its chain's criteria.
fn protocol(chain: &FilterChain, tls: Option<&ConnectionInfo>) -> DetectedProtocol {
    let asked = &chain.matches;
    let asks = |name: &[u8]| asked.application_protocols.iter().any(|it| **it == *name);
    // Only a ClientHello has a server name, or protocols other than these.
    let plain = |name: &[u8]| matches!(name, b"http/1.1" | b"http/1.0" | b"h2c");
    let has_hello = !asked.server_names.is_empty()
        || asked.application_protocols.iter().any(|name| !plain(name));
    if tls.is_some() || asked.transport_protocol == Some(TransportProtocol::Tls) || has_hello {
        let agreed = tls.and_then(|tls| tls.alpn.clone());
        let sni = tls.and_then(|tls| tls.sni.clone());
        return DetectedProtocol::Tls(ClientHello {
            sni: sni.or_else(|| asked.server_names.first().map(|name| a_name(name))),
            alpn: agreed
                .into_iter()
                .chain(asked.application_protocols.iter().cloned())
                .collect(),
        });
    }
    match () {
        () if asks(b"http/1.1") => DetectedProtocol::Http11,
        () if asks(b"http/1.0") => DetectedProtocol::Http10,
        () if asks(b"h2c") => DetectedProtocol::Http2,
        () => DetectedProtocol::Tcp,
    }
}

/// A name that matches `*.example.com` or `example.com`.
fn a_name(pattern: &str) -> Box<str> {
    match pattern.strip_prefix('*') {
        Some(suffix) => format!("a{suffix}").into(),
        None => pattern.into(),
    }
}
