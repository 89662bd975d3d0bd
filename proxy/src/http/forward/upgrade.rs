//! Upgrades and CONNECT: what is allowed, and how one protocol's handshake becomes another's.
//!
//! HTTP/1 asks with `Upgrade`, HTTP/2 with an extended CONNECT (RFC 8441), of which its codec makes
//! a GET with `Upgrade`; either side may be either. Bytes that follow the request wait until the
//! answer agrees.

use aws_lc_rs::digest;

use super::upstream::UpstreamIo;
use crate::config::http::HttpConnectionManager;
use crate::config::route::RouteAction;
use crate::http::h1::{BodyLength, Framing, ResponseInfo, Tunnel};
use crate::http::message::head::{Head, HeaderId, Method, Version};
use crate::http::request::error::Failure;

/// RFC 6455 1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether what the request asks for is allowed. Of several protocols in its `Upgrade` fields, the
/// first that is allowed stays, so that the upstream can choose no other.
pub fn allow(
    head: &mut Head,
    framing: &Framing,
    forward: &RouteAction,
    manager: &HttpConnectionManager,
) -> bool {
    match framing.tunnel {
        Tunnel::None => true,
        Tunnel::Connect => is_allowed("connect", forward, manager),
        Tunnel::Upgrade => {
            let tokens = head
                .get_all(HeaderId::Upgrade)
                .flat_map(|value| value.split(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii);
            let mut allowed = tokens.filter(|token| {
                let kind = String::from_utf8_lossy(token).to_ascii_lowercase();
                is_allowed(&kind, forward, manager)
            });
            let Some(chosen) = allowed.next().map(<[u8]>::to_vec) else {
                return false;
            };
            head.set(HeaderId::Upgrade, &chosen);
            true
        }
    }
}

/// The route decides; what it does not name, the manager decides.
fn is_allowed(kind: &str, forward: &RouteAction, manager: &HttpConnectionManager) -> bool {
    let of_route = forward.upgrades.iter().find(|rule| *rule.kind == *kind);
    of_route.map_or_else(
        || manager.upgrades.iter().any(|allowed| **allowed == *kind),
        |rule| rule.enabled,
    )
}

/// CONNECT ends here: its bytes go upstream as plain TCP.
pub fn terminates_here(forward: &RouteAction, framing: &Framing) -> bool {
    framing.tunnel == Tunnel::Connect
        && forward
            .upgrades
            .iter()
            .any(|rule| &*rule.kind == "connect" && rule.enabled && rule.terminate_connect)
}

/// The answer to a CONNECT that ends here.
pub fn accept_connect(head: &mut Head) -> ResponseInfo {
    head.clear();
    head.set_status(200);
    ResponseInfo {
        body: BodyLength::Unknown,
        keep_alive: false,
        interim: false,
        tunnel: true,
    }
}

/// Sends a request's head, in the upstream protocol's way of asking for what it asks for.
pub fn send_head(up: &mut UpstreamIo, request: &Head, framing: &Framing) -> Result<(), Failure> {
    let body = match framing.tunnel {
        Tunnel::None => framing.body,
        Tunnel::Upgrade | Tunnel::Connect => BodyLength::None,
    };
    match up {
        UpstreamIo::H1(_) if lacks_key(request, framing) => {
            up.head(&with_key(request), body, framing)
        }
        _ => up.head(request, body, framing),
    }
}

/// HTTP/2 has no `Sec-WebSocket-Key`, HTTP/1 demands one (RFC 8441 5).
fn lacks_key(request: &Head, framing: &Framing) -> bool {
    let websocket = |name: &[u8]| name.eq_ignore_ascii_case(b"websocket");
    request.version() == Version::Http2
        && framing.tunnel == Tunnel::Upgrade
        && request.get(HeaderId::Upgrade).is_some_and(websocket)
}

fn with_key(request: &Head) -> Head {
    let mut head = request.clone();
    let nonce: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    head.set_named(b"Sec-WebSocket-Key", &base64(&nonce));
    head
}

/// Over HTTP/2 every 2xx agrees to an upgrade (RFC 8441 5), so one of an upstream that did not agree
/// must not reach the client.
///
/// # Errors
/// When the response is such a one.
pub fn check_answer(
    request: &Head,
    framing: &Framing,
    answer: &ResponseInfo,
    response: &Head,
) -> Result<(), Failure> {
    let asked = framing.tunnel == Tunnel::Upgrade && request.version() == Version::Http2;
    match asked && !answer.tunnel && matches!(response.status(), 200..=299) {
        true => Err(Failure::Unsupported(
            "the upstream does not take this upgrade",
        )),
        false => Ok(()),
    }
}

/// Turns the response to an upgrade into what the client's protocol calls agreement.
pub fn answer(request: &Head, response: &mut Head) {
    let by_h1 = request.version() != Version::Http2;
    if by_h1 && request.method() != Method::Connect && matches!(response.status(), 200..=299) {
        response.set_status(101);
        if let Some(kind) = request.get(HeaderId::Upgrade) {
            response.set(HeaderId::Upgrade, kind);
        }
        if let Some(key) = request.get_by_name(b"sec-websocket-key") {
            response.set_named(b"Sec-WebSocket-Accept", &websocket_accept(key));
        }
    }
    if !by_h1 {
        response.remove(HeaderId::Upgrade);
    }
    response.remove(HeaderId::ContentLength);
}

fn websocket_accept(key: &[u8]) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(WEBSOCKET_GUID);
    base64(hash.finish().as_ref())
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            if digit <= three.len() {
                text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]);
            } else {
                text.push(b'=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_rfc_6455() {
        let accept = websocket_accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(base64(b"a"), b"YQ==");
        assert_eq!(base64(b"ab"), b"YWI=");
    }
}
