//! Compares the installed rules with those of the options: `--check`.
//!
//! The kernel lists the table; each attribute that an installation would send must be among those
//! listed, and there must be no other set, element, chain or rule. Attributes that the kernel adds
//! (handles, use counts, defaults) are not compared.

use std::collections::BTreeMap;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementFlags, SetElementList,
    SetElementMessage, SetMessage, TableAttribute, TableMessage,
};

use super::TABLE;
use super::messages::{RuleBody, body, chain_attributes, elements, set_attributes};
use super::netlink::{Netlink, NetlinkError};
use super::rule::{Chain, Program, Set};
use super::text::print_rule;

type Elements = Vec<ListAttribute<SetElementAttribute>>;

/// The content of the table.
#[derive(Default)]
struct InstalledTable {
    sets: BTreeMap<String, (Vec<SetAttribute>, Elements)>,
    chains: BTreeMap<String, (Vec<ChainAttribute>, Vec<RuleBody>)>,
}

/// The differences, as text; empty: there are none.
///
/// # Errors
/// When the rules cannot be listed.
pub fn differences(netlink: &Netlink, program: &Program) -> Result<Vec<String>, NetlinkError> {
    let Some(mut table) = read(netlink)? else {
        return Ok(vec![format!("there is no table inet {TABLE}")]);
    };
    let mut differences = Vec::new();
    for set in &program.sets {
        let found = table.sets.remove(set.name);
        differences.extend(difference_of_set(set, found));
    }
    for chain in &program.chains {
        let found = table.chains.remove(chain.name);
        differences.extend(difference_of_chain(chain, found));
    }
    let more = table.sets.keys().map(|name| format!("set {name}"));
    let more = more.chain(table.chains.keys().map(|name| format!("chain {name}")));
    differences.extend(more.map(|what| format!("{what} does not belong there")));
    Ok(differences)
}

fn difference_of_set(set: &Set, found: Option<(Vec<SetAttribute>, Elements)>) -> Option<String> {
    let Some((attributes, found)) = found else {
        return Some(format!("set {} is missing", set.name));
    };
    if !covers(&attributes, &set_attributes(set)) {
        return Some(format!("set {} is of another kind", set.name));
    }
    let sorted = |elements: Elements| {
        let mut keys: Vec<_> = elements.into_iter().filter_map(key).collect();
        keys.sort_unstable();
        keys
    };
    (sorted(found) != sorted(elements(set))).then(|| format!("set {} has other elements", set.name))
}

/// An element's key, and whether it ends a range; `None` for the end marker before the first range,
/// which nft adds and which has no meaning.
fn key(element: ListAttribute<SetElementAttribute>) -> Option<(Vec<u8>, bool)> {
    use netlink_packet_netfilter::nftables::DataAttribute;
    let ListAttribute::Element(attributes) = element else {
        return None;
    };
    let key = attributes.iter().find_map(|attribute| match attribute {
        SetElementAttribute::Key(DataAttribute::Value(bytes)) => Some(bytes.clone()),
        _ => None,
    })?;
    let is_end = attributes.iter().any(|attribute| {
        matches!(attribute, SetElementAttribute::Flags(flags)
            if flags.contains(SetElementFlags::IntervalEnd))
    });
    (!is_end || key.iter().any(|byte| *byte != 0)).then_some((key, is_end))
}

fn difference_of_chain(
    chain: &Chain,
    found: Option<(Vec<ChainAttribute>, Vec<RuleBody>)>,
) -> Option<String> {
    let name = chain.name;
    let Some((attributes, found)) = found else {
        return Some(format!("chain {name} is missing"));
    };
    if !covers(&attributes, &chain_attributes(chain)) {
        return Some(format!("chain {name} is hooked in elsewhere"));
    }
    for (number, rule) in (1..).zip(&chain.rules) {
        let is_there = found
            .get(number - 1)
            .is_some_and(|found| is_same_rule(found, &body(rule)));
        if !is_there {
            let rule = print_rule(rule);
            return Some(format!("chain {name}: rule {number} is not `{rule}`"));
        }
    }
    (found.len() > chain.rules.len())
        .then(|| format!("chain {name} has more rules than {}", chain.rules.len()))
}

fn is_same_rule(found: &RuleBody, wanted: &RuleBody) -> bool {
    let mut pairs = found.iter().zip(wanted);
    found.len() == wanted.len() && pairs.all(|(found, wanted)| is_same_expression(found, wanted))
}

