//! The authorisation of a request: the rules that apply and their decision, and the decision of
//! newer rules while the request is open.

use std::sync::Arc;

use crate::config::filter::FilterConfig;
use crate::config::policy::Rbac;
use crate::config::route::Route;
use crate::http::connection::conn::{Conn, Resolved};
use crate::http::request::error::Failure;
use crate::http::request::stream_info::{AuthorisedHead, Downstream, RouteChoice, StreamInfo};
use crate::http::request::{plan, target};
use crate::matcher::HeaderName;
use crate::message::head::{Head, HeaderId};
use crate::message::path::Readings;
use crate::policy::{self, Denial, Facts};

/// A filter's rules: its own, or the route's override of them.
pub fn rules<'a>(own: &'a Rbac, of_route: Option<&'a FilterConfig>) -> &'a Rbac {
    match of_route {
        Some(FilterConfig::Rbac(rules)) => rules,
        _ => own,
    }
}

/// The decision of the rules on a request with this head; `connection`: what is known of its
/// connection.
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
    if decision.shadow_denied.is_some() {
        metrics.rbac_shadow_denied.inc();
    }
    match decision.denied {
        None => Ok(()),
        Some(by) => {
            metrics.rbac_denied.inc();
            Err(denied(&by))
        }
    }
}

/// Why an open request must end: its connection would not be admitted any more, the drain of its
/// listener is over, or the filters now in force refuse it. Rules that have already allowed it are not evaluated again.
pub(in crate::http) fn revoked(conn: &Conn, info: &StreamInfo) -> Option<Failure> {
    let resolved = conn.resolve();
    if resolved.is_denied {
        return Some(Failure::Denied("connection".into()));
    }
    if conn.is_drained(&resolved) {
        let received = info.times.request_received.is_some();
        return Some(Failure::StreamDuration { received });
    }
    let version = resolved.rules_version;
    if info.authorised_by.replace(version) == version || !resolved.manager.authorises() {
        return None;
    }
    let refused = refused_by_now(conn, &resolved, info);
    if refused.is_some() {
        info.downstream.listener.def.metrics.rbac_denied.inc();
    }
    refused
}

#[cold]
fn refused_by_now(conn: &Conn, resolved: &Resolved, info: &StreamInfo) -> Option<Failure> {
    let (manager, local) = (&resolved.manager, info.downstream.local);
    let (mut head, is_lost) = match &info.authorised {
        AuthorisedHead::Unedited => (Head::clone(&info.request), false),
        AuthorisedHead::Copied(head) => (Head::clone(head), false),
        AuthorisedHead::Lost => (Head::clone(&info.request), true),
    };
    let name = target::authority(&mut head, manager, local, &mut conn.authority.borrow_mut());
    let route = name
        .ok()
        .and_then(|name| route_by_now(resolved, info, &name, &head));
    let overrides = route.and_then(|route| super::overrides(&route, info.draw).cloned());
    let connection = Facts {
        remote: info.client.ip(),
        metadata: info.filters.metadata(),
        ..facts(&info.downstream)
    };
    manager.filters.iter().find_map(|filter| {
        let (FilterConfig::Rbac(own), of_route) = filter.on_route(overrides.as_deref())? else {
            return None;
        };
        let rules = rules(own, of_route);
        if is_lost && rules.enforced.is_some() {
            return Some(Failure::Denied("its request was not kept".into()));
        }
        let denial = evaluate(rules, &head, connection).denied?;
        Some(denied(&denial))
    })
}

/// The route whose overrides of filters apply to an open request: its own while the table that it
/// was chosen from is in force, else the one that the present table gives it by the same draw.
fn route_by_now(
    resolved: &Resolved,
    info: &StreamInfo,
    authority: &str,
    head: &Head,
) -> Option<Arc<Route>> {
    let routes = resolved.routes.as_ref()?;
    let own = info.route_config.as_ref();
    if own.is_some_and(|own| Arc::ptr_eq(&own.table, &routes.table)) {
        return info.route.clone();
    }
    let by_metadata = info.route_choice == RouteChoice::AfterFilters;
    let metadata = info.filters.metadata().filter(|_| by_metadata);
    let planned = plan::plan(routes, authority, head, metadata, info.draw).ok()?;
    Some(planned.route)
}

fn denied(by: &Denial) -> Failure {
    Failure::Denied(by.policy().unwrap_or("none").into())
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
