//! The differences that a source reports, and what they changed.

use std::fmt;
use std::sync::Arc;

use crate::model::manifest::object::{FieldError, ObjectId};
use crate::model::manifest::read::Object;

/// Where an object stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file by its path relative to the folder, and the 1-based line at which the object begins.
    File { file: String, line: usize },
    /// The Kubernetes API, with the kind that the object has there: a Workload may be a `Pod`.
    Cluster {
        kind: &'static str,
        /// Of objects whose status is written, and of those that cannot be read whole.
        details: Option<Arc<ClusterDetails>>,
    },
}

/// Facts of an object in a cluster that its status needs besides its conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDetails {
    /// `metadata.generation` of what was read.
    pub generation: Option<i64>,
    pub left_out: Vec<LeftOut>,
}

/// A part of an object that cannot be read, and what that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub field: FieldError,
    pub effect: LeftOutEffect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOutEffect {
    Unused,
    /// The greatest value that is allowed holds.
    Bounded,
    /// A rule of an AuthorizationPolicy allows nothing, or denies everything.
    RuleRefuses,
    /// A mode of a MeshPolicy becomes the strictest.
    StrictestMode,
    /// A policy refuses what it can for its targets.
    Strictest,
    /// A policy refuses what it can for all workloads of its namespace.
    StrictestInNamespace,
    /// One of several matches of a route's rule.
    MatchDropped,
    /// Of the rule with this index, as written.
    RuleDropped(usize),
    RuleFails(usize),
    /// Of a backend among others.
    ShareFails,
    /// To the services that a policy targets.
    CallsFail,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.path.is_empty() {
            write!(f, "{}: ", self.field.path)?;
        }
        write!(f, "{}; {}", self.field.message, self.effect)
    }
}

impl fmt::Display for LeftOutEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeftOutEffect::Unused => "this part is left out",
            LeftOutEffect::Bounded => "the greatest value that is allowed holds",
            LeftOutEffect::RuleRefuses => "so the rule lets nothing through",
            LeftOutEffect::StrictestMode => "so the strictest mode holds",
            LeftOutEffect::Strictest => "so the policy refuses all that it can for its targets",
            LeftOutEffect::StrictestInNamespace => {
                "so the policy refuses all that it can for all workloads of its namespace"
            }
            LeftOutEffect::MatchDropped => "this match is left out",
            LeftOutEffect::RuleDropped(_) => "the rule is left out",
            LeftOutEffect::RuleFails(_) => {
                "what the rule matches is answered with 500, or UNAVAILABLE to gRPC"
            }
            LeftOutEffect::CallsFail => "so calls to its targets fail",
            LeftOutEffect::ShareFails => {
                "this backend's share is answered with 500, or UNAVAILABLE to gRPC; connections of a TCPRoute or TLSRoute are closed"
            }
        })
    }
}

impl Origin {
    /// In a cluster, with nothing more to say.
    pub fn cluster(kind: &'static str) -> Self {
        let details = None;
        Origin::Cluster { kind, details }
    }

    /// Whether it stands in a cluster, as an object of this kind.
    pub fn is_of(&self, kind: &str) -> bool {
        matches!(self, Origin::Cluster { kind: own, .. } if *own == kind)
    }

    fn details(&self) -> Option<&ClusterDetails> {
        match self {
            Origin::File { .. } => None,
            Origin::Cluster { details, .. } => details.as_deref(),
        }
    }

    /// `metadata.generation`, where the status is written.
    pub fn generation(&self) -> Option<i64> {
        self.details()?.generation
    }

    /// Parts of the object that cannot be read.
    pub fn left_out(&self) -> &[LeftOut] {
        self.details().map_or(&[], |details| &details.left_out)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line } => write!(f, "{file}:{line}"),
            Origin::Cluster { kind, .. } => write!(f, "{kind} in the cluster"),
        }
    }
}

/// Objects that differ from the last report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectDelta {
    /// Added, or in place of the one of the same kind and name; also one that only moved.
    pub set: Vec<(Object, Origin)>,
    pub removed: Vec<ObjectId>,
}

impl ObjectDelta {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}
