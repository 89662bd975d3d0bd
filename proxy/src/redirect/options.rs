//! The options of redirection, checked while they are parsed.
//!
//! clap refuses an invalid value with the flag's name. Values are bounded ([`MAX_ENTRIES`]) and
//! typed: none of them is ever put into rules as text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::ranges::Ranges;

/// Entries of one list of ports or ranges. All lists together fit into one netlink message, which
/// the kernel accepts as a whole or not at all.
pub const MAX_ENTRIES: usize = 128;
/// Entries of a list of ids or interfaces: each entry is a rule of its own.
const MAX_RULES: usize = 64;
/// IFNAMSIZ, without the final NUL.
const MAX_INTERFACE: usize = 15;

/// Which connections are redirected. The defaults are Istio's ports and user id.
///
/// Excluded connections are never redirected, the app's DNS included; lists of what to include
/// restrict TCP further.
#[derive(Clone, Debug, clap::Args)]
pub struct RedirectOptions {
    /// Port of the proxy's outbound listener.
    #[arg(long, env = "ANYAM_OUTBOUND_PORT", default_value_t = 15001, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub outbound_port: u16,
    /// Port of the proxy's inbound listener.
    #[arg(long, env = "ANYAM_INBOUND_PORT", default_value_t = 15006, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: u16,
    /// Port of the proxy's DNS listener, to which the app's DNS (UDP and TCP) is redirected; 0: DNS
    /// is not captured.
    #[arg(
        long,
        env = "ANYAM_DNS_PORT",
        default_value_t = 15053,
        value_name = "PORT"
    )]
    pub dns_port: u16,
    /// User id that the proxy runs as: its own connections are not redirected.
    #[arg(long, default_value_t = 1337, value_name = "UID")]
    pub proxy_uid: u32,
    /// Inbound: only connections to these ports (and to 15008, where tunnels arrive) are redirected.
    /// Ports and ranges, such as 80,8000-8099 [default: all ports].
    #[arg(long, default_value_t, hide_default_value = true, value_name = "PORTS")]
    pub include_inbound_ports: PortRanges,
    /// Inbound: connections to these ports reach the app without the proxy.
    #[arg(long, default_value_t, hide_default_value = true, value_name = "PORTS")]
    pub exclude_inbound_ports: PortRanges,
    /// Inbound: only connections from these addresses are redirected. CIDRs, such as
    /// 10.0.0.0/8,fd00::/8 [default: from anywhere].
    #[arg(long, default_value_t, hide_default_value = true, value_name = "CIDRS")]
    pub include_inbound_cidrs: Cidrs,
    /// Inbound: connections from these addresses reach the app without the proxy.
    #[arg(long, default_value_t, hide_default_value = true, value_name = "CIDRS")]
    pub exclude_inbound_cidrs: Cidrs,
    /// Outbound: only connections to these ports are redirected [default: all ports].
    #[arg(long, default_value_t, hide_default_value = true, value_name = "PORTS")]
    pub include_outbound_ports: PortRanges,
    /// Outbound: what goes to these ports leaves without the proxy; with 53, DNS too.
    #[arg(long, default_value_t, hide_default_value = true, value_name = "PORTS")]
    pub exclude_outbound_ports: PortRanges,
    /// Outbound: only connections to these addresses are redirected [default: to anywhere].
    #[arg(long, default_value_t, hide_default_value = true, value_name = "CIDRS")]
    pub include_outbound_cidrs: Cidrs,
    /// Outbound: what goes to these addresses leaves without the proxy, DNS too.
    #[arg(long, default_value_t, hide_default_value = true, value_name = "CIDRS")]
    pub exclude_outbound_cidrs: Cidrs,
    /// Traffic of processes with these user ids leaves without the proxy.
    #[arg(long, default_value_t, hide_default_value = true, value_name = "UIDS")]
    pub exempt_uids: Ids,
    /// Traffic of processes with these group ids leaves without the proxy.
    #[arg(long, default_value_t, hide_default_value = true, value_name = "GIDS")]
    pub exempt_gids: Ids,
    /// Traffic that comes in or goes out by these interfaces is not redirected: names, or
    /// beginnings of names followed by *, such as net1,docker*.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        value_name = "INTERFACES"
    )]
    pub exclude_interfaces: Interfaces,
    /// Ports of the proxy that are reached from outside, by the kubelet's probes too: metrics and
    /// health.
    #[arg(long, default_value = "15021,15090", value_name = "PORTS")]
    pub open_ports: PortRanges,
    /// Also redirect IPv6; if false, IPv6 bypasses the mesh.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub ipv6: bool,
}

