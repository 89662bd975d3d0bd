//! What every compiler file uses: where we are, what went wrong, and the macros by which each
//! field of each message is supported, ignored with a reason, or refused.
//!
//! Messages are destructured whole, so that a field that Envoy adds is a compile error here and
//! not a setting dropped in silence.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use xds_proto::google::protobuf as pb;

/// A resource that cannot be used, and the field that is why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct CompileError {
    /// `filter_chains[1].filters[0].typed_config.route_config…`
    pub path: String,
    pub why: String,
}

/// Where in a resource we are: a list through the stack, written out only for an error.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: PathSegment<'a>,
}

#[derive(Clone, Copy)]
enum PathSegment<'a> {
    Root(&'a str),
    Field(&'a str),
    Index(&'a str, usize),
    Key(&'a str, &'a str),
}

impl<'a> At<'a> {
    /// The resource itself; `what` may be empty.
    pub fn root(what: &'a str) -> Self {
        At {
            parent: None,
            step: PathSegment::Root(what),
        }
    }

    pub fn field(&'a self, name: &'a str) -> At<'a> {
        self.then(PathSegment::Field(name))
    }

    pub fn index(&'a self, name: &'a str, index: usize) -> At<'a> {
        self.then(PathSegment::Index(name, index))
    }

    pub fn key(&'a self, name: &'a str, key: &'a str) -> At<'a> {
        self.then(PathSegment::Key(name, key))
    }

    fn then(&'a self, step: PathSegment<'a>) -> At<'a> {
        At {
            parent: Some(self),
            step,
        }
    }

    pub fn error(&self, why: impl fmt::Display) -> CompileError {
        CompileError {
            path: self.to_string(),
            why: why.to_string(),
        }
    }

    /// `Err` in one step.
    pub fn fail<T>(&self, why: impl fmt::Display) -> Result<T, CompileError> {
        Err(self.error(why))
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if !matches!(parent.step, PathSegment::Root("")) {
                f.write_str(".")?;
            }
        }
        match self.step {
            PathSegment::Root(name) => f.write_str(name),
            PathSegment::Field(name) => f.write_str(name.strip_prefix("r#").unwrap_or(name)),
            PathSegment::Index(name, index) => write!(f, "{name}[{index}]"),
            PathSegment::Key(name, key) => write!(f, "{name}[{key:?}]"),
        }
    }
}

/// Whether a field has its default value.
pub trait Unset {
    fn is_unset(&self) -> bool;
}

impl<T> Unset for Option<T> {
    fn is_unset(&self) -> bool {
        self.is_none()
    }
}

impl<T> Unset for Vec<T> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Unset for HashMap<K, V> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl Unset for String {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

macro_rules! unset_by_default {
    ($($t:ty),*) => {
        $(impl Unset for $t {
            fn is_unset(&self) -> bool {
                *self == <$t>::default()
            }
        })*
    };
}
unset_by_default!(bool, i32, u32, i64, u64, f64);

/// Rejects the resource when one of these fields is set: they are not supported.
macro_rules! unsupported {
    ($at:expr, $($field:ident),+ $(,)?) => {
        $(if !$crate::config::compile::support::Unset::is_unset($field) {
            return $at.field(stringify!($field)).fail("is not supported by this proxy");
        })+
    };
}

/// Marks fields that may be set without effect, because of `reason`.
macro_rules! ignored {
    ($reason:literal, $($field:ident),+ $(,)?) => {
        $(let _: (&str, _) = ($reason, $field);)+
    };
}

/// Marks fields that are read elsewhere than where the message is destructured.
macro_rules! elsewhere {
    ($($field:ident),+ $(,)?) => {
        $(let _ = $field;)+
    };
}

/// The value of a field that has to be there.
macro_rules! required {
    ($at:expr, $field:ident) => {
        match $field {
            Some(value) => value,
            None => return $at.field(stringify!($field)).fail("is required"),
        }
    };
}

pub(crate) use {elsewhere, ignored, required, unsupported};

pub fn bool_or(value: &Option<pb::BoolValue>, default: bool) -> bool {
    value.as_ref().map_or(default, |v| v.value)
}

pub fn u32_or(value: &Option<pb::UInt32Value>, default: u32) -> u32 {
    value.as_ref().map_or(default, |v| v.value)
}

pub fn u32_opt(value: &Option<pb::UInt32Value>) -> Option<u32> {
    value.as_ref().map(|v| v.value)
}

/// Seconds of the longest duration that protobuf allows. A longer one would overflow clocks.
const LONGEST: u64 = 315_576_000_000;

/// A duration that may be absent.
pub fn duration(
    at: At<'_>,
    value: &Option<pb::Duration>,
) -> Result<Option<Duration>, CompileError> {
    let Some(pb::Duration { seconds, nanos }) = value else {
        return Ok(None);
    };
    match (u64::try_from(*seconds), u32::try_from(*nanos)) {
        (Ok(seconds), Ok(nanos)) if seconds <= LONGEST && nanos < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanos)))
        }
        _ => at.fail("is not a duration between zero and 10,000 years"),
    }
}

