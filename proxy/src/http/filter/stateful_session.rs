//! Sessions: the first response names its endpoint in a cookie or header, and the requests that bring
//! it back go there. Source: Envoy's "Stateful session" filter, whose cookies and headers these are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{FilterState, StreamFilters};
use crate::config::filter::{FilterConfig, SessionCookie, SessionState, StatefulSession};
use crate::http::request::stream_info::StreamInfo;
use crate::message::cookie;
use crate::message::head::Head;
use crate::upstream::cluster::SessionEndpoint;

/// Decoded bytes of a cookie or header that names an endpoint.
const LONGEST: usize = 128;
/// Expiry times below this are no seconds since 1970: Envoy counts from when its machine was started.
const CLOCK_TIME: u64 = 1_000_000_000;
/// In place of what is no address: no endpoint has it.
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// The session of a request.
pub struct StreamSession {
    settings: Arc<StatefulSession>,
    /// The endpoint that the request names.
    named: Option<SocketAddr>,
}

pub fn on_request(
    own: &Option<Arc<StatefulSession>>,
    of_route: Option<&FilterConfig>,
    place: usize,
    info: &mut StreamInfo,
) {
    let settings = match of_route {
        Some(FilterConfig::StatefulSession(of_route)) => of_route,
        _ => own,
    };
    let Some(settings) = settings else {
        return;
    };
    let named = match &settings.state {
        SessionState::Cookie(cookie) if !cookie.is_for(info.request.path()) => return,
        SessionState::Cookie(cookie) => of_cookie(cookie, &info.request),
        SessionState::Header(name) => {
            let mut values = info.request.get_all_named(name.id, name.name.as_bytes());
            values.next().and_then(|value| decoded(value, address))
        }
    };
    let settings = settings.clone();
    let session = FilterState::StatefulSession(StreamSession { settings, named });
    info.filters.states.push((place, session));
}

/// Names the endpoint that was chosen, unless the request named it.
pub fn on_response(place: usize, info: &mut StreamInfo) {
    let (Some(endpoint), Some(FilterState::StatefulSession(session))) =
        (&info.endpoint, info.filters.state(place))
    else {
        return;
    };
    if session.named == Some(endpoint.address) {
        return;
    }
    match &session.settings.state {
        SessionState::Cookie(cookie) => {
            let value = made(cookie, endpoint.address);
            let id = crate::message::head::HeaderId::SetCookie;
            info.response.append(id, &value);
        }
        SessionState::Header(name) => {
            let value = STANDARD.encode(endpoint.address.to_string());
            info.response
                .set_named(name.name.as_bytes(), value.as_bytes());
        }
    }
}

impl StreamFilters {
    /// The endpoint of the request's session, and the status when a strict one is gone.
    pub fn session(&self) -> Option<(SessionEndpoint, u16)> {
        self.states.iter().rev().find_map(|(_, state)| {
            let FilterState::StatefulSession(session) = state else {
                return None;
            };
            let strict = session.settings.strict;
            let endpoint = SessionEndpoint {
                address: session.named?,
                strict: strict.is_some(),
            };
            Some((endpoint, strict.unwrap_or(503)))
        })
    }
}

fn of_cookie(cookie: &SessionCookie, head: &Head) -> Option<SocketAddr> {
    let value = cookie::value(head, cookie.name.as_bytes())?;
    decoded(value, |bytes| match Named::read(bytes) {
        Some(named) if named.is_over(now()) => None,
        Some(named) => address(named.address),
        // The form of older versions of Envoy.
        None => address(bytes),
    })
}

/// `None`: nothing, or not Base64.
fn decoded(value: &[u8], read: impl FnOnce(&[u8]) -> Option<SocketAddr>) -> Option<SocketAddr> {
    let mut buffer = [0; LONGEST];
    let length = STANDARD.decode_slice(value, &mut buffer).ok()?;
    read(buffer.get(..length).filter(|bytes| !bytes.is_empty())?)
}

fn address(text: &[u8]) -> Option<SocketAddr> {
    let parsed = std::str::from_utf8(text).ok().map(str::parse);
    match (text, parsed) {
        (b"", _) => None,
        (_, Some(Ok(address))) => Some(address),
        _ => Some(NOWHERE),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn made(cookie: &SessionCookie, address: SocketAddr) -> Box<[u8]> {
    let text = address.to_string();
    let expires = match cookie.ttl {
        0 => 0,
        ttl => now().saturating_add(ttl),
    };
    let named = Named {
        address: text.as_bytes(),
        expires,
    };
    cookie.set.with(&STANDARD.encode(named.written()))
}

/// What a cookie holds: a protobuf message of an address (field 1) and a time (field 2).
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    address: &'a [u8],
    /// Seconds since 1970; 0: never.
    expires: u64,
}

const ADDRESS: u8 = (1 << 3) | 2;
const EXPIRES: u8 = 2 << 3;

impl<'a> Named<'a> {
    /// `None`: not such a message.
    fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut named = Self {
            address: b"",
            expires: 0,
        };
        while let Some((tag, rest)) = bytes.split_first() {
            let (number, rest) = varint(rest)?;
            bytes = rest;
            match *tag {
                ADDRESS => {
                    let length = usize::try_from(number).ok()?;
                    (named.address, bytes) = rest.split_at_checked(length)?;
                }
                EXPIRES => named.expires = number,
                _ => return None,
            }
        }
        Some(named)
    }

    fn written(&self) -> Vec<u8> {
        let mut bytes = vec![ADDRESS];
        write_varint(self.address.len() as u64, &mut bytes);
        bytes.extend_from_slice(self.address);
        if self.expires > 0 {
            bytes.push(EXPIRES);
            write_varint(self.expires, &mut bytes);
        }
        bytes
    }

    /// Envoy's own times cannot be compared with those of another machine: what ends such a cookie
    /// is its `Max-Age`.
    fn is_over(&self, now: u64) -> bool {
        self.expires >= CLOCK_TIME && now > self.expires
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let shift = u32::try_from(at).ok()?.checked_mul(7)?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at.checked_add(1)?..)?));
        }
    }
    None
}

fn write_varint(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        // The lower seven bits.
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(address in "[0-9a-f.:]{0,40}", expires: u64) {
            let named = Named { address: address.as_bytes(), expires };
            let written = named.written();
            prop_assert_eq!(Named::read(&written), Some(named));
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let _ = Named::read(&bytes);
            let _ = decoded(&bytes, address);
        }
    }

    #[test]
    fn times_of_other_machines_do_not_end_a_cookie() {
        let at = |expires| Named {
            address: b"10.0.0.1:80",
            expires,
        };
        let now = 2_000_000_000;
        assert!(at(now - 1).is_over(now));
        assert!(!at(now).is_over(now));
        assert!(!at(86_400).is_over(now));
        assert!(!at(0).is_over(now));
    }

    #[test]
    fn what_is_no_address_is_no_endpoints() {
        let of = |text: &str| decoded(STANDARD.encode(text).as_bytes(), address);
        assert_eq!(of("10.0.0.1:80"), Some(([10, 0, 0, 1], 80).into()));
        assert_eq!(of("[::1]:80"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(of("nonsense"), Some(NOWHERE));
        assert_eq!(of(""), None);
        assert_eq!(decoded(b"!", address), None);
        assert_eq!(of(&"1".repeat(1000)), None);
    }
}
