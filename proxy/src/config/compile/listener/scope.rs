//! What the parts of a listener share while it compiles.

use crate::config::compile::Compiler;
use crate::config::compile::refs::{ClusterNames, Fetches, RouteNames};
use crate::config::listener::ListenerDef;

/// What the chains of one listener share while they compile.
pub struct Scope<'a> {
    pub compiler: &'a Compiler,
    pub clusters: ClusterNames,
    pub routes: RouteNames,
    pub fetches: Fetches,
    /// The chains of the previous version, whose TLS contexts, with their resumable sessions, are
    /// kept where their settings are the same.
    pub before: Option<&'a ListenerDef>,
}
