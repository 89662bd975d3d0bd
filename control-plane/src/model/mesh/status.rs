//! Status conditions of objects, as Kubernetes spells them.

use super::change::{LeftOut, Origin};
use crate::model::manifest::object::ObjectId;
use crate::model::manifest::route::Parent;

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

/// Which fields of an object are not used because they cannot be read.
pub fn fields_left_out(parts: &[LeftOut]) -> Option<Condition> {
    let messages: Vec<String> = parts.iter().map(LeftOut::to_string).collect();
    let all = || Condition::no("AllFields", "FieldLeftOut", messages.join("; "));
    (!messages.is_empty()).then(all)
}

/// Conditions of a route at one of its parents (Gateway API's RouteParentStatus), or of a policy at one
/// of its targets (PolicyAncestorStatus).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    pub parent: Parent,
    pub conditions: Vec<Condition>,
}

/// An object with its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    pub id: ObjectId,
    /// Where it was read.
    pub origin: Origin,
    /// Of a route in sum; none of one that only another controller handles.
    pub conditions: Vec<Condition>,
    /// Of a route: those that are Services, in order. Of a BackendTLSPolicy: its targets.
    pub parents: Vec<ParentStatus>,
}
