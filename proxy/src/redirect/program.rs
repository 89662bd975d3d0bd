//! The rules for a set of options. Their order is in [`Program::of`].

use std::borrow::Cow;

use super::options::{Cidrs, Interface, RedirectOptions};
use super::ranges::Ranges;
use super::rule::{
    Chain, Condition, ElementType, Family, Hook, Operand, PacketField, Program, Protocol, Rule,
    Set, Statement,
};

/// The port for tunnels (HBONE). It is the inbound listener's, so it is always redirected.
const TUNNEL_PORT: u128 = 15008;
const DNS_PORT: u16 = 53;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// 127.0.0.6 and ::6: the source of the proxy's deliveries to the app.
fn delivery(family: Family) -> Operand {
    Operand::Address(match family {
        Family::V4 => &[127, 0, 0, 6],
        Family::V6 => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6],
    })
}

/// 127.0.0.0/8 and ::1.
fn loopback(family: Family) -> Operand {
    Operand::Address(match family {
        Family::V4 => &[127],
        Family::V6 => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    })
}

fn loopback_interface() -> Interface {
    Interface {
        name: "lo".to_owned(),
        is_prefix: false,
    }
}

impl Program {
    /// The rules for `options`, in the order in which a connection's first packet meets them.
    pub fn of(options: &RedirectOptions) -> Self {
        let mut sets = Sets::default();
        let chains = vec![
            inbound(options, &mut sets),
            prerouting(options),
            output(options, &mut sets),
        ];
        Self {
            sets: sets.0,
            chains,
        }
    }
}

/// Sets that rules refer to. An empty set is not made, and neither are rules about it.
#[derive(Default)]
struct Sets(Vec<Set>);

impl Sets {
    /// The condition that a field is, or is not, in a set of these ranges.
    fn condition(
        &mut self,
        name: &'static str,
        field: PacketField,
        is: bool,
        ranges: Cow<'_, Ranges>,
    ) -> Option<Condition> {
        if ranges.is_empty() {
            return None;
        }
        if self.0.iter().all(|set| set.name != name) {
            let key = match field {
                PacketField::Source(family) | PacketField::Destination(family) => {
                    ElementType::Address(family)
                }
                _ => ElementType::Port,
            };
            let ranges = ranges.into_owned();
            self.0.push(Set { name, key, ranges });
        }
        let operand = Operand::Set(name);
        Some(Condition { field, is, operand })
    }
}

const NAMES_INBOUND: SetNames = SetNames {
    include_ports: "include_inbound_ports",
    exclude_ports: "exclude_inbound_ports",
    include: ["include_inbound_ipv4", "include_inbound_ipv6"],
    exclude: ["exclude_inbound_ipv4", "exclude_inbound_ipv6"],
};

const NAMES_OUTBOUND: SetNames = SetNames {
    include_ports: "include_outbound_ports",
    exclude_ports: "exclude_outbound_ports",
    include: ["include_outbound_ipv4", "include_outbound_ipv6"],
    exclude: ["exclude_outbound_ipv4", "exclude_outbound_ipv6"],
};

