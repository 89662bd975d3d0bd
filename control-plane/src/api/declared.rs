//! What the API asks of the sources and the model: the objects people wrote, and what is wrong
//! with them.

use super::types::{Finding, Objects};

/// The declared state, as it was read.
pub trait Declared: Send + Sync + 'static {
    /// Every object with its conditions, and the files that could not be read.
    fn objects(&self) -> Objects;

    /// What is wrong with the objects, beyond what their conditions and file errors say.
    fn findings(&self) -> Vec<Finding>;

    /// Every declared workload.
    fn workloads(&self) -> Vec<DeclaredWorkload>;
}

/// A declared workload, as far as the API needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredWorkload {
    pub namespace: String,
    pub name: String,
    pub service_account: String,
    pub addresses: Vec<String>,
    /// Services that select it, as `namespace/name`.
    pub services: Vec<String>,
    /// Whether a proxy of ours should run beside it.
    pub sidecar: bool,
    /// Where it was declared.
    pub file: String,
}
