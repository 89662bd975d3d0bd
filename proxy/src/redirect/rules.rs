//! The nftables program.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::TABLE;

/// The ports of redirection. The defaults are Istio's ports and user id.
#[derive(Clone, Debug, clap::Args)]
pub struct RedirectOptions {
    /// Port of the proxy's outbound listener.
    #[arg(long, env = "ANYAM_OUTBOUND_PORT", default_value_t = 15001)]
    pub outbound_port: u16,
    /// Port of the proxy's inbound listener.
    #[arg(long, env = "ANYAM_INBOUND_PORT", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Port of the proxy's DNS listener; 0 leaves DNS alone.
    #[arg(long, env = "ANYAM_DNS_PORT", default_value_t = 15053)]
    pub dns_port: u16,
    /// User id the proxy runs as: its own connections are not redirected.
    #[arg(long, default_value_t = 1337)]
    pub proxy_uid: u32,
    /// Inbound ports that reach the app without the proxy, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pub exclude_inbound_ports: Vec<u16>,
    /// Outbound ports that leave without the proxy, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pub exclude_outbound_ports: Vec<u16>,
    /// Outbound ranges that leave without the proxy, comma-separated CIDRs.
    #[arg(long, value_delimiter = ',', value_parser = range)]
    pub exclude_outbound_cidrs: Vec<Range>,
    /// Ports of the proxy that are reached from outside: metrics and health.
    #[arg(long, value_delimiter = ',', default_values_t = [15090, 15021])]
    pub open_ports: Vec<u16>,
    /// Also redirect IPv6.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub ipv6: bool,
}

/// An address range: typed, because text would be spliced into the rules as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    address: IpAddr,
    bits: u8,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn range(text: &str) -> Result<Range, String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("`{text}` is no address range, such as 10.0.0.0/8 or fd00::/8"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.map_or(Ok(most), str::parse::<u8>) {
        Ok(bits) if bits <= most => Ok(Range { address, bits }),
        _ => Err(format!("`{text}`: the prefix length must be 0 to {most}")),
    }
}

/// The whole program: one transaction that replaces an earlier one.
pub fn program(options: &RedirectOptions) -> String {
    let mut text = String::with_capacity(2048);
    // Declaring before deleting makes the delete succeed when there was no table.
    let _ = write!(
        text,
        "table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n"
    );
    prerouting(&mut text, options);
    output(&mut text, options);
    text.push_str("}\n");
    text
}

fn prerouting(text: &mut String, options: &RedirectOptions) {
    text.push_str("  chain prerouting {\n    type nat hook prerouting priority dstnat;\n");
    if !options.ipv6 {
        text.push_str("    meta nfproto ipv6 return\n");
    }
    let mut open = options.open_ports.clone();
    open.extend(&options.exclude_inbound_ports);
    if let Some(ports) = set(&open) {
        let _ = writeln!(text, "    tcp dport {ports} return");
    }
    let _ = writeln!(
        text,
        "    meta l4proto tcp redirect to :{}\n  }}",
        options.inbound_port
    );
}

fn output(text: &mut String, options: &RedirectOptions) {
    text.push_str("  chain output {\n    type nat hook output priority -100;\n");
    if !options.ipv6 {
        text.push_str("    meta nfproto ipv6 return\n");
    }
    let uid = options.proxy_uid;
    let inbound = options.inbound_port;
    // The proxy delivers to the app. The address alone proves nothing: any process may bind `::6`.
    for source in ["ip saddr 127.0.0.6", "ip6 saddr ::6"] {
        let _ = writeln!(text, "    meta skuid {uid} oif lo {source} return");
    }
    // The proxy calls its own pod: the app called its own service.
    let _ = writeln!(
        text,
        "    meta skuid {uid} oif lo ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :{inbound}"
    );
    let _ = writeln!(
        text,
        "    meta skuid {uid} oif lo ip6 daddr != ::1 meta l4proto tcp redirect to :{inbound}"
    );
    let _ = writeln!(text, "    meta skuid {uid} return");
    if options.dns_port != 0 {
        let port = options.dns_port;
        let _ = writeln!(text, "    udp dport 53 redirect to :{port}");
        let _ = writeln!(text, "    tcp dport 53 redirect to :{port}");
    }
    text.push_str("    ip daddr 127.0.0.0/8 return\n    ip6 daddr ::1 return\n");
    if let Some(ports) = set(&options.exclude_outbound_ports) {
        let _ = writeln!(text, "    tcp dport {ports} return");
    }
    for range in &options.exclude_outbound_cidrs {
        let family = if range.address.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(text, "    {family} daddr {range} return");
    }
    let _ = writeln!(
        text,
        "    meta l4proto tcp redirect to :{}\n  }}",
        options.outbound_port
    );
}

fn set(ports: &[u16]) -> Option<String> {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    (!ports.is_empty()).then(|| format!("{{ {} }}", ports.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: RedirectOptions,
    }

    #[test]
    fn ranges_that_are_not_ranges_never_reach_the_rules() {
        assert!(Line::try_parse_from(["x", "--exclude-outbound-cidrs", "1.2.3.4; drop"]).is_err());
        for wrong in ["10.0.0.0/33", "fd00::/129", "10.0.0.0/", "fd00::1%eth0"] {
            assert!(Line::try_parse_from(["x", "--exclude-outbound-cidrs", wrong]).is_err());
        }
        let ranges = "10.0.0.0/8,192.168.1.1,fd00::/8";
        let line = Line::try_parse_from(["x", "--exclude-outbound-cidrs", ranges]);
        let program = program(&line.unwrap().options);
        assert!(program.contains("ip daddr 10.0.0.0/8 return"));
        assert!(program.contains("ip daddr 192.168.1.1/32 return"));
        assert!(program.contains("ip6 daddr fd00::/8 return"));
    }
}
