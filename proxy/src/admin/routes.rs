//! Which path does what.
//!
//! A browser on the same machine can be made to send requests to loopback by any web page. So the
//! Host of a connection to loopback must be an address or `localhost`: another name may be a web
//! page's that was rebound to it. On other addresses any name is accepted, as scrapers use them. A
//! request that changes something must be a POST that no web page sent.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode, header};
use hyper::Response;
use hyper::body::Bytes;

use super::merged::{merged, own};
use super::pages::Page;
use super::query::{AdminQuery, PageError};
use super::surface::Surface;
use super::{Admin, ServerState};

type Answer = Response<Bytes>;

/// Below it are the app's probes and hooks.
pub(super) const APP_HEALTH: &str = "/app-health/";

/// `local`: our end of the connection.
pub(super) async fn answer(
    surface: Surface,
    admin: &Arc<Admin>,
    local: IpAddr,
    head: &Parts,
) -> Answer {
    let path = head.uri.path();
    match surface {
        Surface::Metrics if is_scrape(path) => metrics_page(admin, head).await,
        Surface::Health | Surface::Status if path == "/healthz/ready" => ready(admin),
        Surface::Status => status_page(admin, head).await,
        Surface::Admin => admin_page(admin, local, head).await,
        Surface::Metrics | Surface::Health => text(StatusCode::NOT_FOUND, "no such page\n"),
    }
}

fn is_scrape(path: &str) -> bool {
    path == "/stats/prometheus" || path == "/metrics"
}

fn only_reads(head: &Parts) -> bool {
    [Method::GET, Method::HEAD].contains(&head.method)
}

async fn metrics_page(admin: &Arc<Admin>, head: &Parts) -> Answer {
    let query = head.uri.query().unwrap_or_default();
    if query.is_empty() && only_reads(head) {
        return respond(StatusCode::OK, own(admin).await);
    }
    if !admin.scrapes.may_select() {
        let why = "too many requests with parameters; those without are always answered\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    read(admin, "/stats/prometheus", query, head).await
}

async fn status_page(admin: &Arc<Admin>, head: &Parts) -> Answer {
    let (Some(prober), true) = (&admin.prober, only_reads(head)) else {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    };
    let path = head.uri.path();
    if is_scrape(path) {
        return respond(StatusCode::OK, merged(admin, &head.headers).await);
    }
    let performed = match path.strip_prefix(APP_HEALTH) {
        Some(path) => prober.perform(path).await,
        None => None,
    };
    match performed {
        Some(outcome) => text(outcome.status, &format!("{}\n", outcome.message)),
        None => text(
            StatusCode::NOT_FOUND,
            "no such page, and no such probe of the app\n",
        ),
    }
}

async fn admin_page(admin: &Admin, local: IpAddr, head: &Parts) -> Answer {
    if !is_own_host(head, local) {
        let why = "on loopback the Host header must be an IP address or localhost\n";
        return text(StatusCode::FORBIDDEN, why);
    }
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    if path == "/ready" {
        return ready(admin);
    }
    if changes_something(path, query) {
        return match (head.method == Method::POST, is_from_a_web_page(head)) {
            (true, false) => change(admin, path, query),
            (true, true) => text(StatusCode::FORBIDDEN, "not from a web page\n"),
            (false, _) => {
                let why = format!("{path} changes something: use POST, as in `curl -X POST`\n");
                text(StatusCode::METHOD_NOT_ALLOWED, &why)
            }
        };
    }
    read(admin, path, query, head).await
}

async fn read(admin: &Admin, path: &str, query: &str, head: &Parts) -> Answer {
    // Envoy answers /logging and the like to GET and POST; pages that only show do no harm.
    if ![Method::GET, Method::HEAD, Method::POST].contains(&head.method) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    }
    match admin.page(path, query).await {
        Ok(page) => respond(StatusCode::OK, page),
        Err(PageError { status, why }) => text(status, &format!("{why}\n")),
    }
}

fn changes_something(path: &str, query: &str) -> bool {
    match path {
        "/drain" | "/drain_listeners" | "/quitquitquit" | "/healthcheck/fail"
        | "/healthcheck/ok" | "/reopen_logs" => true,
        "/logging" => !query.is_empty(),
        _ => false,
    }
}

fn change(admin: &Admin, path: &str, query: &str) -> Answer {
    match path {
        "/drain" | "/drain_listeners" if inbound_only(query) => admin.drain.begin_inbound(),
        "/drain" | "/drain_listeners" => admin.drain.begin(),
        "/quitquitquit" => admin.drain.quit(),
        "/healthcheck/fail" => admin.drain.set_failed(true),
        "/healthcheck/ok" => admin.drain.set_failed(false),
        "/reopen_logs" => admin.sinks.reopen(),
        _ => return set_levels(admin, query),
    }
    tracing::info!(path, "admin");
    text(StatusCode::OK, "OK\n")
}

/// Envoy's `?inboundonly`; any value counts as true.
fn inbound_only(query: &str) -> bool {
    AdminQuery::parse(query)
        .iter()
        .any(|(name, _)| name == "inboundonly")
}

fn set_levels(admin: &Admin, query: &str) -> Answer {
    for (name, value) in AdminQuery::parse(query).iter() {
        let done = match name {
            "level" => admin.logging.set_all(value),
            "paths" => value.split(',').try_for_each(|part| {
                let (module, level) = part.split_once(':').unwrap_or((part, ""));
                admin.logging.set_module(module, level)
            }),
            module => admin.logging.set_module(module, value),
        };
        if let Err(error) = done {
            return text(StatusCode::BAD_REQUEST, &format!("{error}\n"));
        }
    }
    text(StatusCode::OK, &format!("{}\n", admin.logging.current()))
}

fn ready(admin: &Admin) -> Answer {
    let state = admin.state();
    let mut body = format!("{}\n", state.label());
    if state == ServerState::Initializing {
        for missing in admin.missing() {
            body.push_str(&format!("waiting for {missing}\n"));
        }
    }
    match state {
        ServerState::Live => text(StatusCode::OK, &body),
        _ => text(StatusCode::SERVICE_UNAVAILABLE, &body),
    }
}

fn is_own_host(head: &Parts, local: IpAddr) -> bool {
    if !local.to_canonical().is_loopback() {
        return true;
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn is_from_a_web_page(head: &Parts) -> bool {
    head.headers.contains_key(header::ORIGIN)
        || head
            .headers
            .get("sec-fetch-site")
            .is_some_and(|site| site != "none")
}

fn text(status: StatusCode, body: &str) -> Answer {
    respond(status, Page::text(body.as_bytes().to_vec()))
}

fn respond(status: StatusCode, page: Page) -> Answer {
    let mut response = Response::new(page.body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let value = http::HeaderValue::from_static;
    headers.insert(header::CONTENT_TYPE, value(page.content_type));
    headers.insert(header::CACHE_CONTROL, value("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    response
}
