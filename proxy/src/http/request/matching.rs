//! Header and query matchers against a head; shared by routes and policies.

use crate::matcher::{HeaderMatch, QueryMatch, ValueMatch};
use crate::message::head::{Head, HeaderId};

/// Which values of a repeated header have to match. A rule that allows needs all, a rule that
/// denies any, so that an added value never gains access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    Any,
    All,
}

/// Whether a head satisfies a header matcher. An absent header satisfies nothing but `Absent`,
/// unless the matcher treats it as empty (as Envoy).
pub fn header(matcher: &HeaderMatch, head: &Head, repeated: Repeated) -> bool {
    let values = head.get_all_named(matcher.name.id, matcher.name.name.as_bytes());
    match matcher.test {
        ValueMatch::Present => return values.clone().next().is_some() != matcher.invert,
        ValueMatch::Absent => return values.clone().next().is_none() != matcher.invert,
        ValueMatch::String(_) | ValueMatch::Range { .. } => {}
    }
    let mut values = values.peekable();
    if values.peek().is_none() {
        return matcher.treat_missing_as_empty && value(&matcher.test, b"") != matcher.invert;
    }
    let mut judged = values.map(|v| value(&matcher.test, v) != matcher.invert);
    match repeated {
        Repeated::Any => judged.any(|fits| fits),
        Repeated::All => judged.all(|fits| fits),
    }
}

/// Whether the query has the parameter, with the value of its first appearance.
pub fn query(matcher: &QueryMatch, query: Option<&[u8]>) -> bool {
    match (query_value(&matcher.name, query), &matcher.test) {
        (found, ValueMatch::Present) => found.is_some(),
        (found, ValueMatch::Absent) => found.is_none(),
        (Some(found), test) => value(test, found),
        (None, _) => false,
    }
}

/// The value of a query parameter's first appearance.
pub fn query_value<'q>(name: &str, query: Option<&'q [u8]>) -> Option<&'q [u8]> {
    query?.split(|b| *b == b'&').find_map(|pair| {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let rest = pair.get(at + 1..).unwrap_or_default();
        (pair[..at] == *name.as_bytes()).then_some(rest)
    })
}

fn value(test: &ValueMatch, value: &[u8]) -> bool {
    match test {
        ValueMatch::Present => true,
        ValueMatch::Absent => false,
        ValueMatch::String(matcher) => matcher.matches(value),
        ValueMatch::Range { start, end } => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .is_some_and(|number| (*start..*end).contains(&number)),
    }
}

/// A gRPC request by its content type.
pub fn is_grpc(head: &Head) -> bool {
    head.get(HeaderId::ContentType)
        .is_some_and(super::stream_info::is_grpc_type)
}
