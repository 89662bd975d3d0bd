//! The authority: parsed, checked, and in the canonical form that matching uses. It is forwarded as
//! received, except for what configuration strips ([`stripped`]).

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::rc::Rc;

use crate::message::fault::Fault;

/// How an authority is made canonical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthorityOptions {
    pub strip_port: PortRule,
    /// Envoy's strip_trailing_host_dot.
    pub strip_trailing_dot: bool,
}

/// Which port is removed.
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
    /// As received, ASCII; IPv6 literals with their brackets.
    pub host: &'a [u8],
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses and checks: no user information, a host of allowed characters, a port in range and in
    /// its canonical form. `%` and `,` are refused although RFC 3986 allows them: no name has them,
    /// and both have been used to make two parsers disagree.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let (host, port) = if let [b'[', rest @ ..] = bytes {
            let end = memchr::memchr(b']', rest).ok_or(Fault::InvalidHost)?;
            address(rest.split_at(end).0).ok_or(Fault::InvalidHost)?;
            // Both brackets belong to the host.
            bytes.split_at(end.saturating_add(2))
        } else {
            let end = bytes.iter().position(|&byte| !is_name_byte(byte));
            let (host, port) = bytes.split_at(end.unwrap_or(bytes.len()));
            // A name may end in one dot; an empty label is no part of any.
            if matches!(host, [] | [b'.', ..]) || memchr::memmem::find(host, b"..").is_some() {
                return Err(Fault::InvalidHost);
            }
            (host, port)
        };
        let port = match port {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits).ok_or(Fault::InvalidHost)?),
            _ => return Err(Fault::InvalidHost),
        };
        Ok(Self { host, port })
    }

    fn address(&self) -> Option<Ipv6Addr> {
        address(self.host.strip_prefix(b"[")?.strip_suffix(b"]")?)
    }
}

fn address(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Decimal, no sign, no leading zero, 1 to 65535.
fn parse_port(digits: &[u8]) -> Option<u16> {
    let mut port = 0u16;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        port = port
            .checked_mul(10)?
            .checked_add(u16::from(digit.wrapping_sub(b'0')))?;
    }
    (digits.first()? != &b'0').then_some(port)
}

#[inline]
fn is_name_byte(byte: u8) -> bool {
    let place = usize::from(byte);
    NAME_BYTES.get(place).copied().unwrap_or(false)
}

#[expect(clippy::indexing_slicing, reason = "at compile time")]
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = matches!(
            byte,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
                | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
        );
        byte += 1;
    }
    table
};

/// The canonical form: lower case, IPv6 in its shortest form, port and trailing dot by `options`.
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
    // `parse` accepts no other byte than ASCII.
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Fault::InvalidHost);
    let whole = text(parsed.host)?;
    let host = match whole.strip_suffix('.') {
        Some(host) if options.strip_trailing_dot => host,
        _ => whole,
    };
    let shortest = parsed.address().map(|address| format!("[{address}]"));
    let as_is = !host.bytes().any(|b| b.is_ascii_uppercase())
        && shortest.as_deref().is_none_or(|shortest| shortest == host);
    match port {
        None if as_is => Ok(Cow::Borrowed(host)),
        // Host and port are all there is.
        Some(_) if as_is && host.len() == whole.len() => text(authority).map(Cow::Borrowed),
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

/// An authority to forward, stripped by `options`, its case kept; `None`: unchanged.
pub fn stripped(authority: &[u8], options: AuthorityOptions) -> Option<Vec<u8>> {
    if options == AuthorityOptions::default() {
        return None;
    }
    let Authority { host, port } = Authority::parse(authority).ok()?;
    let short = match host.strip_suffix(b".") {
        Some(short) if options.strip_trailing_dot => short,
        _ => host,
    };
    let strips_port = port.is_some_and(|port| match options.strip_port {
        PortRule::Keep => false,
        PortRule::Matching(strip) => port == strip,
        PortRule::Any => true,
    });
    let rest = match strips_port {
        true => &[],
        false => authority.get(host.len()..)?,
    };
    let kept = short.len().saturating_add(rest.len());
    (kept < authority.len()).then(|| [short, rest].concat())
}

/// [`canonical`] with a memo of the last authority: nearly all clients repeat theirs.
#[derive(Debug, Default)]
pub struct Memo {
    authority: Vec<u8>,
    options: AuthorityOptions,
    canonical: Rc<str>,
}

impl Memo {
    /// The longest DNS name. Longer authorities are not kept for a connection's life.
    const LONGEST: usize = 255;

    /// As [`canonical`].
    ///
    /// # Errors
    /// When it is no authority.
    pub fn canonical(
        &mut self,
        authority: &[u8],
        options: AuthorityOptions,
    ) -> Result<Rc<str>, Fault> {
        if self.authority == authority && self.options == options && !authority.is_empty() {
            return Ok(self.canonical.clone());
        }
        let canonical = Rc::from(&*canonical(authority, &options)?);
        if authority.len() <= Self::LONGEST {
            self.canonical = Rc::clone(&canonical);
            self.authority.clear();
            self.authority.extend_from_slice(authority);
            self.options = options;
        }
        Ok(canonical)
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
            "..",
            ".a",
            "a..",
            "a..:80",
            "a..b",
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
    fn what_is_remembered_is_of_the_same_authority_and_options() {
        let any = AuthorityOptions {
            strip_port: PortRule::Any,
            ..AuthorityOptions::default()
        };
        let mut memo = Memo::default();
        for _ in 0..2 {
            for (authority, options, want) in [
                ("A.b:80", AuthorityOptions::default(), Ok("a.b:80")),
                ("A.b:80", any, Ok("a.b")),
                ("c.b:80", any, Ok("c.b")),
                ("", any, Err(Fault::InvalidHost)),
                ("a b", any, Err(Fault::InvalidHost)),
            ] {
                let got = memo.canonical(authority.as_bytes(), options);
                assert_eq!(got.as_deref().map_err(Clone::clone), want, "{authority}");
            }
        }
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
