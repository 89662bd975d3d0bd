//! How the values of annotations and settings are parsed, and how messages describe them.

use std::net::IpAddr;
use std::ops::RangeInclusive;

pub(super) const PORTS: &str = "ports and ranges, comma-separated, as in 80,8000-8099";
pub(super) const CIDRS: &str = "addresses and ranges, comma-separated, as in 10.0.0.0/8,fd00::/8";
pub(super) const IDS: &str = "ids from 0 to 4294967294, comma-separated, as in 1000,2000";
pub(super) const INTERFACES: &str = "interfaces but lo, comma-separated, as in net1; `*` at the end stands for any rest, as in docker*";
pub(super) const RANGES: &str = "ranges with a prefix length, as in 10.0.0.0/8";
pub(super) const NAME: &str = "a name of letters, digits, `-` and `.`";
pub(super) const TRUST_DOMAIN: &str = "a name of a-z, 0-9, `-`, `_` and `.`";
pub(super) const DOMAIN: &str = "a domain of a-z, 0-9, `-` and `.`, as in cluster.local";
pub(super) const WORD: &str = "a text without spaces";
pub(super) const LOG_LEVELS: [&str; 7] = [
    "trace", "debug", "info", "warning", "error", "critical", "off",
];
pub(super) const LOG_LEVEL: &str = "trace, debug, info, warning, error, critical or off";

/// As many as `anyam-proxy redirect` takes ports and ranges.
pub(super) const MOST_ELEMENTS: usize = 128;
/// As many as it takes ids and interfaces.
pub(super) const MOST_RULES: usize = 64;
/// Pull secrets that the settings may name.
pub(super) const MOST_PULL_SECRETS: usize = 16;
/// Bytes of an interface's name (IFNAMSIZ without the final NUL).
const MOST_INTERFACE: usize = 15;
/// The longest text, bytes.
const MOST_BYTES: usize = 512;

pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

pub(super) fn number(text: &str, within: RangeInclusive<u64>) -> Option<u64> {
    // `parse` alone would accept a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    within.contains(&number).then_some(number)
}

/// The elements of a comma-separated list, if each of them is `good`; an empty text has none.
fn elements(text: &str, most: usize, good: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let elements: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
    let fits = elements.len() <= most && elements.iter().all(|one| good(one));
    fits.then_some(elements)
}

pub(super) fn ports(text: &str) -> Option<Vec<String>> {
    elements(text, MOST_ELEMENTS, is_ports)
}

/// A port or a range of ports.
pub(super) fn is_ports(text: &str) -> bool {
    match text.split_once('-') {
        None => port(text).is_some(),
        Some((first, last)) => {
            let range = port(first).zip(port(last));
            range.is_some_and(|(first, last)| first <= last)
        }
    }
}

pub(super) fn port(text: &str) -> Option<u16> {
    number(text, 1..=65_535).and_then(|port| u16::try_from(port).ok())
}

pub(super) fn cidrs(text: &str) -> Option<Vec<String>> {
    elements(text, MOST_ELEMENTS, is_cidr)
}

pub(super) fn ids(text: &str) -> Option<Vec<String>> {
    elements(text, MOST_RULES, is_id)
}

/// A user's or group's id; the kernel uses the last number for "no id".
pub(super) fn is_id(text: &str) -> bool {
    number(text, 0..=u64::from(u32::MAX).saturating_sub(1)).is_some()
}

pub(super) fn interfaces(text: &str) -> Option<Vec<String>> {
    elements(text, MOST_RULES, is_interface)
}

/// An interface's name, or the beginning of names before a `*`. Not the loopback interface, by which
/// the sidecar reaches the app.
pub(super) fn is_interface(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let is_loopback = name == "lo" || (name != text && "lo".starts_with(name));
    (1..=MOST_INTERFACE).contains(&name.len()) && name.bytes().all(fits) && !is_loopback
}

/// An address with or without a prefix length, and no bit set behind that: with one,
/// `anyam-proxy redirect` fails.
pub(super) fn is_cidr(text: &str) -> bool {
    match text.contains('/') {
        true => is_range(text),
        false => text.parse::<IpAddr>().is_ok(),
    }
}

/// An address with a prefix length, and no bit set behind that.
pub(super) fn is_range(text: &str) -> bool {
    range(text).is_some_and(|(address, _, first)| address == first)
}