impl RedirectOptions {
    /// An error with the flags of two listeners that have the same port, if there are such.
    pub fn conflict(&self) -> Option<String> {
        let ports = [
            ("--outbound-port", self.outbound_port),
            ("--inbound-port", self.inbound_port),
            ("--dns-port", self.dns_port),
        ];
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| (ports[a], ports[b]));
        let clash = pairs.into_iter().find(|((_, a), (_, b))| a == b);
        clash.map(|((a, port), (b, _))| {
            format!(
                "{a} and {b} are both {port}; each is a listener of its own and needs its own port"
            )
        })
    }
}

/// Ports and ranges of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRanges(pub(super) Ranges);

impl FromStr for PortRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        list(text, MAX_ENTRIES, port_range).map(|all| Self(Ranges::merged(all)))
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        comma_separated(
            f,
            self.0.iter().map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            }),
        )
    }
}

fn port_range(text: &str) -> Result<(u128, u128), String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(u128::from(port)),
        _ => Err(format!(
            "`{text}` is no port: expected 1 to 65535, or a range such as 8000-8099"
        )),
    };
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(|port| (port, port));
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!(
            "`{text}` ends before it begins: did you mean {last}-{first}?"
        ));
    }
    Ok((first, last))
}

/// Address ranges of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cidrs {
    pub(super) v4: Ranges,
    pub(super) v6: Ranges,
}

impl Cidrs {
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromStr for Cidrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = list(text, MAX_ENTRIES, cidr)?;
        let of = |v4: bool| {
            let family = all.iter().filter(|(address, _)| address.is_ipv4() == v4);
            Ranges::merged(family.map(|(address, bits)| network(*address, *bits)))
        };
        Ok(Self {
            v4: of(true),
            v6: of(false),
        })
    }
}

impl fmt::Display for Cidrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        comma_separated(f, self.v4.ipv4_text().chain(self.v6.ipv6_text()))
    }
}

fn cidr(text: &str) -> Result<(IpAddr, u32), String> {
    let wrong = || {
        format!(
            "`{text}` is no address range: expected one such as 10.0.0.0/8, 192.168.1.1 or fd00::/8"
        )
    };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits.map_or(Ok(width), str::parse::<u32>) {
        Ok(bits) if bits <= width => bits,
        Ok(_) => return Err(format!("`{text}`: the prefix length is 0 to {width}")),
        Err(_) => return Err(wrong()),
    };
    let (first, _) = network(address, bits);
    if first != number(address) {
        let meant = match address {
            IpAddr::V4(_) => super::ranges::ipv4(first).to_string(),
            IpAddr::V6(_) => super::ranges::ipv6(first).to_string(),
        };
        return Err(format!(
            "`{text}` has bits set behind its prefix: did you mean {meant}/{bits}?"
        ));
    }
    Ok((address, bits))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first and the last address of a prefix.
fn network(address: IpAddr, bits: u32) -> (u128, u128) {
    let width = if address.is_ipv4() { 32 } else { 128 };
    // All ones in the host's part; a shift by the whole width is undefined.
    let host = match width - bits {
        0 => 0,
        hosts => u128::MAX >> (128 - hosts),
    };
    (number(address) & !host, number(address) | host)
}

/// User or group ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids(pub(super) Vec<u32>);

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ids = list(text, MAX_RULES, |text| match text.parse::<u32>() {
            // The kernel uses the last number for "no id".
            Ok(id) if id < u32::MAX => Ok(id),
            _ => Err(format!("`{text}` is no id: expected 0 to 4294967294")),
        })?;
        ids.sort_unstable();
        ids.dedup();
        Ok(Self(ids))
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        comma_separated(f, self.0.iter().map(u32::to_string))
    }
}

/// Names of interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(pub(super) Vec<Interface>);

/// The name of an interface, or the beginning of several interfaces' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub(super) name: String,
    pub(super) is_prefix: bool,
}

impl FromStr for Interfaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        list(text, MAX_RULES, interface).map(Self)
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        comma_separated(
            f,
            self.0.iter().map(|interface| {
                let star = if interface.is_prefix { "*" } else { "" };
                format!("{}{star}", interface.name)
            }),
        )
    }
}

