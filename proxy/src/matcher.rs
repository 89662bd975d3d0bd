//! String, header and query matchers, shared by routes and policies.

use crate::message::head::HeaderId;

/// envoy.type.matcher.v3.StringMatcher. With `ignore_case` the pattern is kept lower case and the
/// value is compared without regard to ASCII case.
#[derive(Clone, Debug)]
pub enum StringMatch {
    Exact {
        value: Box<str>,
        ignore_case: bool,
    },
    Prefix {
        value: Box<str>,
        ignore_case: bool,
    },
    Suffix {
        value: Box<str>,
        ignore_case: bool,
    },
    Contains {
        value: Box<str>,
        ignore_case: bool,
    },
    /// Anchored at both ends, linear time, bounded size.
    Regex(Box<regex::bytes::Regex>),
}

impl StringMatch {
    pub fn matches(&self, input: &[u8]) -> bool {
        match self {
            Self::Exact { value, ignore_case } => equal(input, value.as_bytes(), *ignore_case),
            Self::Prefix { value, ignore_case } => input
                .get(..value.len())
                .is_some_and(|head| equal(head, value.as_bytes(), *ignore_case)),
            Self::Suffix { value, ignore_case } => input
                .len()
                .checked_sub(value.len())
                .is_some_and(|at| equal(&input[at..], value.as_bytes(), *ignore_case)),
            Self::Contains {
                value,
                ignore_case: false,
            } => memchr::memmem::find(input, value.as_bytes()).is_some(),
            Self::Contains {
                value,
                ignore_case: true,
            } => {
                value.is_empty()
                    || input
                        .windows(value.len())
                        .any(|w| w.eq_ignore_ascii_case(value.as_bytes()))
            }
            Self::Regex(regex) => regex.is_match(input),
        }
    }
}

fn equal(a: &[u8], b: &[u8], ignore_case: bool) -> bool {
    if ignore_case {
        a.eq_ignore_ascii_case(b)
    } else {
        a == b
    }
}

/// A header's name, with its small id when it is a well-known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName {
    pub id: HeaderId,
    /// Lower case. Pseudo-headers keep their colon.
    pub name: Box<str>,
}

impl HeaderName {
    /// `None`: neither a token nor a pseudo-header.
    pub fn parse(name: &str) -> Option<Self> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let rest = name.strip_prefix(':').unwrap_or(name);
        if rest.is_empty() || !rest.bytes().all(token) {
            return None;
        }
        let name: Box<str> = name.to_ascii_lowercase().into();
        Some(Self {
            id: HeaderId::of(name.as_bytes()),
            name,
        })
    }
}

/// envoy.config.route.v3.HeaderMatcher. Repeated headers: see [`crate::http`]'s evaluation; every
/// value is judged, never only the first.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub test: ValueMatch,
    pub invert: bool,
    pub treat_missing_as_empty: bool,
}

/// envoy.config.route.v3.QueryParameterMatcher.
#[derive(Clone, Debug)]
pub struct QueryMatch {
    pub name: Box<str>,
    pub test: ValueMatch,
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Present,
    /// Matches only when the header is absent (`present_match: false`).
    Absent,
    String(StringMatch),
    /// Half-open, decimal.
    Range {
        start: i64,
        end: i64,
    },
}