/// The address, the prefix length, and the first address of that range.
fn range(text: &str) -> Option<(IpAddr, u32, IpAddr)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = u32::try_from(number(bits, 0..=most)?).ok()?;
    let first = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32u32.saturating_sub(bits))
                .unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128u32.saturating_sub(bits))
                .unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    };
    Some((address, bits, first))
}

/// The allowed values, for an error message about `value`, with a likely correction if there is
/// one.
pub(super) fn advice(allowed: &str, value: &str) -> String {
    let lone = |one: &str| {
        let address: IpAddr = one.parse().ok().filter(|_| allowed == RANGES)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        Some(format!("{address}/{most}"))
    };
    let meant = value.split(',').map(str::trim).find_map(|one| {
        let (address, bits, first) = range(one)?;
        (address != first).then(|| format!("{first}/{bits}"))
    });
    let meant = meant.or_else(|| lone(value.trim()));
    let meant = meant.filter(|_| [CIDRS, RANGES].contains(&allowed));
    match meant {
        Some(meant) => format!("{allowed}; did you mean {meant}?"),
        None => allowed.to_owned(),
    }
}

pub(super) fn is_word(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    !text.is_empty() && text.len() <= MOST_BYTES && text.chars().all(plain)
}

pub(super) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(fits)
}

pub(super) fn is_host_port(text: &str) -> bool {
    let Some((host, given)) = text.rsplit_once(':') else {
        return false;
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_fits = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    host_fits && port(given).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_whole_or_not_at_all() {
        assert_eq!(ports("80, 443"), Some(vec!["80".into(), "443".into()]));
        assert_eq!(ports("8000-8099"), Some(vec!["8000-8099".into()]));
        assert_eq!(ports(""), Some(vec![]));
        for wrong in [
            "80,", "0", "65536", "http", "90-80", "80-", "+80", "80 443", "*",
        ] {
            assert_eq!(ports(wrong), None, "{wrong}");
        }
        assert_eq!(ports(&vec!["1"; 129].join(",")), None);
        assert!(cidrs("10.0.0.0/8, fd00::/8,1.2.3.4").is_some());
        for wrong in [
            "10.0.0.0/33",
            "10.0.0/8",
            "fd00::/129",
            "a",
            "10.0.0.0/",
            "1.2.3.4/+8",
            "10.1.2.3/8",
            "fd00::1/64",
            "1.2.3.4/0",
        ] {
            assert_eq!(cidrs(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_and_interfaces_are_those_that_the_rules_take() {
        assert_eq!(
            ids("0, 4294967294"),
            Some(vec!["0".into(), "4294967294".into()])
        );
        for wrong in ["4294967295", "-1", "root", "1,"] {
            assert_eq!(ids(wrong), None, "{wrong}");
        }
        assert!(ids(&vec!["1"; 64].join(",")).is_some());
        assert_eq!(ids(&vec!["1"; 65].join(",")), None);
        assert!(interfaces("net1, docker*,a23456789012345,lo0,log*").is_some());
        for wrong in [
            "*",
            "lo",
            "l*",
            "lo*",
            "a234567890123456",
            "a b",
            "eth0\" accept",
            "a,",
        ] {
            assert_eq!(interfaces(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bits_behind_a_prefix_are_named_with_what_may_be_meant() {
        assert!(is_cidr("0.0.0.0/0") && is_cidr("1.2.3.4/32") && is_cidr("::/0"));
        assert!(is_range("1.2.3.4/32") && !is_range("1.2.3.4"));
        let meant = |allowed, value| advice(allowed, value).replace(allowed, "");
        assert_eq!(
            meant(CIDRS, "1.2.3.4,10.1.2.3/8"),
            "; did you mean 10.0.0.0/8?"
        );
        assert_eq!(meant(CIDRS, "fd00::1/64"), "; did you mean fd00::/64?");
        assert_eq!(meant(RANGES, "10.0.0.1"), "; did you mean 10.0.0.1/32?");
        assert_eq!(meant(CIDRS, "ten"), "");
        assert_eq!(meant(PORTS, "10.1.2.3/8"), "");
    }

    #[test]
    fn names_and_places() {
        for good in [
            "anyam-control.anyam-system.svc:15012",
            "10.0.0.1:1",
            "[::1]:15012",
        ] {
            assert!(is_host_port(good), "{good}");
        }
        for wrong in ["anyam-control", "a:b", ":1", "::1:15012", "a b:1", "a:0"] {
            assert!(!is_host_port(wrong), "{wrong}");
        }
        assert!(is_word("registry.example:5000/anyam/proxy@sha256:00"));
        assert!(!is_word("a b") && !is_word(""));
    }
}
