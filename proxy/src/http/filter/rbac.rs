//! The authorisation step of a request: which rules apply, and what they say.

use crate::config::matcher::HeaderName;
use crate::config::policy::Rbac;
use crate::config::route::{RbacOverride, Route};
use crate::http::message::head::{Head, HeaderId};
use crate::http::message::path::readings;
use crate::http::request::error::Failure;
use crate::http::request::stream_info::{Downstream, StreamInfo};
use crate::policy::{self, Facts, PathReadings};

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
    let subject = Subject::of(&info.request);
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
pub(crate) struct Subject<'a> {
    head: &'a Head,
    path: PathReadings<'a>,
}

impl<'a> Subject<'a> {
    pub(crate) fn of(head: &'a Head) -> Self {
        Self {
            head,
            path: readings(head.path()),
        }
    }
}

impl policy::Request for Subject<'_> {
    fn path(&self) -> &PathReadings<'_> {
        &self.path
    }

    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        if matches!(name.id, HeaderId::Host | HeaderId::PseudoAuthority) {
            let authority = self.head.authority();
            if !authority.is_empty() {
                each(&authority.to_ascii_lowercase());
            }
            return;
        }
        for value in self.head.get_all_named(name.id, name.name.as_bytes()) {
            each(value);
        }
    }
}
