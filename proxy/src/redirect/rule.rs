//! What rules are made of: sets, chains, conditions and statements, in the kernel's terms but for the
//! wire. `text` prints them as nft reads them, `messages` writes them as netlink does; neither
//! decides anything.

use super::options::Interface;
use super::ranges::Ranges;

/// Before the chains of other tables, whose priority for changes of the destination is -100: the
/// first of several translations counts. What returns from here, theirs may still translate.
pub const PRIORITY: i32 = -101;

/// Everything in the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

/// A named set of ranges.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: ElementType,
    pub ranges: Ranges,
}

/// What a set's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    Port,
    Address(Family),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    /// `None`: other chains jump to it.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Output,
}

/// All conditions hold: the statement is executed.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    pub conditions: Vec<Condition>,
    pub statement: Statement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// To the calling chain, or out of the table without a translation.
    Return,
    Jump(&'static str),
    /// To this port of the namespace itself.
    Redirect(u16),
}

/// A field is, or is not, an operand.
#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    pub field: PacketField,
    pub is: bool,
    pub operand: Operand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketField {
    Family,
    Protocol,
    UserId,
    GroupId,
    InputInterface,
    OutputInterface,
    Source(Family),
    Destination(Family),
    DestinationPort(Protocol),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Operand {
    Family(Family),
    Protocol(Protocol),
    Id(u32),
    Interface(Interface),
    /// The first bytes of an address: fewer than its length are a prefix.
    Address(&'static [u8]),
    Port(u16),
    Set(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Condition {
    pub fn is(field: PacketField, operand: Operand) -> Self {
        Self {
            field,
            is: true,
            operand,
        }
    }

    pub fn is_not(field: PacketField, operand: Operand) -> Self {
        Self {
            is: false,
            ..Self::is(field, operand)
        }
    }

    pub fn tcp() -> Self {
        Self::is(PacketField::Protocol, Operand::Protocol(Protocol::Tcp))
    }
}

impl Rule {
    pub fn new(conditions: impl Into<Vec<Condition>>, statement: Statement) -> Self {
        Self {
            conditions: conditions.into(),
            statement,
        }
    }
}
