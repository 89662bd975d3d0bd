//! Values inside manifests that are checked while they are read, so that an error carries the
//! line and the field it stands in.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// Bytes a regular expression may be long.
const MAX_PATTERN: usize = 1024;

macro_rules! from_str {
    ($type:ty, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

/// A duration as Gateway API writes it (GEP-2257): `10ms`, `1m30s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no duration; write it like 10ms, 5s, 1m30s, 2h");
        let mut total = Duration::ZERO;
        let mut rest = text;
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 5 {
                return Err(wrong());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let (unit, length) = if rest.starts_with("ms") {
                (1, 2)
            } else {
                match rest.bytes().next() {
                    Some(b's') => (1000, 1),
                    Some(b'm') => (60_000, 1),
                    Some(b'h') => (3_600_000, 1),
                    _ => return Err(wrong()),
                }
            };
            total += Duration::from_millis(number * unit);
            rest = &rest[length..];
            if rest.is_empty() {
                return Ok(Span(total));
            }
        }
        Err(wrong())
    }
}
from_str!(Span, "a duration such as 10ms, 5s or 1m30s");

/// A regular expression in the syntax of RE2, which the proxy matches in linear time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(pub String);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN {
            return Err(format!(
                "a regular expression may have {MAX_PATTERN} bytes at most"
            ));
        }
        match regex::RegexBuilder::new(text).size_limit(1 << 20).build() {
            Ok(_) => Ok(Pattern(text.to_owned())),
            Err(error) => Err(format!("`{text}` is no regular expression: {error}")),
        }
    }
}
from_str!(Pattern, "a regular expression");

/// A name from an HTTP header: a token, kept as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName(pub String);

impl HeaderName {
    pub fn lower(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for HeaderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.len() <= 256 && text.bytes().all(is_token) {
            Ok(HeaderName(text.to_owned()))
        } else {
            Err(format!("`{}` is no header name", text.escape_debug()))
        }
    }
}
from_str!(HeaderName, "a header name");

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A value for an HTTP header: visible characters, blanks and tabs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderText(pub String);

impl FromStr for HeaderText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text
            .bytes()
            .all(|b| b == b'\t' || (b' '..0x7f).contains(&b) || b >= 0x80);
        if fits && text.len() <= 4096 {
            Ok(HeaderText(text.to_owned()))
        } else {
            Err("a header value may have 4096 bytes and no control characters".to_owned())
        }
    }
}
from_str!(HeaderText, "a header value");

/// A path to match: absolute, without query, fragment and what normalisation would change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathText(pub String);

impl FromStr for PathText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = if !text.starts_with('/') {
            "must begin with `/`"
        } else if text.len() > 1024 {
            "may have 1024 bytes at most"
        } else if text.contains("//") {
            "must not contain `//`"
        } else if text.split('/').any(|part| part == "." || part == "..") {
            "must not contain `/./` or `/../`, which requests never have after normalisation"
        } else if text.contains(['#', '?']) {
            "must not contain `?` or `#`"
        } else if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            "must not contain blanks or control characters"
        } else {
            return Ok(PathText(text.to_owned()));
        };
        Err(format!("the path `{}` {why}", text.escape_debug()))
    }
}
from_str!(PathText, "an absolute path");

/// An address or a range of addresses, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address or range such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        if bits > all {
            return Err(wrong());
        }
        let shift = u32::from(all - bits);
        let address = match address {
            IpAddr::V4(v4) => {
                IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(shift).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) => {
                IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(shift).unwrap_or(0)).into())
            }
        };
        Ok(Cidr { address, bits })
    }
}
from_str!(Cidr, "an address or range such as 10.0.0.0/8");

impl Cidr {
    pub fn contains(&self, ip: IpAddr) -> bool {
        let of = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32_u32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((own, all), (other, _)) = (of(self.address), of(ip));
        let behind = all - u32::from(self.bits);
        let same = own.checked_shr(behind) == other.checked_shr(behind);
        self.address.is_ipv4() == ip.is_ipv4() && same
    }
}

