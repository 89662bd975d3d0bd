//! The configuration that is explained and served.

use std::net::SocketAddr;
use std::sync::Arc;

use anyam_proxy::config::ClusterRef;
use anyam_proxy::config::filter::HttpFilter;
use anyam_proxy::config::http::StripPort;
use anyam_proxy::config::policy::{Permission, Principal, RbacAction};
use anyam_proxy::config::route::{
    Action, ClusterSpecifier, HeaderEdits, PathMatch, PathRewrite, Redirect, Route, RouteTable,
    VirtualHost,
};
use anyam_proxy::matcher::{HeaderMatch, HeaderName, QueryMatch, StringMatch, ValueMatch};
use anyam_proxy::message::path::{EscapedSlashes, Fragment, PathOptions};

use crate::harness::{Setup, route};
use crate::settings::{forward, rbac, rules};

pub fn named(name: &str, test: ValueMatch) -> HeaderMatch {
    HeaderMatch {
        name: HeaderName::parse(name).unwrap(),
        test,
        invert: false,
        treat_missing_as_empty: false,
    }
}

pub fn exact(value: &str) -> StringMatch {
    StringMatch::Exact {
        value: value.into(),
        ignore_case: false,
    }
}

pub fn one(name: &str, prefix: &str, action: Action, headers: Vec<HeaderMatch>) -> Route {
    let mut one = Arc::into_inner(route(PathMatch::Prefix(prefix.into()), action)).unwrap();
    one.name = name.into();
    one.matches.headers = headers;
    one
}

pub fn direct(status: u16) -> Action {
    Action::Direct {
        status,
        body: name(status).into(),
    }
}

pub fn name(status: u16) -> String {
    format!("direct {status}")
}

pub fn routes(table: &mut RouteTable) {
    let mut gone = forward();
    gone.target = ClusterSpecifier::Cluster(ClusterRef(9));
    gone.cluster_not_found = 500;
    let mut query = one("query", "/query", direct(207), Vec::new());
    query.matches.query.push(QueryMatch {
        name: "v".into(),
        test: ValueMatch::String(exact("1")),
    });
    let redirect = Redirect {
        status: 301,
        scheme: None,
        host: None,
        port: None,
        keeps_port: false,
        path: PathRewrite::Full("/app".into()),
        strip_query: false,
    };
    let two = named("x-kind", ValueMatch::String(exact("two")));
    let present = |name| vec![named(name, ValueMatch::Present)];
    let shop = vec![
        one("teapot", "/teapot", direct(418), Vec::new()),
        one("forged", "/", direct(298), present("x-envoy-internal")),
        one(
            "forged",
            "/",
            direct(299),
            present("x-forwarded-client-cert"),
        ),
        one("two", "/direct", direct(203), vec![two]),
        one("direct", "/direct", direct(202), Vec::new()),
        one(
            "redirect",
            "/redirect",
            Action::Redirect(Box::new(redirect)),
            Vec::new(),
        ),
        one("gone", "/gone", Action::Forward(Box::new(gone)), Vec::new()),
        query,
        one(
            "app",
            "/app",
            Action::Forward(Box::new(forward())),
            Vec::new(),
        ),
        one(
            "admin",
            "/admin",
            Action::Forward(Box::new(forward())),
            Vec::new(),
        ),
    ];
    let wild = vec![one("wild", "/", direct(206), Vec::new())];
    let host = |name: &str, routes: Vec<Route>| VirtualHost {
        name: name.into(),
        routes: routes.into_iter().map(Arc::new).collect(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        rate_limits: Vec::new(),
        include_attempt_count: false,
        include_attempt_count_in_response: false,
    };
    let all = table.virtual_hosts.pop().unwrap();
    table.virtual_hosts = vec![host("shop", shop), host("wild", wild), all];
    table.exact.insert("shop".into(), 0);
    table.exact.insert("admin.shop".into(), 2);
    table.suffix.push((".wild".into(), 1));
    table.any = None;
}

/// Denies the path `/admin` and the host `admin.shop`.
pub fn deny_admin() -> HttpFilter {
    let path = StringMatch::Prefix {
        value: "/admin".into(),
        ignore_case: false,
    };
    let host = named(":authority", ValueMatch::String(exact("admin.shop")));
    let permissions = vec![Permission::UrlPath(path), Permission::Header(host)];
    rbac(rules(
        RbacAction::Deny,
        "admin",
        permissions,
        Principal::Any,
    ))
}

pub fn setup(upstream: SocketAddr, which: usize) -> Setup {
    Setup::new(upstream).with(|setup| {
        setup.adjust_routes = routes;
        setup.manager.filters = vec![deny_admin()];
        let strict = PathOptions {
            normalize: true,
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::Reject,
            fragment: Fragment::Reject,
        };
        (setup.manager.path, setup.manager.strip_port) = match which {
            0 => (PathOptions::default(), StripPort::Keep),
            1 => (strict, StripPort::Matching),
            _ => {
                let escaped_slashes = EscapedSlashes::UnescapeAndRedirect;
                let fragment = Fragment::Strip;
                let redirecting = PathOptions {
                    escaped_slashes,
                    fragment,
                    ..strict
                };
                (redirecting, StripPort::Any)
            }
        };
        setup.manager.strip_trailing_host_dot = which > 0;
    })
}
