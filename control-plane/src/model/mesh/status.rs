//! Status conditions of objects, as Kubernetes spells them.

use super::change::Origin;
use crate::model::manifest::object::ObjectId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `AllPorts`, `Unique`, `ProtocolsAgree`, `TargetPortsFound`, …
    pub kind: &'static str,
    pub status: bool,
    /// CamelCase, for machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Condition {
    pub fn yes(kind: &'static str, reason: &'static str) -> Self {
        Condition {
            kind,
            status: true,
            reason,
            message: String::new(),
        }
    }

    pub fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Condition {
            kind,
            status: false,
            reason,
            message: message.into(),
        }
    }

    pub fn accepted() -> Self {
        Self::yes("Accepted", "Accepted")
    }
}

/// An object with what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    pub id: ObjectId,
    /// Where it was read.
    pub origin: Origin,
    pub conditions: Vec<Condition>,
}