/// A time-out with Envoy's convention: absent means `default`, 0 switches it off.
pub fn timeout(
    at: At<'_>,
    value: &Option<pb::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, CompileError> {
    Ok(match duration(at, value)? {
        None => default,
        Some(Duration::ZERO) => None,
        Some(time) => Some(time),
    })
}

/// A duration that has to be above zero.
pub fn positive(
    at: At<'_>,
    value: &Option<pb::Duration>,
    default: Duration,
) -> Result<Duration, CompileError> {
    match duration(at, value)? {
        None => Ok(default),
        Some(Duration::ZERO) => at.fail("must be above zero"),
        Some(time) => Ok(time),
    }
}

pub fn port(at: At<'_>, value: u32) -> Result<u16, CompileError> {
    u16::try_from(value).or_else(|_| at.fail(format_args!("{value} is not a port")))
}

/// An enum by its number.
pub fn known<E: TryFrom<i32>>(at: At<'_>, value: i32) -> Result<E, CompileError> {
    E::try_from(value).or_else(|_| at.fail(format_args!("{value} is not a known value")))
}

/// The message in an `Any`, whose type was looked at before.
pub fn decode<M: prost::Message + Default>(at: At<'_>, any: &pb::Any) -> Result<M, CompileError> {
    M::decode(any.value.as_slice())
        .map_err(|e| at.error(format_args!("cannot be decoded as {}: {e}", any.type_url)))
}

/// The name of a message without the `type.googleapis.com/` in front.
pub fn type_name(any: &pb::Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Refuses an extension of an unknown type.
pub fn unknown_type<T>(at: At<'_>, any: &pb::Any) -> Result<T, CompileError> {
    at.field("typed_config").fail(format_args!(
        "extension {} is not supported by this proxy",
        type_name(any)
    ))
}

/// Compiles each element with its place.
pub fn each<'i, T, U>(
    at: At<'_>,
    name: &str,
    items: &'i [T],
    mut compile: impl FnMut(At<'_>, &'i T) -> Result<U, CompileError>,
) -> Result<Vec<U>, CompileError> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| compile(at.index(name, index), item))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_every_step() {
        let root = At::root("listeners");
        let chain = root.index("filter_chains", 1);
        let field = chain.field("r#match");
        let key = field.key("policies", "a");
        assert_eq!(
            key.fail::<()>("bad").unwrap_err().to_string(),
            "listeners.filter_chains[1].match.policies[\"a\"]: bad"
        );
        let bare = At::root("");
        assert_eq!(bare.field("name").to_string(), "name");
    }

    #[test]
    fn durations_are_checked() {
        let at = At::root("t");
        let value = |seconds, nanos| Some(pb::Duration { seconds, nanos });
        assert_eq!(
            duration(at, &value(1, 5)).unwrap(),
            Some(Duration::new(1, 5))
        );
        assert!(duration(at, &value(-1, 0)).is_err());
        assert!(duration(at, &value(0, 1_000_000_000)).is_err());
        let default = Some(Duration::from_secs(15));
        assert_eq!(timeout(at, &value(0, 0), default).unwrap(), None);
        assert_eq!(timeout(at, &None, default).unwrap(), default);
    }
}
