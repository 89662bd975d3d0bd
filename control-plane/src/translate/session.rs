//! Session persistence of a route (GEP-1619) as Envoy's filter has it. The filter is in the chain of
//! listeners whose routes use it, where only these routes switch it on.

use std::time::Duration;

use xds_proto::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds_proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use xds_proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use xds_proto::envoy::r#type::http::v3::Cookie;
use xds_proto::google::protobuf::Any;

use super::http::http_filter;
use super::proto::{duration, extension, typed};
use crate::model::manifest::balancing::is_cookie_path;
use crate::model::manifest::route::{PathMatch, Route, Rule, SessionCarrier, SessionPersistence};

/// In the filter chain, and in routes.
pub const NAME: &str = "envoy.filters.http.stateful_session";

pub fn filter() -> HttpFilter {
    HttpFilter {
        disabled: true,
        ..http_filter(NAME, typed(&StatefulSession::default()))
    }
}

/// The configuration of a rule of `owner`.
pub fn policy(owner: &Route, rule: &Rule, session: &SessionPersistence) -> Any {
    let name = session
        .name
        .clone()
        .unwrap_or_else(|| default_name(owner, rule));
    let state = match session.carrier {
        SessionCarrier::Header => extension(
            "envoy.http.stateful_session.header",
            &HeaderBasedSessionState { name },
        ),
        SessionCarrier::Cookie { lasts } => {
            let cookie = Cookie {
                name,
                ttl: duration(lasts.unwrap_or(Duration::ZERO)),
                path: cookie_path(rule).to_owned(),
                ..Cookie::default()
            };
            let state = CookieBasedSessionState {
                cookie: Some(cookie),
            };
            extension("envoy.http.stateful_session.cookie", &state)
        }
    };
    let session = StatefulSession {
        session_state: Some(state),
        ..StatefulSession::default()
    };
    typed(&StatefulSessionPerRoute {
        r#override: Some(Override::StatefulSession(session)),
    })
}

/// Another for each rule, so that their sessions do not replace each other.
fn default_name(owner: &Route, rule: &Rule) -> String {
    let index = owner.rules.iter().position(|other| other == rule);
    let meta = &owner.meta;
    format!(
        "session-{}-{}-{}",
        meta.namespace,
        meta.name,
        index.unwrap_or(0)
    )
}

/// That of all the rule's matches, if it is one path; else all of the host.
fn cookie_path(rule: &Rule) -> &str {
    let Some(first) = rule.matches.first() else {
        return "/";
    };
    let is_one = rule.matches.iter().all(|other| other.path == first.path);
    match &first.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) if is_one && is_cookie_path(path) => path,
        _ => "/",
    }
}
