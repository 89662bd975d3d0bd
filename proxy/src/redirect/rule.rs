//! The parts of rules: sets, chains, conditions and statements, as the kernel has them, but not
//! encoded. `text` prints them in nft's syntax, `messages` encodes them for netlink; neither
//! decides anything.

use super::options::Interface;
use super::ranges::Ranges;

/// Before the chains of other tables that translate destinations, whose priority is -100: the first
/// translation of a packet counts. Packets that return from here may still be translated by them.
pub const PRIORITY: i32 = -101;

/// The content of the table.
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

/// The type of a set's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    Port,
    Address(Family),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    /// `None`: a chain that other chains jump to.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Output,
}

/// If all conditions hold, the statement is executed.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    pub conditions: Vec<Condition>,
    pub statement: Statement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Returns to the calling chain, or leaves the table without a translation.
    Return,
    Jump(&'static str),
    /// Redirects to this port of the namespace itself.
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
    /// The first bytes of an address; fewer than its length are a prefix.
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
