//! The rules as text that `nft -f` accepts, for people to read: `--dry-run`.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::TABLE;
use super::rule::{
    Chain, Condition, ElementType, Family, Hook, Operand, PRIORITY, PacketField, Program, Protocol,
    Rule, Set, Statement,
};

/// The whole program: one transaction that replaces an earlier one.
pub fn print(program: &Program) -> String {
    let mut text = String::with_capacity(4096);
    // The table is declared before it is deleted, so that deleting succeeds without one too.
    text.push_str(&format!(
        "table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n"
    ));
    for set in &program.sets {
        print_set(&mut text, set);
    }
    for chain in &program.chains {
        print_chain(&mut text, chain);
    }
    text.push_str("}\n");
    text
}

fn print_set(text: &mut String, set: &Set) {
    let (kind, elements): (_, Vec<_>) = match set.key {
        ElementType::Port => ("inet_service", ports(set)),
        ElementType::Address(Family::V4) => ("ipv4_addr", set.ranges.ipv4_text().collect()),
        ElementType::Address(Family::V6) => ("ipv6_addr", set.ranges.ipv6_text().collect()),
    };
    let (name, elements) = (set.name, elements.join(", "));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  set {name} {{\n    type {kind}\n    flags interval\n    elements = {{ {elements} }}\n  }}"
    );
}

fn ports(set: &Set) -> Vec<String> {
    let text = |(first, last)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    set.ranges.iter().map(text).collect()
}

fn print_chain(text: &mut String, chain: &Chain) {
    let _ = writeln!(text, "  chain {} {{", chain.name);
    if let Some(hook) = chain.hook {
        let hook = match hook {
            Hook::Prerouting => "prerouting",
            Hook::Output => "output",
        };
        let _ = writeln!(
            text,
            "    type nat hook {hook} priority {PRIORITY}; policy accept;"
        );
    }
    for rule in &chain.rules {
        let _ = writeln!(text, "    {}", print_rule(rule));
    }
    text.push_str("  }\n");
}

/// One rule in nft's syntax.
pub fn print_rule(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.conditions.iter().map(condition).collect();
    words.push(match rule.statement {
        Statement::Return => "return".to_owned(),
        Statement::Jump(chain) => format!("jump {chain}"),
        Statement::Redirect(port) => format!("redirect to :{port}"),
    });
    words.join(" ")
}

fn condition(condition: &Condition) -> String {
    let Condition { field, is, operand } = condition;
    let field = match field {
        PacketField::Family => "meta nfproto",
        PacketField::Protocol => "meta l4proto",
        PacketField::UserId => "meta skuid",
        PacketField::GroupId => "meta skgid",
        PacketField::InputInterface => "iifname",
        PacketField::OutputInterface => "oifname",
        PacketField::Source(Family::V4) => "ip saddr",
        PacketField::Source(Family::V6) => "ip6 saddr",
        PacketField::Destination(Family::V4) => "ip daddr",
        PacketField::Destination(Family::V6) => "ip6 daddr",
        PacketField::DestinationPort(Protocol::Tcp) => "tcp dport",
        PacketField::DestinationPort(Protocol::Udp) => "udp dport",
    };
    let operator = if *is { "" } else { "!= " };
    let operand = match operand {
        Operand::Family(Family::V4) => "ipv4".to_owned(),
        Operand::Family(Family::V6) => "ipv6".to_owned(),
        Operand::Protocol(Protocol::Tcp) => "tcp".to_owned(),
        Operand::Protocol(Protocol::Udp) => "udp".to_owned(),
        Operand::Id(id) => id.to_string(),
        Operand::Interface(interface) => {
            let star = if interface.is_prefix { "*" } else { "" };
            format!("\"{}{star}\"", interface.name)
        }
        Operand::Address(bytes) => address(bytes),
        Operand::Port(port) => port.to_string(),
        Operand::Set(name) => format!("@{name}"),
    };
    format!("{field} {operator}{operand}")
}

fn address(bytes: &[u8]) -> String {
    if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
        return Ipv6Addr::from(bytes).to_string();
    }
    // A whole address, or the bytes of a prefix.
    let mut whole = [0; 4];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    let address = Ipv4Addr::from(whole);
    match bytes.len() * 8 {
        32 => address.to_string(),
        bits => format!("{address}/{bits}"),
    }
}
