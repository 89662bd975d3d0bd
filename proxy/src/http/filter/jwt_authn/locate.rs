//! The tokens of a request: in headers, query parameters and cookies.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::config::filter::{HeaderLocation, Issuers, TokenLocations};
use crate::matcher::HeaderName;
use crate::message::cookie;
use crate::message::head::{Head, HeaderId};

/// Tokens for which nothing is allocated.
const FEW: usize = 2;

/// What stands where a token may.
pub struct FoundToken<'c, 'h> {
    pub text: Cow<'h, [u8]>,
    pub place: TokenPlace<'c>,
    /// Whose tokens may stand there.
    pub issuers: &'c Issuers,
}

/// Where a token is taken from when it is not forwarded.
#[derive(Clone, Copy)]
pub enum TokenPlace<'c> {
    Header(&'c HeaderName),
    /// A query parameter.
    Param(&'c str),
    /// It stays there, as in Envoy.
    Cookie,
}

pub type FoundTokens<'c, 'h> = SmallVec<[FoundToken<'c, 'h>; FEW]>;

/// All of them, in Envoy's order.
pub fn tokens<'c, 'h>(locations: &'c TokenLocations, head: &'h Head) -> FoundTokens<'c, 'h> {
    let mut found = FoundTokens::new();
    for location in &locations.headers {
        in_header(location, head, &mut found);
    }
    let query = head.query().filter(|_| !locations.params.is_empty());
    for location in query.iter().flat_map(|_| &locations.params) {
        let value = query.and_then(|query| param(&location.name, query));
        found.extend(value.map(|text| FoundToken {
            text,
            place: TokenPlace::Param(&location.name),
            issuers: &location.issuers,
        }));
    }
    for location in &locations.cookies {
        let value = cookie::value(head, location.name.as_bytes());
        found.extend(value.map(|text| FoundToken {
            text: Cow::Borrowed(text),
            place: TokenPlace::Cookie,
            issuers: &location.issuers,
        }));
    }
    found
}

fn in_header<'c, 'h>(
    location: &'c HeaderLocation,
    head: &'h Head,
    found: &mut FoundTokens<'c, 'h>,
) {
    let name = &location.name;
    let mut add = |value: Cow<'h, [u8]>| {
        let text = match value {
            Cow::Borrowed(value) => after_prefix(&location.prefix, value).map(Cow::Borrowed),
            Cow::Owned(value) => {
                after_prefix(&location.prefix, &value).map(|text| Cow::Owned(text.to_vec()))
            }
        };
        found.extend(text.map(|text| FoundToken {
            text,
            place: TokenPlace::Header(name),
            issuers: &location.issuers,
        }));
    };
    let values = || head.get_all_named(name.id, name.name.as_bytes());
    // As Envoy, which joins the values of this one: its field is not a list (RFC 9110, 11.6.2), so that
    // several are a token of none.
    if name.id == HeaderId::Authorization && values().nth(1).is_some() {
        let all: Vec<&[u8]> = values().collect();
        return add(Cow::Owned(all.join(&b',')));
    }
    values().for_each(|value| add(Cow::Borrowed(value)));
}

/// What follows `prefix`, from the first character that a token can have; `None`: the prefix is not there.
fn after_prefix<'v>(prefix: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    if prefix.is_empty() {
        return Some(value);
    }
    let at = memchr::memmem::find(value, prefix.as_bytes())?;
    let rest = value.get(at.checked_add(prefix.len())?..)?;
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    match rest.iter().position(is_of_token) {
        Some(first) => rest.get(first..),
        None => Some(value),
    }
}

/// The value of a query parameter's first appearance.
fn param<'q>(name: &str, query: &'q [u8]) -> Option<Cow<'q, [u8]>> {
    let mut pairs = query.split(|byte| *byte == b'&');
    pairs.find_map(|pair| {
        let (key, rest) = pair.split_at(memchr::memchr(b'=', pair).unwrap_or(pair.len()));
        let value = rest.strip_prefix(b"=").unwrap_or_default();
        (*unescaped(key) == *name.as_bytes()).then(|| unescaped(value))
    })
}

/// Takes a query parameter out of the request's path. What else there is stays as it is.
pub fn remove_param(name: &str, head: &mut Head) {
    let Some(query) = head.query() else {
        return;
    };
    let mut path = head.path().to_vec();
    let mut joint = b'?';
    for pair in query.split(|byte| *byte == b'&') {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        if *unescaped(key) != *name.as_bytes() {
            path.push(joint);
            path.extend_from_slice(pair);
            joint = b'&';
        }
    }
    head.set_path_and_query(&path);
}

/// Without percent-encoding.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let decoded = match (first, after) {
            (b'%', [high, low, after @ ..]) => byte(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        let (byte, after) = decoded.unwrap_or((*first, after));
        plain.push(byte);
        rest = after;
    }
    Cow::Owned(plain)
}

fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digit(high)?.checked_mul(16)?.checked_add(digit(low)?)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_follow_their_prefix() {
        for (value, wanted) in [
            ("Bearer a.b.c", Some("a.b.c")),
            ("x Bearer   a.b.c d", Some("a.b.c d")),
            ("Bearer \"a.b.c\"", Some("a.b.c\"")),
            ("bearer a.b.c", None),
            ("Bearer", None),
            ("Bearer !!", Some("Bearer !!")),
        ] {
            let found = after_prefix("Bearer ", value.as_bytes());
            assert_eq!(found, wanted.map(str::as_bytes), "{value}");
        }
        assert_eq!(after_prefix("", b"Bearer a"), Some(b"Bearer a".as_slice()));
    }

    #[test]
    fn parameters_are_found_and_taken_out() {
        let value = |query: &'static str| param("to ken", query.as_bytes());
        assert_eq!(
            value("a=b&to%20ken=x%2Ey&to%20ken=z").unwrap(),
            b"x.y".as_slice()
        );
        assert_eq!(value("to%20ken").unwrap(), b"".as_slice());
        assert_eq!(value("to%2ken=x"), None);
        for (path, wanted) in [
            ("/p?t=1&a=%26&b=2", "/p?a=%26&b=2"),
            ("/p?a=1&%74=2&t=3&b", "/p?a=1&b"),
            ("/p?t=1", "/p"),
            ("/p?tt=1", "/p?tt=1"),
            ("/p", "/p"),
        ] {
            let mut head = Head::new();
            head.set_path_and_query(path.as_bytes());
            remove_param("t", &mut head);
            assert_eq!(head.path_and_query(), wanted.as_bytes(), "{path}");
        }
    }
}
