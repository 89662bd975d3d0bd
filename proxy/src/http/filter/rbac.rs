//! The authorisation step of a request: which rules apply, and what they say.

use crate::config::listener::FilterChain;
use crate::config::policy::Rbac;
use crate::config::route::{RbacOverride, Route};
use crate::http::request::error::Failure;
use crate::http::request::stream_info::{Downstream, StreamInfo};
use crate::matcher::HeaderName;
use crate::message::head::{Head, HeaderId};
use crate::policy::{self, Facts};

/// Judges a request by one RBAC filter, or by what the route puts in its place.
///
/// # Errors
/// When the rules refuse it.
pub fn check(name: &str, filter: &Rbac, route: &Route, info: &StreamInfo) -> Result<(), Failure> {
    let rules = match route.rbac_for(name) {
        None => filter,
        Some(RbacOverride::Disabled) => return Ok(()),
        Some(RbacOverride::Replace(own)) => own,
    };
    let subject = Subject(&info.request);
    let facts = Facts {
        remote: info.client.ip(),
        request: Some(&subject),
        ..facts(&info.downstream)
    };
    let metrics = &info.downstream.listener.def.metrics;
    let verdict = policy::judge(rules, &facts);
    if verdict.would_refuse.is_some() {
        metrics.rbac_shadow_denied.inc();
    }
    match verdict.refused {
        None => Ok(()),
        Some(by) => {
            metrics.rbac_denied.inc();
            Err(Failure::Denied(by.as_deref().unwrap_or("none").into()))
        }
    }
}

/// Whether a chain's network filters still let the connection be. They let it in once; rules
/// change.
pub fn may_stay(chain: &FilterChain, downstream: &Downstream) -> bool {
    let facts = facts(downstream);
    chain
        .rbac
        .iter()
        .all(|rbac| policy::judge(rbac, &facts).refused.is_none())
}

fn facts(downstream: &Downstream) -> Facts<'_> {
    let tls = downstream.tls.as_deref();
    Facts {
        tls,
        direct_remote: downstream.peer.ip(),
        remote: downstream.peer.ip(),
        destination: downstream.local,
        sni: tls.and_then(|tls| tls.sni.as_deref()),
        request: None,
    }
}

/// A request as rules see it: the normalised path, the authority in lower case, every value of a
/// repeated header.
pub(crate) struct Subject<'a>(pub(crate) &'a Head);

impl policy::Request for Subject<'_> {
    fn path(&self) -> &[u8] {
        self.0.path()
    }

    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        if matches!(name.id, HeaderId::Host | HeaderId::PseudoAuthority) {
            let authority = self.0.authority();
            if !authority.is_empty() {
                each(&authority.to_ascii_lowercase());
            }
            return;
        }
        for value in self.0.get_all_named(name.id, name.name.as_bytes()) {
            each(value);
        }
    }
}
