//! The rules as netlink messages (`linux/netfilter/nf_tables.h`).
//!
//! Attributes have the order and the values in which the kernel lists them, so that the installed
//! rules can be compared with those of the options (`installed`).

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook,
    HookNumber, Immediate, InetHookNumber, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage,
    Operator, Payload, Register, RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute,
    SetElementFlags, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage, Verdict, VerdictAttribute,
};

use super::TABLE;
use super::rule::{
    Chain, Condition, ElementType, Family, Operand, PRIORITY, PacketField, Program, Protocol, Rule,
    Set, Statement,
};

/// NFPROTO_IPV4 and NFPROTO_IPV6.
const NFPROTO: [u8; 2] = [2, 10];
/// IPPROTO_TCP and IPPROTO_UDP.
const IPPROTO: [u8; 2] = [6, 17];
/// nft's numbers for the types of a set's elements; the kernel keeps them for nft's listing.
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
/// NFT_PAYLOAD_NETWORK_HEADER and NFT_PAYLOAD_TRANSPORT_HEADER.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// NFT_LOOKUP_F_INV: values that are not in the set match.
const LOOKUP_INVERTED: u32 = 1;
/// Attributes of the expression `redir`, and NF_NAT_RANGE_PROTO_SPECIFIED: the redirection has a
/// port.
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
const NFTA_REDIR_FLAGS: u16 = 3;
const PORT_IS_GIVEN: u32 = 2;
/// NF_ACCEPT.
const ACCEPT: u32 = 1;
/// IFNAMSIZ.
const INTERFACE_NAME: usize = 16;

/// Expressions of a rule.
pub type RuleBody = Vec<ListAttribute<ExpressionAttribute>>;

/// A message, and the object that it creates, for error messages.
pub struct BatchMessage {
    pub message: NfTablesMessage,
    pub what: BatchTarget,
}

/// The object that a message creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchTarget {
    Table,
    Set(&'static str),
    Chain(&'static str),
    Rule { chain: &'static str, text: String },
}

/// Deletes the table, which need not exist.
pub fn removal() -> Vec<BatchMessage> {
    let table = || TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    };
    let about_table = |message| BatchMessage {
        message,
        what: BatchTarget::Table,
    };
    vec![
        about_table(NfTablesMessage::NewTable(table())),
        about_table(NfTablesMessage::DeleteTable(table())),
    ]
}

/// Replaces the table.
pub fn installation(program: &Program) -> Vec<BatchMessage> {
    let mut batch = removal();
    batch.extend(removal().into_iter().take(1));
    for (id, set) in program.sets.iter().enumerate() {
        let what = BatchTarget::Set(set.name);
        // The kernel requires an id, by which later messages of the batch could refer to the set.
        let mut attributes = set_attributes(set);
        attributes.push(SetAttribute::Id(id as u32 + 1));
        let new = NfTablesMessage::NewSet(SetMessage { attributes });
        let filled = NfTablesMessage::NewSetElement(SetElementMessage {
            attributes: vec![
                SetElementList::Table(TABLE.to_owned()),
                SetElementList::Set(set.name.to_owned()),
                SetElementList::Elements(elements(set)),
            ],
        });
        for message in [new, filled] {
            let what = what.clone();
            batch.push(BatchMessage { message, what });
        }
    }
    for chain in &program.chains {
        let attributes = chain_attributes(chain);
        batch.push(BatchMessage {
            message: NfTablesMessage::NewChain(ChainMessage { attributes }),
            what: BatchTarget::Chain(chain.name),
        });
    }
    for chain in &program.chains {
        for rule in &chain.rules {
            let attributes = vec![
                RuleAttribute::Table(TABLE.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
                RuleAttribute::Expressions(body(rule)),
            ];
            batch.push(BatchMessage {
                message: NfTablesMessage::NewRule(RuleMessage { attributes }),
                what: BatchTarget::Rule {
                    chain: chain.name,
                    text: super::text::print_rule(rule),
                },
            });
        }
    }
    batch
}

pub fn set_attributes(set: &Set) -> Vec<SetAttribute> {
    let kind = match set.key {
        ElementType::Port => TYPE_INET_SERVICE,
        ElementType::Address(Family::V4) => TYPE_IPV4_ADDR,
        ElementType::Address(Family::V6) => TYPE_IPV6_ADDR,
    };
    vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(set.name.to_owned()),
        SetAttribute::Flags(SetFlags::Interval),
        SetAttribute::KeyType(kind),
        SetAttribute::KeyLen(width(set.key) as u32),
    ]
}

/// Bytes of an element's key.
fn width(key: ElementType) -> usize {
    match key {
        ElementType::Port => 2,
        ElementType::Address(Family::V4) => 4,
        ElementType::Address(Family::V6) => 16,
    }
}

/// Each range has an element for its beginning and one, with the end flag, for the value after its
/// last; a range that ends with the last address of all has no end element.
pub fn elements(set: &Set) -> Vec<ListAttribute<SetElementAttribute>> {
    let width = width(set.key);
    let key = |number: u128| {
        let bytes = number.to_be_bytes();
        let key = bytes.get(bytes.len() - width..).unwrap_or_default();
        SetElementAttribute::Key(DataAttribute::Value(key.to_vec()))
    };
    let most = u128::MAX >> (128 - 8 * width);
    let mut all = Vec::new();
    for (first, last) in set.ranges.iter() {
        all.push(ListAttribute::Element(vec![key(first)]));
        if last < most {
            let end = SetElementAttribute::Flags(SetElementFlags::IntervalEnd);
            all.push(ListAttribute::Element(vec![key(last + 1), end]));
        }
    }
    all
}

pub fn chain_attributes(chain: &Chain) -> Vec<ChainAttribute> {
    let mut attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain.name.to_owned()),
    ];
    if let Some(hook) = chain.hook {
        let number = match hook {
            super::rule::Hook::Prerouting => InetHookNumber::PreRouting,
            super::rule::Hook::Output => InetHookNumber::LocalOut,
        };
        attributes.extend([
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(number)),
                Hook::Priority(PRIORITY as u32),
            ]),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type("nat".to_owned()),
        ]);
    }
    attributes
}

