//! The authorisation step of a request: the rules that apply, and their decision.

use crate::config::filter::FilterConfig;
use crate::config::policy::Rbac;
use crate::http::request::error::Failure;
use crate::http::request::stream_info::{Downstream, StreamInfo};
use crate::matcher::HeaderName;
use crate::message::head::{Head, HeaderId};
use crate::message::path::Readings;
use crate::policy::{self, Facts};

/// A filter's rules: its own, or the route's override of them.
pub fn rules<'a>(own: &'a Rbac, of_route: Option<&'a FilterConfig>) -> &'a Rbac {
    match of_route {
        Some(FilterConfig::Rbac(rules)) => rules,
        _ => own,
    }
}

/// The decision of the rules on a request with this head; `connection`: the facts of its connection.
pub fn evaluate(rules: &Rbac, head: &Head, connection: Facts<'_>) -> policy::RbacDecision {
    let subject = Subject::of(head);
    let facts = Facts {
        request: Some(&subject),
        ..connection
    };
    policy::evaluate(rules, &facts)
}

/// Evaluates the rules for a request and counts the result.
///
/// # Errors
/// When the rules refuse it.
pub fn check(rules: &Rbac, info: &StreamInfo) -> Result<(), Failure> {
    let connection = Facts {
        remote: info.client.ip(),
        metadata: info.filters.metadata(),
        ..facts(&info.downstream)
    };
    let metrics = &info.downstream.listener.def.metrics;
    let decision = evaluate(rules, &info.request, connection);
    if decision.would_refuse.is_some() {
        metrics.rbac_shadow_denied.inc();
    }
    match decision.refused {
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
        metadata: None,
    }
}

/// A request as rules see it: the normalised path, the authority in lower case, every value of a
/// repeated header.
struct Subject<'a> {
    head: &'a Head,
    path: Readings<'a>,
}

impl<'a> Subject<'a> {
    fn of(head: &'a Head) -> Self {
        Self {
            head,
            path: Readings::of(head.path()),
        }
    }
}

impl policy::RequestFacts for Subject<'_> {
    fn path(&self) -> &Readings<'_> {
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
