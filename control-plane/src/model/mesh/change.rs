//! The differences that a source reports, and what they changed.

use std::fmt;

use crate::model::manifest::object::ObjectId;
use crate::model::manifest::read::Object;

/// Where an object stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file by its path relative to the folder, and the 1-based line at which the object begins.
    File { file: String, line: usize },
    /// The Kubernetes API, with the kind that the object has there: a Workload may be a `Pod`.
    Cluster { kind: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line } => write!(f, "{file}:{line}"),
            Origin::Cluster { kind } => write!(f, "{kind} in the cluster"),
        }
    }
}

/// Objects that differ from the last report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Added, or in place of the one of the same kind and name; also one that only moved.
    pub set: Vec<(Object, Origin)>,
    pub removed: Vec<ObjectId>,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}
