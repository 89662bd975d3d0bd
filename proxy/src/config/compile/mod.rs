//! Protobuf → the types the data path runs by. Nothing past this module sees a protobuf.
//!
//! - `support`: paths, errors, and the macros by which every field is supported, ignored with a
//!   reason, or refused; `values`, `matcher`, `headers`, `access_log`: what resources share
//! - `listener` (with `chain_match`, `http`, `protocol`), `route` (with `action`, `retry`),
//!   `cluster` (with `discovery`, `balancing`, `resilience`, `cluster_http`), `endpoint`,
//!   `secret`, `tls`, `policy`: one file per resource or part of one
//! - `refs`: names a resource refers to; `link`: the next snapshot out of the last and what changed
//!
//! [`Compiler::apply`] is the way in: it compiles what changed, links what refers to it, publishes.

// Messages are destructured whole, deprecated fields too.
#![allow(deprecated)]

mod access_log;
mod action;
mod balancing;
mod chain_match;
mod cluster;
mod cluster_http;
mod discovery;
mod endpoint;
mod headers;
mod http;
mod link;
mod listener;
mod matcher;
mod policy;
mod protocol;
mod refs;
mod resilience;
mod retry;
mod route;
mod secret;
pub(crate) mod support;
mod tls;
mod values;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xds_proto::envoy::config::cluster::v3 as cluster_pb;
use xds_proto::envoy::config::endpoint::v3 as endpoint_pb;
use xds_proto::envoy::config::listener::v3 as listener_pb;
use xds_proto::envoy::config::route::v3 as route_pb;
use xds_proto::envoy::extensions::transport_sockets::tls::v3 as secret_pb;

use self::endpoint::Assignment;
pub use self::link::{Changes, Outcome, References, Rejected};
pub use self::secret::SecretStore;
use self::support::At;
pub use self::support::CompileError;
use super::Name;
use super::cluster::Cluster;
use super::listener::Listener;
use super::route::RouteConfig;
use super::secret::Secret;
use crate::telemetry::access_log::Sinks;
use crate::telemetry::registry::{Registry, RegistryError};
use crate::telemetry::resource::{ClusterFamilies, ListenerFamilies};

/// Compiles resources. One per process, on the control thread.
pub struct Compiler {
    sinks: Arc<Sinks>,
    secrets: Arc<SecretStore>,
    listener_metrics: ListenerFamilies,
    cluster_metrics: ClusterFamilies,
    ids: AtomicU64,
    pub counts: Counts,
    /// Assignments whose cluster is not there yet, by EDS service name.
    waiting: HashMap<Name, Assignment>,
    /// Listeners whose routes are not all there yet; the versions before them go on serving.
    warming: HashMap<Name, Arc<Listener>>,
}

/// How many resources of each kind were compiled, and how many only linked anew, since start.
#[derive(Debug, Default)]
pub struct Counts {
    pub listeners: AtomicU64,
    pub routes: AtomicU64,
    pub clusters: AtomicU64,
    pub endpoints: AtomicU64,
    pub secrets: AtomicU64,
    pub relinked: AtomicU64,
}

impl Compiler {
    /// # Errors
    /// When the metric families were registered before.
    pub fn new(
        registry: &Registry,
        sinks: Arc<Sinks>,
        secrets: Arc<SecretStore>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            sinks,
            secrets,
            listener_metrics: ListenerFamilies::new(registry)?,
            cluster_metrics: ClusterFamilies::new(registry)?,
            ids: AtomicU64::new(1),
            counts: Counts::default(),
            waiting: HashMap::new(),
            warming: HashMap::new(),
        })
    }

    /// Where named secrets live; whoever provides one sets it there.
    pub fn secrets(&self) -> &Arc<SecretStore> {
        &self.secrets
    }

    /// Compiles a listener, not yet linked. `previous`: the version before it.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn listener(
        &self,
        m: &listener_pb::Listener,
        previous: Option<&Listener>,
    ) -> Result<Listener, CompileError> {
        self.counts.listeners.fetch_add(1, Relaxed);
        listener::listener(self, At::root(""), m, previous)
    }

    /// Compiles a route configuration, not yet linked.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn route_config(
        &self,
        m: &route_pb::RouteConfiguration,
    ) -> Result<RouteConfig, CompileError> {
        self.counts.routes.fetch_add(1, Relaxed);
        route::route_config(At::root(""), m)
    }

    /// Compiles a cluster, without endpoints. `previous`: the version before it, whose limits,
    /// counters and, where connections may be shared, pools it takes over.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn cluster(
        &self,
        m: &cluster_pb::Cluster,
        previous: Option<&Cluster>,
    ) -> Result<Cluster, CompileError> {
        self.counts.clusters.fetch_add(1, Relaxed);
        cluster::cluster(self, At::root(""), m, previous)
    }

    /// Checks an assignment.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn check_endpoints(
        &self,
        m: &endpoint_pb::ClusterLoadAssignment,
    ) -> Result<(), CompileError> {
        self.assignment(m).map(drop)
    }

    fn assignment(
        &self,
        m: &endpoint_pb::ClusterLoadAssignment,
    ) -> Result<Assignment, CompileError> {
        self.counts.endpoints.fetch_add(1, Relaxed);
        let at = At::root("");
        let assignment = endpoint::assignment(at, m)?;
        assignment.addresses(at)?;
        Ok(assignment)
    }

    /// Compiles a secret.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn secret(&self, m: &secret_pb::Secret) -> Result<Secret, CompileError> {
        self.counts.secrets.fetch_add(1, Relaxed);
        secret::secret(At::root(""), m)
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests;
