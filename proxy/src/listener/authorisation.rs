//! The network RBAC filters of a chain, evaluated for a connection.

use super::refused::Refused;
use crate::config::listener::FilterChain;
use crate::policy::{self, Addresses, Facts, RbacDecision};
use crate::tls::ConnectionInfo;

/// The decisions of the chain's network RBAC filters, in order, up to the first that refuses.
pub(crate) fn decisions<'a>(
    addresses: Addresses,
    chain: &'a FilterChain,
    tls: Option<&'a ConnectionInfo>,
    sni: Option<&'a str>,
) -> impl Iterator<Item = RbacDecision> + 'a {
    let facts = Facts {
        tls,
        direct_remote: addresses.peer.ip(),
        remote: addresses.peer.ip(),
        destination: addresses.destination,
        sni: tls.and_then(|tls| tls.sni.as_deref()).or(sni),
        request: None,
        metadata: None,
    };
    let mut is_refused = false;
    chain.rbac.iter().map_while(move |rbac| {
        if is_refused {
            return None;
        }
        let decision = policy::evaluate(rbac, &facts);
        is_refused = decision.denied.is_some();
        Some(decision)
    })
}

/// Evaluates the chain's network RBAC filters. True: shadow rules would have denied.
pub(crate) fn authorise(
    addresses: Addresses,
    chain: &FilterChain,
    tls: Option<&ConnectionInfo>,
    sni: Option<&str>,
) -> Result<bool, Refused> {
    let mut shadow_denied = false;
    for decision in decisions(addresses, chain, tls, sni) {
        shadow_denied |= decision.shadow_denied.is_some();
        if let Some(by) = decision.denied {
            let by = by.policy().unwrap_or("none (nothing allows it)").into();
            let peer = tls.and_then(|tls| tls.peer.clone());
            return Err(Refused::Denied { by, peer });
        }
    }
    Ok(shadow_denied)
}
