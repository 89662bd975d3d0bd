//! The authority: parsed, judged, and in the canonical form that matching uses. It is forwarded as
//! received.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::h1::Fault;

/// How an authority is made canonical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthorityOptions {
    pub strip_port: PortRule,
    /// Envoy's strip_trailing_host_dot.
    pub strip_trailing_dot: bool,
}

/// Which port goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortRule {
    #[default]
    Keep,
    /// This one (Envoy's strip_matching_host_port: the listener's).
    Matching(u16),
    Any,
}

/// Host and port of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As received; IPv6 literals with their brackets.
    pub host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses and judges: no user information, a host of allowed characters, a port in range and
    /// written in one way only. `%` and `,` are not allowed although RFC 3986 has them: no name
    /// uses them, and both have been used to make two parsers disagree.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::InvalidHost)?;
        let (host, port) = if text.starts_with('[') {
            let end = text.find(']').ok_or(Fault::InvalidHost)?;
            text[1..end]
                .parse::<Ipv6Addr>()
                .map_err(|_| Fault::InvalidHost)?;
            text.split_at(end + 1)
        } else {
            let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
            let (host, port) = text.split_at(end);
            // A lone dot would leave nothing once the trailing dot goes.
            if !host.bytes().all(is_name_byte) || host.is_empty() || host == "." {
                return Err(Fault::InvalidHost);
            }
            (host, port)
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(Fault::InvalidHost),
            Some(digits) => Some(parse_port(digits).ok_or(Fault::InvalidHost)?),
        };
        Ok(Self { host, port })
    }

    fn address(&self) -> Option<Ipv6Addr> {
        self.host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
    }
}

/// Decimal, no sign, no leading zero, 1 to 65535.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

#[inline]
fn is_name_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
    )
}

/// The canonical form: lower case, IPv6 in its shortest form, port and trailing dot as told.
/// Borrowed whenever it is a part of what was received.
pub fn canonical<'a>(
    authority: &'a [u8],
    options: &AuthorityOptions,
) -> Result<Cow<'a, str>, Fault> {
    let parsed = Authority::parse(authority)?;
    let port = parsed.port.filter(|&port| match options.strip_port {
        PortRule::Keep => true,
        PortRule::Matching(strip) => port != strip,
        PortRule::Any => false,
    });
    let host = match parsed.host.strip_suffix('.') {
        Some(host) if options.strip_trailing_dot => host,
        _ => parsed.host,
    };
    let shortest = parsed.address().map(|address| format!("[{address}]"));
    let as_is = !host.bytes().any(|b| b.is_ascii_uppercase())
        && shortest.as_deref().is_none_or(|shortest| shortest == host);
    match port {
        None if as_is => Ok(Cow::Borrowed(host)),
        Some(_) if as_is && host.len() == parsed.host.len() => {
            // Host and port are all there is: `parse` accepts no other byte.
            std::str::from_utf8(authority)
                .map(Cow::Borrowed)
                .map_err(|_| Fault::InvalidHost)
        }
        _ => {
            let mut text = shortest.unwrap_or_else(|| host.to_ascii_lowercase());
            if let Some(port) = port {
                text.push(':');
                text.push_str(itoa::Buffer::new().format(port));
            }
            Ok(Cow::Owned(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_refused() {
        for bad in [
            "",
            ":",
            ":80",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:+80",
            "a:8 0",
            "a:80:80",
            "a b",
            "a/b",
            "user@a",
            "user:pw@a",
            "a,b",
            "a%2eb",
            "a%00",
            "a\\b",
            "a#b",
            "a?b",
            ".",
            "[::1",
            "::1",
            "[::1]80",
            "[::1]:",
            "[::g]",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "[]",
            "a\tb",
            "h\u{e9}",
            "<a>",
            "[1.2.3.4]",
        ] {
            assert_eq!(
                Authority::parse(bad.as_bytes()),
                Err(Fault::InvalidHost),
                "{bad:?}"
            );
        }
        assert_eq!(Authority::parse(b"a\xff"), Err(Fault::InvalidHost));
        assert_eq!(Authority::parse(b"a\0"), Err(Fault::InvalidHost));
    }

    #[test]
    fn canonical_forms() {
        let keep = AuthorityOptions::default();
        let any = AuthorityOptions {
            strip_port: PortRule::Any,
            strip_trailing_dot: true,
        };
        let matching = AuthorityOptions {
            strip_port: PortRule::Matching(80),
            ..keep
        };
        let table: &[(&str, &AuthorityOptions, &str)] = &[
            ("a.b", &keep, "a.b"),
            ("A.b:8080", &keep, "a.b:8080"),
            ("a.b.:8080", &keep, "a.b.:8080"),
            ("a.b:80", &matching, "a.b"),
            ("a.b:81", &matching, "a.b:81"),
            ("A.B.:81", &any, "a.b"),
            ("a.b.", &any, "a.b"),
            ("10.0.0.1:15001", &any, "10.0.0.1"),
            ("[::1]:80", &matching, "[::1]"),
            ("[0:0:0:0:0:0:0:1]:81", &matching, "[::1]:81"),
            ("[2001:DB8::A]", &keep, "[2001:db8::a]"),
            ("my_service", &keep, "my_service"),
        ];
        for (authority, options, want) in table {
            let got = canonical(authority.as_bytes(), options);
            assert_eq!(got.as_deref(), Ok(*want), "{authority} {options:?}");
        }
        let dotted = AuthorityOptions {
            strip_trailing_dot: true,
            ..keep
        };
        assert_eq!(canonical(b"a.b.:81", &dotted).as_deref(), Ok("a.b:81"));
    }

    #[test]
    fn the_usual_forms_are_borrowed() {
        let strip = AuthorityOptions {
            strip_port: PortRule::Any,
            strip_trailing_dot: true,
        };
        for authority in [
            "reviews",
            "reviews:9080",
            "reviews.",
            "[::1]:80",
            "10.1.2.3:80",
        ] {
            let got = canonical(authority.as_bytes(), &strip);
            assert!(matches!(got, Ok(Cow::Borrowed(_))), "{authority}");
        }
        let keep = AuthorityOptions::default();
        assert!(matches!(
            canonical(b"a:80", &keep),
            Ok(Cow::Borrowed("a:80"))
        ));
    }
}
