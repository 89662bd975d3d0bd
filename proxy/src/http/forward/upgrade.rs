//! Upgrades and CONNECT: what is allowed, and how one protocol's handshake becomes another's.
//!
//! An HTTP/1 request has `Upgrade`; HTTP/2 has an extended CONNECT (RFC 8441), which its codec
//! turns into a GET with `Upgrade`. Client and upstream may use different versions. Bytes that
//! follow the request and its body stay unread until the response agrees.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::upstream::UpstreamIo;
use crate::config::http::HttpConnectionManager;
use crate::config::route::RouteAction;
use crate::http::h1::{BodyLength, Framing, ResponseInfo, TunnelRequest};
use crate::http::pool::Purpose;
use crate::http::request::error::Failure;
use crate::message::head::{Head, HeaderId, Method, Version};

/// RFC 6455 1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Checks a request's upgrade. Of the protocols in `Upgrade` the first that is allowed is kept and
/// the others are removed; when configuration names none of them, `Upgrade` is ignored and removed
/// (RFC 9110 7.8), also in `framing`.
///
/// # Errors
/// When configuration disables it and it cannot be ignored: CONNECT, and HTTP/2's form.
pub fn check(
    head: &mut Head,
    framing: &mut Framing,
    forward: &RouteAction,
    manager: &HttpConnectionManager,
) -> Result<(), Failure> {
    let must = match framing.tunnel {
        TunnelRequest::None => return Ok(()),
        TunnelRequest::Connect => Some(b"connect".as_slice()),
        TunnelRequest::Upgrade if head.version() == Version::Http2 => head.get(HeaderId::Upgrade),
        TunnelRequest::Upgrade => None,
    };
    if let Some(kind) = must {
        return match is_allowed(kind, forward, manager) {
            Some(true) => Ok(()),
            Some(false) | None => Err(Failure::UpgradeRefused),
        };
    }
    let mut refused = false;
    let mut chosen = None;
    for kind in head.get_all(HeaderId::Upgrade).flat_map(protocols) {
        match is_allowed(kind, forward, manager) {
            Some(true) => {
                chosen = Some(kind.to_vec());
                break;
            }
            Some(false) => refused = true,
            None => {}
        }
    }
    match chosen {
        Some(kind) => head.set(HeaderId::Upgrade, &kind),
        None if refused => return Err(Failure::UpgradeRefused),
        None => {
            framing.tunnel = TunnelRequest::None;
            head.remove(HeaderId::Upgrade);
        }
    }
    Ok(())
}

/// The members of an `Upgrade` list.
fn protocols(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// The route's setting, else the manager's. `None`: neither names it.
fn is_allowed(kind: &[u8], forward: &RouteAction, manager: &HttpConnectionManager) -> Option<bool> {
    let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
    let of_route = forward.upgrades.iter().find(|rule| is(&rule.kind));
    let allowed = of_route.map(|rule| rule.enabled);
    allowed.or_else(|| manager.upgrades.iter().any(|name| is(name)).then_some(true))
}

/// Whether it is an HTTP/1 upgrade request with a body, which comes before the new protocol.
pub fn follows_body(head: &Head, framing: &Framing) -> bool {
    framing.tunnel == TunnelRequest::Upgrade
        && head.version() != Version::Http2
        && !matches!(framing.body, BodyLength::None | BodyLength::Known(0))
}

/// What a request needs of its connection. An extended CONNECT has no other method than GET and no
/// body, so an HTTP/1 upgrade with one of these (docker's) is forwarded over HTTP/1.
pub fn purpose(head: &Head, forward: &RouteAction, framing: &Framing) -> Purpose {
    match framing.tunnel {
        TunnelRequest::Connect if terminates_here(forward, framing) => Purpose::Raw,
        TunnelRequest::Upgrade
            if head.version() != Version::Http2
                && (head.method() != Method::Get || follows_body(head, framing)) =>
        {
            Purpose::Http1Upgrade
        }
        TunnelRequest::Upgrade => Purpose::Upgrade,
        TunnelRequest::None | TunnelRequest::Connect => Purpose::Exchange,
    }
}

/// Whether CONNECT is terminated here: its bytes go upstream as plain TCP.
pub fn terminates_here(forward: &RouteAction, framing: &Framing) -> bool {
    framing.tunnel == TunnelRequest::Connect
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

/// Sends a request's head; an upgrade in the form of the upstream's protocol.
pub fn send_head(up: &mut UpstreamIo, request: &Head, framing: &Framing) -> Result<(), Failure> {
    let body = match framing.tunnel {
        TunnelRequest::None => framing.body,
        TunnelRequest::Upgrade if follows_body(request, framing) => framing.body,
        TunnelRequest::Upgrade | TunnelRequest::Connect => BodyLength::None,
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
        && framing.tunnel == TunnelRequest::Upgrade
        && request.get(HeaderId::Upgrade).is_some_and(websocket)
}

fn with_key(request: &Head) -> Head {
    let mut head = request.clone();
    let nonce: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    head.set_named(b"Sec-WebSocket-Key", STANDARD.encode(nonce).as_bytes());
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
    let asked = framing.tunnel == TunnelRequest::Upgrade && request.version() == Version::Http2;
    match asked && !answer.tunnel && matches!(response.status(), 200..=299) {
        true => Err(Failure::Unsupported(
            "the upstream does not take this upgrade",
        )),
        false => Ok(()),
    }
}

/// Turns the response to an upgrade into the form of the client's protocol.
pub fn answer(request: &Head, response: &mut Head) {
    let by_h1 = request.version() != Version::Http2;
    if by_h1 && request.method() != Method::Connect && matches!(response.status(), 200..=299) {
        response.set_status(101);
        if let Some(kind) = request.get(HeaderId::Upgrade) {
            response.set(HeaderId::Upgrade, kind);
        }
        if let Some(key) = request.get_by_name(b"sec-websocket-key") {
            response.set_named(b"Sec-WebSocket-Accept", websocket_accept(key).as_bytes());
        }
    }
    if !by_h1 {
        response.remove(HeaderId::Upgrade);
    }
    response.remove(HeaderId::ContentLength);
}

fn websocket_accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(WEBSOCKET_GUID);
    STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_rfc_6455() {
        let accept = websocket_accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
