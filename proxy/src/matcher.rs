//! String, header and query matchers, shared by routes and policies.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use crate::message::head::HeaderId;
use crate::metadata::{Metadata, Value};

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
                .and_then(|at| input.get(at..))
                .is_some_and(|tail| equal(tail, value.as_bytes(), *ignore_case)),
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

/// envoy.config.route.v3.HeaderMatcher. Of a repeated header every value is evaluated, not only the
/// first: see [`HeaderMatcher`].
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub test: ValueMatch,
    pub invert: bool,
    pub treat_missing_as_empty: bool,
}

/// How many values of a repeated header must match. A rule that allows needs all, a rule that denies
/// any, so that an added value never gains access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    Any,
    All,
}

/// Evaluates the values of one header, one by one. An absent header matches only a test for
/// absence, inverted or not, unless the matcher treats it as empty (as in Envoy).
pub struct HeaderMatcher<'a> {
    matcher: &'a HeaderMatch,
    seen: bool,
    any: bool,
    all: bool,
}

impl<'a> HeaderMatcher<'a> {
    pub fn new(matcher: &'a HeaderMatch) -> Self {
        Self {
            matcher,
            seen: false,
            any: false,
            all: true,
        }
    }

    /// The header has this value.
    #[inline]
    pub fn value(&mut self, value: &[u8]) {
        let matches = self.matcher.test.matches(value) != self.matcher.invert;
        self.seen = true;
        self.any |= matches;
        self.all &= matches;
    }

    /// Whether the values match, by `quantifier`.
    pub fn matches(&self, quantifier: Quantifier) -> bool {
        let HeaderMatch {
            test,
            invert,
            treat_missing_as_empty,
            ..
        } = self.matcher;
        if !self.seen {
            return match test {
                ValueMatch::Absent => !invert,
                ValueMatch::Present => *invert,
                test => *treat_missing_as_empty && test.matches(b"") != *invert,
            };
        }
        match quantifier {
            Quantifier::All => self.all,
            Quantifier::Any => self.any,
        }
    }
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

impl ValueMatch {
    /// Whether a value that is there satisfies the test.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Absent => false,
            Self::String(wanted) => wanted.matches(value),
            Self::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

/// envoy.type.matcher.v3.MetadataMatcher: a value at a path of keys in a filter's namespace.
#[derive(Clone, Debug)]
pub struct MetadataMatch {
    pub namespace: Box<str>,
    pub path: Vec<Box<str>>,
    pub test: MetadataTest,
    pub invert: bool,
}

/// envoy.type.matcher.v3.ValueMatcher.
#[derive(Clone, Debug)]
pub enum MetadataTest {
    Null,
    Exact(f64),
    /// Half-open.
    Range {
        start: f64,
        end: f64,
    },
    String(StringMatch),
    Bool(bool),
    Present(bool),
    /// A list one of whose values fits.
    OneOf(Box<MetadataTest>),
    /// Any of them.
    Or(Vec<MetadataTest>),
}

impl MetadataMatch {
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|all| all.get(&self.namespace, &self.path));
        self.test.matches(value) != self.invert
    }
}

impl MetadataTest {
    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Present(wanted), value) => value.is_some() == *wanted,
            (Self::Or(any), value) => any.iter().any(|test| test.matches(value)),
            (Self::Null, Some(Value::Null)) => true,
            (Self::Exact(wanted), Some(Value::Number(number))) => number == wanted,
            (Self::Range { start, end }, Some(Value::Number(number))) => {
                (*start..*end).contains(number)
            }
            (Self::String(wanted), Some(Value::String(text))) => wanted.matches(text.as_bytes()),
            (Self::Bool(wanted), Some(Value::Bool(value))) => value == wanted,
            (Self::OneOf(test), Some(Value::List(values))) => {
                values.iter().any(|value| test.matches(Some(value)))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn metadata_is_matched_by_kind() {
        let list = Value::List(vec![Value::Number(2.0), Value::String("cart".into())]);
        let fields = [
            ("n", Value::Number(2.0)),
            ("null", Value::Null),
            ("yes", Value::Bool(true)),
            ("list", list),
            (
                "deep",
                Value::Object(Arc::new(
                    [("s".into(), Value::String("cart".into()))].into(),
                )),
            ),
        ];
        let mut known = Metadata::default();
        let fields = fields.map(|(key, value)| (key.into(), value)).into();
        known.merge(&"f".into(), &fields);
        let cart = || {
            MetadataTest::String(StringMatch::Exact {
                value: "cart".into(),
                ignore_case: false,
            })
        };
        let range = |start, end| MetadataTest::Range { start, end };
        for (path, test, wanted) in [
            (vec!["n"], MetadataTest::Exact(2.0), true),
            (vec!["n"], range(2.0, 3.0), true),
            (vec!["n"], range(1.0, 2.0), false),
            (vec!["n"], cart(), false),
            (vec!["null"], MetadataTest::Null, true),
            (vec!["nothing"], MetadataTest::Null, false),
            (vec!["yes"], MetadataTest::Bool(true), true),
            (vec!["yes"], MetadataTest::Bool(false), false),
            (vec!["list"], MetadataTest::OneOf(Box::new(cart())), true),
            (vec!["deep", "s"], cart(), true),
            (vec!["deep", "s", "t"], cart(), false),
            (
                vec!["n"],
                MetadataTest::Or(vec![cart(), MetadataTest::Exact(2.0)]),
                true,
            ),
            (vec!["n"], MetadataTest::Present(true), true),
            (vec!["nothing"], MetadataTest::Present(true), false),
            (vec!["nothing"], MetadataTest::Present(false), true),
        ] {
            let mut matcher = MetadataMatch {
                namespace: "f".into(),
                path: path.iter().map(|key| (*key).into()).collect(),
                test,
                invert: false,
            };
            assert_eq!(matcher.matches(Some(&known)), wanted, "{matcher:?}");
            matcher.invert = true;
            assert_eq!(matcher.matches(Some(&known)), !wanted, "{matcher:?}");
        }
    }
}
