//! Header and query matchers of routes, retries and filters, evaluated on a head.

use crate::matcher::{HeaderMatch, HeaderMatcher, Quantifier, QueryMatch, ValueMatch};
use crate::message::head::{Head, HeaderId};

/// Whether any value of the header satisfies the matcher.
pub fn header(matcher: &HeaderMatch, head: &Head) -> bool {
    let mut values = HeaderMatcher::new(matcher);
    let name = &matcher.name;
    for value in head.get_all_named(name.id, name.name.as_bytes()) {
        values.value(value);
    }
    values.matches(Quantifier::Any)
}

/// Whether the query has the parameter, with the value of its first appearance.
pub fn query(matcher: &QueryMatch, query: Option<&[u8]>) -> bool {
    match (query_value(&matcher.name, query), &matcher.test) {
        (found, ValueMatch::Present) => found.is_some(),
        (found, ValueMatch::Absent) => found.is_none(),
        (Some(found), test) => test.matches(found),
        (None, _) => false,
    }
}

/// The value of a query parameter's first appearance.
pub fn query_value<'q>(name: &str, query: Option<&'q [u8]>) -> Option<&'q [u8]> {
    query?.split(|b| *b == b'&').find_map(|pair| {
        let (key, rest) = pair.split_at(memchr::memchr(b'=', pair).unwrap_or(pair.len()));
        let value = rest.strip_prefix(b"=").unwrap_or_default();
        (key == name.as_bytes()).then_some(value)
    })
}

/// A gRPC request by its content type.
pub fn is_grpc(head: &Head) -> bool {
    head.get(HeaderId::ContentType)
        .is_some_and(super::stream_info::is_grpc_type)
}
