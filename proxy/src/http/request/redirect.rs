//! Where a redirect sends the client.

use super::rewrite;
use super::stream_info::StreamInfo;
use crate::config::route::{Redirect, Route};
use crate::message::head::HeaderId;

/// The `Location` of a redirect: what the rule does not change stays as in the request.
pub fn location(to: &Redirect, route: &Route, info: &StreamInfo) -> Vec<u8> {
    let request = &info.request;
    let proto = request.get(HeaderId::XForwardedProto);
    let was = proto.unwrap_or(request.scheme());
    let scheme = to.scheme.as_ref().map_or(was, |s| s.as_bytes());
    let mut location = scheme.to_vec();
    location.extend_from_slice(b"://");
    let (host, port) = split_port(request.authority());
    location.extend_from_slice(to.host.as_ref().map_or(host, |h| h.as_bytes()));
    if let Some(port) = to.port {
        let mut buffer = itoa::Buffer::new();
        let port = buffer.format(port).as_bytes();
        if !is_default(scheme, port) {
            location.push(b':');
            location.extend_from_slice(port);
        }
    } else if let Some(port) = port
        && to.host.is_none()
        && (to.keeps_port || !is_default(was, port) && !is_default(scheme, port))
    {
        location.push(b':');
        location.extend_from_slice(port);
    }
    let rewritten = rewrite::path(&to.path, &route.matches.path, info);
    let path = rewritten.as_deref().unwrap_or(request.path_and_query());
    let end = if to.strip_query && !to.path.has_query() {
        memchr::memchr(b'?', path).unwrap_or(path.len())
    } else {
        path.len()
    };
    location.extend_from_slice(path.split_at(end).0);
    location
}

fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let colon = memchr::memrchr(b':', authority).unwrap_or(authority.len());
    match authority.split_at(colon) {
        (host, [b':', port @ ..]) if !port.is_empty() && port.iter().all(u8::is_ascii_digit) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

fn is_default(scheme: &[u8], port: &[u8]) -> bool {
    matches!((scheme, port), (b"http", b"80") | (b"https", b"443"))
}