/// Names of a direction's sets.
struct SetNames {
    include_ports: &'static str,
    exclude_ports: &'static str,
    include: [&'static str; 2],
    exclude: [&'static str; 2],
}

/// Connections to this namespace: from outside, and those of the proxy to its own pod's address
/// (the app called its own service), which are treated like a peer's.
fn inbound(options: &RedirectOptions, sets: &mut Sets) -> Chain {
    let names = NAMES_INBOUND;
    let mut rules = Vec::new();
    let port = PacketField::DestinationPort(Protocol::Tcp);
    let excluded = options.exclude_inbound_ports.0.and(&options.open_ports.0);
    let condition = sets.condition(names.exclude_ports, port, true, Cow::Owned(excluded));
    rules.extend(condition.map(|condition| Rule::new([condition], Statement::Return)));
    let cidrs = &options.exclude_inbound_cidrs;
    rules.extend(excluded_addresses(
        sets,
        names.exclude,
        PacketField::Source,
        cidrs,
    ));
    if !options.include_inbound_ports.0.is_empty() {
        let tunnels = Ranges::merged([(TUNNEL_PORT, TUNNEL_PORT)]);
        let included = options.include_inbound_ports.0.and(&tunnels);
        let condition = sets.condition(names.include_ports, port, false, Cow::Owned(included));
        rules.extend(condition.map(|condition| Rule::new([condition], Statement::Return)));
    }
    let cidrs = &options.include_inbound_cidrs;
    rules.extend(included_addresses(
        sets,
        names.include,
        PacketField::Source,
        cidrs,
    ));
    let redirect = Statement::Redirect(options.inbound_port);
    rules.push(Rule::new([Condition::tcp()], redirect));
    Chain {
        name: "inbound",
        hook: None,
        rules,
    }
}

fn prerouting(options: &RedirectOptions) -> Chain {
    let mut rules = begin(options, PacketField::InputInterface);
    rules.push(Rule::new([], Statement::Jump("inbound")));
    Chain {
        name: "prerouting",
        hook: Some(Hook::Prerouting),
        rules,
    }
}

fn output(options: &RedirectOptions, sets: &mut Sets) -> Chain {
    let names = NAMES_OUTBOUND;
    let mut rules = begin(options, PacketField::OutputInterface);
    rules.extend(own(options));
    let ids = |field, ids: &[u32]| {
        let all = ids
            .iter()
            .map(move |id| Condition::is(field, Operand::Id(*id)));
        all.map(|condition| Rule::new([condition], Statement::Return))
            .collect::<Vec<_>>()
    };
    rules.extend(ids(PacketField::UserId, &options.exempt_uids.0));
    rules.extend(ids(PacketField::GroupId, &options.exempt_gids.0));
    let cidrs = &options.exclude_outbound_cidrs;
    rules.extend(excluded_addresses(
        sets,
        names.exclude,
        PacketField::Destination,
        cidrs,
    ));
    let ports = &options.exclude_outbound_ports.0;
    // UDP is redirected for DNS only, so exclusions concern it only if they contain that port.
    let excluded = match ports.iter().any(|range| contains(range, DNS_PORT)) {
        true => &[Protocol::Udp, Protocol::Tcp][..],
        false => &[Protocol::Tcp][..],
    };
    for protocol in excluded {
        let port = PacketField::DestinationPort(*protocol);
        let condition = sets.condition(names.exclude_ports, port, true, Cow::Borrowed(ports));
        rules.extend(condition.map(|condition| Rule::new([condition], Statement::Return)));
    }
    // Before the rules for loopback addresses, because a resolver may listen on one.
    if options.dns_port != 0 {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let port = PacketField::DestinationPort(protocol);
            let condition = Condition::is(port, Operand::Port(DNS_PORT));
            rules.push(Rule::new(
                [condition],
                Statement::Redirect(options.dns_port),
            ));
        }
    }
    rules.extend(FAMILIES.map(|family| {
        let condition = Condition::is(PacketField::Destination(family), loopback(family));
        Rule::new([condition], Statement::Return)
    }));
    let port = PacketField::DestinationPort(Protocol::Tcp);
    let ports = Cow::Borrowed(&options.include_outbound_ports.0);
    let condition = sets.condition(names.include_ports, port, false, ports);
    rules.extend(condition.map(|condition| Rule::new([condition], Statement::Return)));
    let cidrs = &options.include_outbound_cidrs;
    rules.extend(included_addresses(
        sets,
        names.include,
        PacketField::Destination,
        cidrs,
    ));
    let redirect = Statement::Redirect(options.outbound_port);
    rules.push(Rule::new([Condition::tcp()], redirect));
    Chain {
        name: "output",
        hook: Some(Hook::Output),
        rules,
    }
}

/// IPv6, if it is not redirected, and excluded interfaces.
fn begin(options: &RedirectOptions, interface: PacketField) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !options.ipv6 {
        let condition = Condition::is(PacketField::Family, Operand::Family(Family::V6));
        rules.push(Rule::new([condition], Statement::Return));
    }
    rules.extend(options.exclude_interfaces.0.iter().map(|name| {
        let condition = Condition::is(interface, Operand::Interface(name.clone()));
        Rule::new([condition], Statement::Return)
    }));
    rules
}

/// The proxy's own traffic, of which only calls to its own pod's address are redirected.
fn own(options: &RedirectOptions) -> Vec<Rule> {
    let proxy = || Condition::is(PacketField::UserId, Operand::Id(options.proxy_uid));
    let on_loopback = || {
        let interface = Operand::Interface(loopback_interface());
        Condition::is(PacketField::OutputInterface, interface)
    };
    let mut rules = Vec::new();
    // A delivery to the app. The address alone proves nothing, because any process may bind `::6`.
    rules.extend(FAMILIES.map(|family| {
        let source = Condition::is(PacketField::Source(family), delivery(family));
        Rule::new([proxy(), on_loopback(), source], Statement::Return)
    }));
    // A call to its own namespace: the app called its own service.
    rules.extend(FAMILIES.map(|family| {
        let elsewhere = Condition::is_not(PacketField::Destination(family), loopback(family));
        Rule::new(
            [proxy(), on_loopback(), elsewhere],
            Statement::Jump("inbound"),
        )
    }));
    rules.push(Rule::new([proxy()], Statement::Return));
    rules
}

fn excluded_addresses(
    sets: &mut Sets,
    names: [&'static str; 2],
    field: fn(Family) -> PacketField,
    cidrs: &Cidrs,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, name, ranges) in by_family(names, cidrs) {
        let condition = sets.condition(name, field(family), true, Cow::Borrowed(ranges));
        rules.extend(condition.map(|condition| Rule::new([condition], Statement::Return)));
    }
    rules
}

/// If only addresses of one family are to be included, none of the other family are.
fn included_addresses(
    sets: &mut Sets,
    names: [&'static str; 2],
    field: fn(Family) -> PacketField,
    cidrs: &Cidrs,
) -> Vec<Rule> {
    if cidrs.is_empty() {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for (family, name, ranges) in by_family(names, cidrs) {
        let condition = sets
            .condition(name, field(family), false, Cow::Borrowed(ranges))
            .unwrap_or_else(|| Condition::is(PacketField::Family, Operand::Family(family)));
        rules.push(Rule::new([condition], Statement::Return));
    }
    rules
}

fn by_family<'a>(
    [v4, v6]: [&'static str; 2],
    cidrs: &'a Cidrs,
) -> [(Family, &'static str, &'a Ranges); 2] {
    [(Family::V4, v4, &cidrs.v4), (Family::V6, v6, &cidrs.v6)]
}

fn contains((first, last): (u128, u128), port: u16) -> bool {
    (first..=last).contains(&u128::from(port))
}