fn is_same_expression(
    found: &ListAttribute<ExpressionAttribute>,
    wanted: &ListAttribute<ExpressionAttribute>,
) -> bool {
    match (expression(found), expression(wanted)) {
        (Some(Expressions::Meta(found)), Some(Expressions::Meta(wanted))) => covers(found, wanted),
        (Some(Expressions::Cmp(found)), Some(Expressions::Cmp(wanted))) => covers(found, wanted),
        (Some(Expressions::Lookup(found)), Some(Expressions::Lookup(wanted))) => {
            covers(found, wanted)
        }
        (Some(Expressions::Payload(found)), Some(Expressions::Payload(wanted))) => {
            covers(found, wanted)
        }
        (Some(Expressions::Immediate(found)), Some(Expressions::Immediate(wanted))) => {
            covers(found, wanted)
        }
        (
            Some(Expressions::Other {
                expression_type: a,
                attributes: found,
            }),
            Some(Expressions::Other {
                expression_type: b,
                attributes: wanted,
            }),
        ) => a == b && covers(found, wanted),
        _ => false,
    }
}

fn expression(attribute: &ListAttribute<ExpressionAttribute>) -> Option<&Expressions> {
    let ListAttribute::Element(attributes) = attribute else {
        return None;
    };
    attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(expression) => Some(expression),
        _ => None,
    })
}

fn covers<A: PartialEq>(found: &[A], wanted: &[A]) -> bool {
    wanted.iter().all(|attribute| found.contains(attribute))
}

/// The table as the kernel lists it; `None`: it does not exist.
fn read(netlink: &Netlink) -> Result<Option<InstalledTable>, NetlinkError> {
    let all = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
    let own = TableAttribute::Name(TABLE.to_owned());
    let is_there = netlink.list(all)?.into_iter().any(|message| {
        matches!(message, NfTablesMessage::NewTable(table) if table.attributes.contains(&own))
    });
    if !is_there {
        return Ok(None);
    }
    let mut table = InstalledTable::default();
    read_sets(netlink, &mut table)?;
    read_chains(netlink, &mut table)?;
    Ok(Some(table))
}

fn read_sets(netlink: &Netlink, table: &mut InstalledTable) -> Result<(), NetlinkError> {
    let own = SetAttribute::Table(TABLE.to_owned());
    let attributes = vec![own.clone()];
    for message in netlink.list(NfTablesMessage::GetSet(SetMessage { attributes }))? {
        let NfTablesMessage::NewSet(SetMessage { attributes }) = message else {
            continue;
        };
        let name = attributes.iter().find_map(|attribute| match attribute {
            SetAttribute::Name(name) => Some(name.clone()),
            _ => None,
        });
        if let Some(name) = name.filter(|_| attributes.contains(&own)) {
            let elements = read_elements(netlink, &name)?;
            table.sets.insert(name, (attributes, elements));
        }
    }
    Ok(())
}

fn read_elements(netlink: &Netlink, set: &str) -> Result<Elements, NetlinkError> {
    let attributes = vec![
        SetElementList::Table(TABLE.to_owned()),
        SetElementList::Set(set.to_owned()),
    ];
    let question = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
    let mut elements = Vec::new();
    for message in netlink.list(question)? {
        let NfTablesMessage::NewSetElement(SetElementMessage { attributes }) = message else {
            continue;
        };
        for attribute in attributes {
            if let SetElementList::Elements(more) = attribute {
                elements.extend(more);
            }
        }
    }
    Ok(elements)
}

fn read_chains(netlink: &Netlink, table: &mut InstalledTable) -> Result<(), NetlinkError> {
    let own = ChainAttribute::Table(TABLE.to_owned());
    let all = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    for message in netlink.list(all)? {
        let NfTablesMessage::NewChain(ChainMessage { attributes }) = message else {
            continue;
        };
        let name = attributes.iter().find_map(|attribute| match attribute {
            ChainAttribute::Name(name) => Some(name.clone()),
            _ => None,
        });
        if let Some(name) = name.filter(|_| attributes.contains(&own)) {
            table.chains.insert(name, (attributes, Vec::new()));
        }
    }
    let own = RuleAttribute::Table(TABLE.to_owned());
    let attributes = vec![own.clone()];
    for message in netlink.list(NfTablesMessage::GetRule(RuleMessage { attributes }))? {
        let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else {
            continue;
        };
        if !attributes.contains(&own) {
            continue;
        }
        let (mut chain, mut expressions) = (None, RuleBody::new());
        for attribute in attributes {
            match attribute {
                RuleAttribute::Chain(name) => chain = Some(name),
                RuleAttribute::Expressions(all) => expressions = all,
                _ => {}
            }
        }
        let rules = chain.and_then(|chain| table.chains.get_mut(&chain));
        if let Some((_, rules)) = rules {
            rules.push(expressions);
        }
    }
    Ok(())
}
