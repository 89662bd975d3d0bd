//! Whether the current configuration would still accept an open connection.
//!
//! A connection was authorised by its chain, which may be older than the newest snapshot: first
//! bytes and a handshake take time. So a connection counts as checked by a snapshot only after a
//! look-up in that snapshot. Its first bytes are those that were detected at admission.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use super::chain::{ChainMatchInput, choose};
use super::conn::authorise;
use crate::config::listener::{FilterChain, ListenerDef};
use crate::drain::Phase;
use crate::policy::{DetectedProtocol, PolicySubject};
use crate::snapshot::Snapshot;
use crate::tls::hello::ClientHello;
use crate::worker::Worker;

/// The snapshot by which a connection was last checked; at first none.
#[derive(Default)]
pub(crate) struct CheckedGeneration(Cell<Option<u64>>);

/// Whether an open connection must be closed: the process closes, or the connection would not be
/// accepted any more.
pub(crate) fn must_end(
    worker: &Worker,
    subject: &PolicySubject<'_>,
    checked: &CheckedGeneration,
) -> bool {
    if *worker.drain.borrow() == Phase::Closing {
        return true;
    }
    if checked.0.get() == Some(worker.store.generation()) {
        return false;
    }
    let snapshot = worker.store.peek();
    checked.0.set(Some(snapshot.generation));
    !would_admit(&snapshot, subject)
}

/// Whether `snapshot` would accept a connection: its listener has a chain for it, with or without
/// TLS as its own, whose network filters allow it. A removed listener revokes nothing: its
/// connections are drained.
pub fn would_admit(snapshot: &Snapshot, subject: &PolicySubject<'_>) -> bool {
    let Some(listener) = snapshot.listeners.get(&subject.listener.def.name) else {
        return true;
    };
    // The listener that accepted it has not changed, and so neither has its choice. With TLS, the
    // certificate is judged again all the same.
    if Arc::ptr_eq(&listener.def, &subject.listener.def) {
        return subject.tls.is_none()
            || authorise(subject.addresses, subject.chain, subject.tls, sni(subject)).is_ok();
    }
    let Some(chain) = chain_now(&listener.def, subject) else {
        return false;
    };
    chain.tls.is_some() == subject.chain.tls.is_some()
        && authorise(subject.addresses, chain, subject.tls, sni(subject)).is_ok()
}

/// The server name of the ClientHello that was detected, also where TLS passes through.
fn sni<'a>(subject: &PolicySubject<'a>) -> Option<&'a str> {
    match subject.protocol {
        DetectedProtocol::Tls(hello) => hello.sni.as_deref(),
        _ => None,
    }
}

fn chain_now<'a>(
    def: &'a ListenerDef,
    subject: &PolicySubject<'_>,
) -> Option<&'a Arc<FilterChain>> {
    let facts = ChainMatchInput {
        destination: subject.addresses.destination,
        source: subject.addresses.peer,
        protocol: &protocol(subject),
    };
    choose(def, &facts)
}

/// The protocol as it was detected; where the first bytes were not inspected, as the TLS handshake
/// shows it.
fn protocol<'a>(subject: &PolicySubject<'a>) -> Cow<'a, DetectedProtocol> {
    match (subject.protocol, subject.tls) {
        (DetectedProtocol::Tls(_), _) | (_, None) => Cow::Borrowed(subject.protocol),
        (_, Some(tls)) => Cow::Owned(DetectedProtocol::Tls(ClientHello {
            sni: tls.sni.clone(),
            alpn: tls.alpn.iter().cloned().collect(),
        })),
    }
}
