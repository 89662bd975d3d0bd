//! Field types that refuse bad values while parsing, so that errors carry line and field.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::ops::Deref;
use std::time::Duration;

use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// A lower-case RFC 1123 label or subdomain, as Kubernetes names objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!(
            "{text:?} is not a name: lower-case letters, digits, `-` and `.`, at most 253 of them"
        )))
    }
}

impl Name {
    /// The namespace of objects that name none.
    fn default_namespace() -> Self {
        Self("default".into())
    }
}

/// The part of ObjectMeta that means something here; the rest is bookkeeping of the API server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: Name,
    #[serde(default = "Name::default_namespace")]
    pub namespace: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub creation_timestamp: Option<String>,
    #[serde(flatten)]
    pub bookkeeping: Bookkeeping,
}

/// Fields that the API server or tools write and that change nothing about traffic.
#[derive(Clone, Debug, Default)]
pub struct Bookkeeping;

impl PartialEq for Bookkeeping {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<'de> Deserialize<'de> for Bookkeeping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const KNOWN: [&str; 9] = [
            "annotations",
            "uid",
            "resourceVersion",
            "generation",
            "ownerReferences",
            "managedFields",
            "finalizers",
            "generateName",
            "selfLink",
        ];
        let fields = BTreeMap::<String, IgnoredAny>::deserialize(deserializer)?;
        match fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            Some(name) => Err(D::Error::custom(format!("unknown field `{name}` in metadata"))),
            None => Ok(Self),
        }
    }
}

/// 1 to 65535.
pub type Port = NonZeroU16;

/// A port by number or by the name it has on the workload.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    Number(Port),
    Name(String),
}

/// GEP-2257: one to four of `h`, `m`, `s`, `ms` with whole numbers, such as `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayDuration(pub Duration);

impl<'de> Deserialize<'de> for GatewayDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is not a duration such as 10ms, 1.5s is 1500ms, 1m30s"))
        })
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) || parts == 4 {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, milliseconds) =
            [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)].into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += Duration::from_millis(number * milliseconds);
        parts += 1;
    }
    (parts > 0).then_some(total)
}

/// An address range such as `10.0.0.0/8`; a bare address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpBlock {
    pub address: std::net::IpAddr,
    pub bits: u8,
}

impl<'de> Deserialize<'de> for IpBlock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parse = || {
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address, Some(bits)),
                None => (text.as_str(), None),
            };
            let address: std::net::IpAddr = address.parse().ok()?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(longest), |bits| bits.parse().ok())?;
            (bits <= longest).then_some(Self { address, bits })
        };
        parse().ok_or_else(|| {
            D::Error::custom(format!("{text:?} is not an address range such as 10.0.0.0/8"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("10ms"), Some(Duration::from_millis(10)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        for bad in ["", "5", "s", "1.5s", "-1s", "1d", "123456s", "1h1m1s1ms1ms"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