/// A rule's expressions.
pub fn body(rule: &Rule) -> RuleBody {
    let mut all = Vec::new();
    for condition in &rule.conditions {
        load(condition.field, &mut all);
        all.push(compare(condition));
    }
    match rule.statement {
        Statement::Return => all.push(verdict(vec![VerdictAttribute::Code(Verdict::Return)])),
        Statement::Jump(chain) => all.push(verdict(vec![
            VerdictAttribute::Code(Verdict::Jump),
            VerdictAttribute::Chain(chain.to_owned()),
        ])),
        Statement::Redirect(port) => {
            let port = DataAttribute::Value(port.to_be_bytes().to_vec());
            all.push(Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Reg1),
                Immediate::Data(port),
            ]));
            let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
            all.push(Expressions::Other {
                expression_type: "redir".to_owned(),
                attributes: vec![
                    number(NFTA_REDIR_REG_PROTO_MIN, Register::Reg1.into()),
                    number(NFTA_REDIR_FLAGS, PORT_IS_GIVEN),
                ],
            });
        }
    }
    all.into_iter().map(ListAttribute::from).collect()
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

/// Loads a field into register 1, after checks that the packet has the field.
fn load(field: PacketField, all: &mut Vec<Expressions>) {
    let meta = |key| {
        Expressions::Meta(vec![
            Meta::Key(key),
            Meta::DestinationRegister(Register::Reg1),
        ])
    };
    let payload = |base, offset, len| {
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(len),
        ])
    };
    let mut require = |key, value: u8| all.extend([meta(key), equal(true, vec![value])]);
    let loaded = match field {
        PacketField::Family => meta(MetaKey::Nfproto),
        PacketField::Protocol => meta(MetaKey::L4Proto),
        PacketField::UserId => meta(MetaKey::SocketUserId),
        PacketField::GroupId => meta(MetaKey::SocketGroupId),
        PacketField::InputInterface => meta(MetaKey::Iifname),
        PacketField::OutputInterface => meta(MetaKey::Oifname),
        PacketField::Source(family) => {
            require(MetaKey::Nfproto, nfproto(family));
            match family {
                Family::V4 => payload(NETWORK_HEADER, 12, 4),
                Family::V6 => payload(NETWORK_HEADER, 8, 16),
            }
        }
        PacketField::Destination(family) => {
            require(MetaKey::Nfproto, nfproto(family));
            match family {
                Family::V4 => payload(NETWORK_HEADER, 16, 4),
                Family::V6 => payload(NETWORK_HEADER, 24, 16),
            }
        }
        PacketField::DestinationPort(protocol) => {
            require(MetaKey::L4Proto, ipproto(protocol));
            payload(TRANSPORT_HEADER, 2, 2)
        }
    };
    all.push(loaded);
}

/// Compares register 1 with the operand, in the operand's length.
fn compare(condition: &Condition) -> Expressions {
    let bytes = match &condition.operand {
        Operand::Set(name) => {
            let flags = if condition.is { 0 } else { LOOKUP_INVERTED };
            return Expressions::Lookup(vec![
                Lookup::Set((*name).to_owned()),
                Lookup::SourceRegister(Register::Reg1),
                Lookup::Flags(flags),
            ]);
        }
        Operand::Family(family) => vec![nfproto(*family)],
        Operand::Protocol(protocol) => vec![ipproto(*protocol)],
        Operand::Id(id) => id.to_ne_bytes().to_vec(),
        Operand::Interface(interface) => {
            let mut name = interface.name.clone().into_bytes();
            if !interface.is_prefix {
                name.resize(INTERFACE_NAME, 0);
            }
            name
        }
        Operand::Address(bytes) => bytes.to_vec(),
        Operand::Port(port) => port.to_be_bytes().to_vec(),
    };
    equal(condition.is, bytes)
}

fn equal(is: bool, bytes: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(if is {
            Operator::Equal
        } else {
            Operator::NotEqual
        }),
        Cmp::Data(DataAttribute::Value(bytes)),
    ])
}

fn nfproto(family: Family) -> u8 {
    let [v4, v6] = NFPROTO;
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

fn ipproto(protocol: Protocol) -> u8 {
    let [tcp, udp] = IPPROTO;
    match protocol {
        Protocol::Tcp => tcp,
        Protocol::Udp => udp,
    }
}
