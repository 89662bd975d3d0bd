//! Whether the current configuration would still accept an open connection.
//!
//! A connection was authorised by its chain, which may be older than the newest snapshot: first
//! bytes and a handshake take time. So a connection counts as checked by a snapshot only after a
//! look-up in that snapshot. Its first bytes are those that were detected at admission.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use super::authorisation::authorise;
use super::chain::{ChainMatchInput, choose};
use crate::config::listener::{FilterChain, ListenerDef};
use crate::drain::Phase;
use crate::policy::{DetectedProtocol, PolicySubject, Readmission};
use crate::snapshot::Snapshot;
use crate::tls::hello::ClientHello;
use crate::worker::Worker;

/// The snapshot by which a connection was last checked; at first none.
#[derive(Default)]
pub(crate) struct CheckedGeneration(Cell<Option<u64>>);

/// What becomes of an open connection by the current configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Stays,
    /// Its listener was removed: it ends as soon as it can end in order.
    Drains,
    /// It is closed at once.
    Ends,
}

/// Whether an open connection must be closed: the process closes, the connection would not be
/// accepted any more, or the drain of its listener is over.
pub(crate) fn must_end(
    worker: &Worker,
    subject: &PolicySubject<'_>,
    checked: &CheckedGeneration,
) -> bool {
    standing(worker, subject, checked) == Standing::Ends
}

/// See [`Standing`].
pub(crate) fn standing(
    worker: &Worker,
    subject: &PolicySubject<'_>,
    checked: &CheckedGeneration,
) -> Standing {
    if *worker.drain.borrow() == Phase::Closing {
        return Standing::Ends;
    }
    if checked.0.get() == Some(worker.store.generation()) {
        return Standing::Stays;
    }
    let snapshot = worker.store.borrow();
    match readmit(&snapshot, subject) {
        Readmission::Refused => Standing::Ends,
        Readmission::Removed { until } if until.is_some_and(|at| at <= worker.timers.now()) => {
            Standing::Ends
        }
        // Looked up again whenever the connection's task runs: the end of a drain comes without a
        // snapshot.
        Readmission::Removed { .. } => Standing::Drains,
        Readmission::By(..) => {
            checked.0.set(Some(snapshot.generation));
            Standing::Stays
        }
    }
}

/// Whether a snapshot that was published since the connection was accepted refuses it. To be called
/// before anything is done for it, because its first bytes and its handshake may have taken long.
pub(crate) fn is_refused_by_now(worker: &Worker, subject: &PolicySubject<'_>) -> bool {
    let snapshot = worker.store.borrow();
    let newest = snapshot.listeners.get(&subject.listener.def.name);
    newest.is_some_and(|newest| !Arc::ptr_eq(&newest.def, &subject.listener.def))
        && matches!(readmit(&snapshot, subject), Readmission::Refused)
}

/// Whether `snapshot` would accept an open connection, and by which chain: its listener has a chain
/// for it with the same kind of terminal filter, which accepts its TLS, and whose network filters
/// allow it.
pub fn readmit<'a>(snapshot: &'a Snapshot, subject: &PolicySubject<'a>) -> Readmission<'a> {
    let Some(listener) = snapshot.listeners.get(&subject.listener.def.name) else {
        // One that is not draining any more was removed too long ago.
        return match snapshot.removed.until(&subject.listener.def.name) {
            Some(until) => Readmission::Removed { until },
            None => Readmission::Refused,
        };
    };
    // If the listener has not changed, it would choose the same chain. The peer's certificate is
    // evaluated again all the same.
    let chain = if Arc::ptr_eq(&listener.def, &subject.listener.def) {
        Some(subject.chain)
    } else {
        chain_now(&listener.def, subject).map(|chain| &**chain)
    };
    match chain {
        Some(chain) if accepts(chain, subject) => Readmission::By(listener, chain),
        _ => Readmission::Refused,
    }
}

fn accepts(chain: &FilterChain, subject: &PolicySubject<'_>) -> bool {
    let is_allowed = || authorise(subject.addresses, chain, subject.tls, sni(subject)).is_ok();
    if std::ptr::eq(chain, subject.chain) {
        // Without TLS only addresses are evaluated, which do not change.
        return subject.tls.is_none() || is_allowed();
    }
    chain.terminal.is_alike(&subject.chain.terminal) && accepts_tls(chain, subject) && is_allowed()
}

/// Whether the chain's TLS context would accept the connection's peer.
fn accepts_tls(chain: &FilterChain, subject: &PolicySubject<'_>) -> bool {
    match (&subject.chain.tls, &chain.tls) {
        (None, None) => true,
        (Some(own), Some(now)) => {
            Arc::ptr_eq(own, now)
                || own.is_as_strict_as(now)
                || subject.tls.is_some_and(|tls| now.accepts(tls))
        }
        _ => false,
    }
}

/// The server name of the ClientHello that was detected, also where TLS is passed through.
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