/// A string to compare with, `*` at one end standing for anything: `a`, `a*`, `*a`, `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Glob {
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// Anything, as long as there is something.
    Any,
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let stars = text.bytes().filter(|b| *b == b'*').count();
        match (stars, text) {
            (_, "") => Err("must not be empty; `*` stands for any value".to_owned()),
            (0, _) => Ok(Glob::Exact(text.to_owned())),
            (1, "*") => Ok(Glob::Any),
            (1, _) if text.ends_with('*') => Ok(Glob::Prefix(text[..text.len() - 1].to_owned())),
            (1, _) if text.starts_with('*') => Ok(Glob::Suffix(text[1..].to_owned())),
            _ => Err(format!(
                "`{text}`: one `*` is allowed, at the beginning or at the end"
            )),
        }
    }
}
from_str!(Glob, "a string, with `*` at one end for anything");

/// A name as Kubernetes requires it (RFC 1123): a label, or labels joined by dots.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(text: &str, dots: bool) -> Result<(), String> {
    let label = |label: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        label.len() <= 63
            && edge(label.bytes().next())
            && edge(label.bytes().next_back())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let fits = match dots {
        true => text.len() <= 253 && text.split('.').all(label),
        false => label(text),
    };
    match fits {
        true => Ok(()),
        false => Err(format!(
            "`{}` is no name: lower-case letters, digits and `-` ({}), a letter or digit at both ends",
            text.escape_debug(),
            if dots {
                "and `.`, 253 at most"
            } else {
                "63 at most"
            },
        )),
    }
}

/// Checks while it is read, so that an error has the place of the name itself.
struct NameText {
    dots: bool,
}

impl Visitor<'_> for NameText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        check_name(text, self.dots).map_err(E::custom)?;
        Ok(text.to_owned())
    }
}

/// A port as the key of a map, quoted or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey(pub NonZeroU16);

impl<'de> Deserialize<'de> for PortKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = PortKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port (1 to 65535)")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<PortKey, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<PortKey, E> {
                let port = text.parse().map(PortKey);
                port.map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Key)
    }
}

/// Checks a server name (RFC 6066) to compare with: a DNS name in lower case, whose first label may be
/// `*`.
///
/// # Errors
/// With what is wrong.
pub fn check_server_name(text: &str) -> Result<(), String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    match name.parse::<IpAddr>() {
        Ok(_) => Err(format!("`{text}` is an address, which is no server name")),
        Err(_) => check_name(name, true),
    }
}

/// For `default`: what a backend reference points at.
pub fn service_kind() -> String {
    "Service".to_owned()
}

/// For `deserialize_with`: [`check_name`] with dots.
pub fn subdomain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(NameText { dots: true })
}

/// For `deserialize_with`: an optional [`subdomain`].
pub fn optional_subdomain<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    subdomain(deserializer).map(Some)
}

/// For `deserialize_with`: [`check_name`] without dots.
pub fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(NameText { dots: false })
}

/// For `deserialize_with`: an optional [`label`].
pub fn optional_label<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    label(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gep_2257() {
        let span = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(span("10ms"), Ok(10));
        assert_eq!(span("1m30s"), Ok(90_000));
        assert_eq!(span("1h1m1s1ms"), Ok(3_661_001));
        assert_eq!(span("0s"), Ok(0));
        for wrong in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "1d",
            "123456s",
            "1s1s1s1s1s",
            "1 s",
        ] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_lose_their_host_bits() {
        let cidr: Cidr = "10.1.2.3/8".parse().unwrap();
        assert_eq!(
            (cidr.address.to_string().as_str(), cidr.bits),
            ("10.0.0.0", 8)
        );
        let all: Cidr = "10.1.2.3/0".parse().unwrap();
        assert_eq!(all.address.to_string(), "0.0.0.0");
        let v6: Cidr = "fd00::1".parse().unwrap();
        assert_eq!((v6.address.to_string().as_str(), v6.bits), ("fd00::1", 128));
        for wrong in ["10.0.0.0/33", "10/8", "a", "::/129", "10.0.0.0/"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_star_at_one_end() {
        assert_eq!("a*".parse(), Ok(Glob::Prefix("a".into())));
        assert_eq!("*a".parse(), Ok(Glob::Suffix("a".into())));
        assert_eq!("*".parse(), Ok(Glob::Any));
        for wrong in ["", "a*b", "**", "*a*"] {
            assert!(wrong.parse::<Glob>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_are_what_normalisation_leaves() {
        assert!("/a/b".parse::<PathText>().is_ok());
        for wrong in [
            "a", "//a", "/a//b", "/a/../b", "/a/.", "/a?b", "/a#b", "/a b",
        ] {
            assert!(wrong.parse::<PathText>().is_err(), "{wrong}");
        }
    }
}
