//! Cross-site request forgery: requests that change something must come from their own host's pages.
//! Source: Envoy's "CSRF" filter.

use std::borrow::Cow;

use crate::config::filter::{Csrf, CsrfPolicy, FilterConfig};
use crate::http::request::local_reply;
use crate::http::request::local_reply::Reply;
use crate::http::request::stream_info::StreamInfo;
use crate::matcher::StringMatch;
use crate::message::head::{Head, HeaderId, Method};

/// `Some`: the request comes from another origin, and is refused.
pub fn on_request(
    own: &Csrf,
    of_route: Option<&FilterConfig>,
    info: &mut StreamInfo,
) -> Option<Reply> {
    let policy: &CsrfPolicy = match of_route {
        Some(FilterConfig::CsrfOfRoute(of_route)) => of_route,
        _ => &own.policy,
    };
    let is_enforced = policy.enabled.draw();
    if !is_enforced && !policy.shadow.draw() || !changes(&info.request) {
        return None;
    }
    if is_allowed(own, policy, &info.request) || !is_enforced {
        return None;
    }
    let details = "csrf_origin_mismatch";
    Some(local_reply::answer(
        info,
        403,
        None,
        "Invalid origin",
        details,
    ))
}

/// Whether the request comes from an origin that may change something; counted.
fn is_allowed(own: &Csrf, policy: &CsrfPolicy, head: &Head) -> bool {
    let page = source(head);
    let source = host_of(&page);
    let is_additional = |origin: &StringMatch| origin.matches(source);
    if source.is_empty() {
        own.metrics.missing_source_origin.inc();
        return false;
    }
    let is_allowed =
        source == host_of(head.authority()) || policy.additional_origins.iter().any(is_additional);
    match is_allowed {
        true => own.metrics.request_valid.inc(),
        false => own.metrics.request_invalid.inc(),
    }
    is_allowed
}

fn changes(head: &Head) -> bool {
    matches!(
        head.method(),
        Method::Post | Method::Put | Method::Delete | Method::Patch
    )
}

/// Which page the request comes from; empty: it does not say, or the origin is opaque (RFC 6454, 7.3).
fn source(head: &Head) -> Cow<'_, [u8]> {
    let origin = joined(head, HeaderId::Origin);
    match &*origin {
        b"null" => Cow::Borrowed(b""),
        b"" => joined(head, HeaderId::Referer),
        _ => origin,
    }
}

/// The values of a header as one.
fn joined(head: &Head, id: HeaderId) -> Cow<'_, [u8]> {
    let mut values = head.get_all(id);
    let mut all = Cow::Borrowed(values.next().unwrap_or_default());
    for value in values {
        let all = all.to_mut();
        all.push(b',');
        all.extend_from_slice(value);
    }
    all
}

/// Host and port of a URL; what is none, as it is.
fn host_of(url: &[u8]) -> &[u8] {
    let Some(at) = memchr::memmem::find(url, b"://") else {
        return url;
    };
    let (scheme, rest) = url.split_at(at);
    let rest = rest.get(3..).unwrap_or_default();
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let mut parts = authority.split(|byte| *byte == b'@');
    let host: &[u8] = match (parts.next(), parts.next(), parts.next()) {
        (Some(host), None, _) | (_, Some(host), None) => host,
        _ => b"",
    };
    let is_plain = |byte: &u8| !b" #\\".contains(byte);
    let is_url = is_scheme(scheme) && !host.is_empty() && authority.iter().all(is_plain);
    if is_url { host } else { url }
}

/// RFC 3986, 3.1.
fn is_scheme(text: &[u8]) -> bool {
    let is_further = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    match text.split_first() {
        Some((first, rest)) => first.is_ascii_alphabetic() && rest.iter().all(is_further),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_what_envoy_takes_for_them() {
        let rows = [
            ("http://shop", "shop"),
            ("https://shop:8080/a?b", "shop:8080"),
            ("a1+-.b://shop?b", "shop"),
            ("http://user:secret@shop/", "shop"),
            ("http://@shop", "shop"),
            ("http://[::1]:80/", "[::1]:80"),
            ("shop:80", "shop:80"),
            ("http://", "http://"),
            ("http:///shop", "http:///shop"),
            ("1http://shop", "1http://shop"),
            ("://shop", "://shop"),
            ("http://shop#x", "http://shop#x"),
            ("http://a@b@shop", "http://a@b@shop"),
            ("http://shop\\x", "http://shop\\x"),
        ];
        for (url, host) in rows {
            assert_eq!(host_of(url.as_bytes()), host.as_bytes(), "{url}");
        }
    }
}