fn interface(text: &str) -> Result<Interface, String> {
    let (name, is_prefix) = match text.strip_suffix('*') {
        Some(name) => (name, true),
        None => (text, false),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if name.is_empty() || name.len() > MAX_INTERFACE || !name.bytes().all(fits) {
        return Err(format!(
            "`{text}` is no interface: expected 1 to {MAX_INTERFACE} letters, digits, `-`, `_`, `.`, `@`, then perhaps a `*`"
        ));
    }
    if name == "lo" || (is_prefix && "lo".starts_with(name)) {
        return Err(format!(
            "`{text}` has the loopback interface in it, by which the proxy delivers to the app; exclude ports or addresses instead"
        ));
    }
    Ok(Interface {
        name: name.to_owned(),
        is_prefix,
    })
}

/// A comma-separated list; empty text is the empty list.
fn list<T>(
    text: &str,
    most: usize,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    if text.split(',').count() > most {
        return Err(format!("the list has more than {most} entries"));
    }
    text.split(',').map(|entry| parse(entry.trim())).collect()
}

fn comma_separated(f: &mut fmt::Formatter<'_>, all: impl Iterator<Item = String>) -> fmt::Result {
    for (index, one) in all.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{one}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        options: RedirectOptions,
    }

    fn refusal(flag: &str, value: &str) -> String {
        let line = format!("{flag}={value}");
        Line::try_parse_from(["x", &line]).unwrap_err().to_string()
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_flags_name() {
        for (flag, value, why) in [
            (
                "--exclude-outbound-cidrs",
                "1.2.3.4; drop",
                "no address range",
            ),
            ("--exclude-outbound-cidrs", "10.0.0.0/33", "0 to 32"),
            ("--include-outbound-cidrs", "fd00::/129", "0 to 128"),
            ("--include-inbound-cidrs", "10.0.0.0/", "no address range"),
            (
                "--exclude-inbound-cidrs",
                "fd00::1%eth0",
                "no address range",
            ),
            (
                "--exclude-inbound-cidrs",
                "10.1.2.3/8",
                "did you mean 10.0.0.0/8?",
            ),
            ("--include-inbound-ports", "0", "no port"),
            ("--include-outbound-ports", "80,65536", "no port"),
            ("--exclude-inbound-ports", "90-80", "did you mean 80-90?"),
            ("--exclude-outbound-ports", "80,", "no port"),
            ("--open-ports", "http", "no port"),
            ("--exempt-uids", "4294967295", "no id"),
            ("--exempt-gids", "-1", "no id"),
            ("--exclude-interfaces", "*", "no interface"),
            ("--exclude-interfaces", "eth0\" accept", "no interface"),
            ("--exclude-interfaces", "a234567890123456", "no interface"),
            ("--exclude-interfaces", "l*", "loopback"),
            ("--outbound-port", "0", "0"),
        ] {
            let refusal = refusal(flag, value);
            assert!(refusal.contains(flag) && refusal.contains(why), "{refusal}");
        }
        let many = vec!["1"; MAX_ENTRIES + 1].join(",");
        assert!(refusal("--open-ports", &many).contains("more than 128"));
        let line = Line::try_parse_from(["x", "--inbound-port", "15001"]).unwrap();
        let conflict = line.options.conflict().unwrap();
        assert!(conflict.contains("--outbound-port and --inbound-port are both 15001"));
    }

    #[test]
    fn lists_are_sorted_and_merged() {
        let ports: PortRanges = "8080, 80,81,8000-8090,65535".parse().unwrap();
        assert_eq!(ports.to_string(), "80-81,8000-8090,65535");
        let cidrs: Cidrs = "fd00::/8,10.0.1.0/24,10.0.0.0/24,192.168.1.1,::/0"
            .parse()
            .unwrap();
        assert_eq!(cidrs.to_string(), "10.0.0.0/23,192.168.1.1,::/0");
        let ids: Ids = "7,0,7".parse().unwrap();
        assert_eq!(ids.to_string(), "0,7");
        assert!("".parse::<Interfaces>().unwrap().0.is_empty());
    }

    proptest! {
        /// The printed form is parsed to the same value, so a default that clap prints can be used.
        #[test]
        fn printed_values_are_parsed_to_the_same(ranges in prop::collection::vec((any::<u32>(), 0u32..=32), 0..20),
                                      ports in prop::collection::vec((1u16.., 1u16..), 0..20)) {
            let text = |(address, bits): &(u32, u32)| {
                let (first, _) = network(IpAddr::V4((*address).into()), *bits);
                format!("{}/{bits}", super::super::ranges::ipv4(first))
            };
            let cidrs: Cidrs = ranges.iter().map(text).collect::<Vec<_>>().join(",").parse().unwrap();
            for (address, bits) in &ranges {
                let (first, last) = network(IpAddr::V4((*address).into()), *bits);
                prop_assert!(cidrs.v4.iter().any(|(from, to)| from <= first && last <= to));
            }
            let text = |(a, b): &(u16, u16)| format!("{}-{}", a.min(b), a.max(b));
            let ports: PortRanges = ports.iter().map(text).collect::<Vec<_>>().join(",").parse().unwrap();
            prop_assert_eq!(&ports.to_string().parse::<PortRanges>().unwrap(), &ports);
        }
    }
}
