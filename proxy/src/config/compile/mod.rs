//! Protobuf → the types the data path runs by. No code outside this module reads protobuf
//! configuration.
//!
//! - `support`: paths, errors, and the macros by which every field is supported, ignored with a
//!   reason, or refused; `values`, `matcher`, `metadata_match`, `headers`, `access_log`,
//!   `log_filter`, `lb_metadata`: what resources share
//! - `listener/`, `route/`, `filter/` (HTTP filters), `cluster/`, `endpoint`, `secret`, `tls`,
//!   `policy`, `name`: a file or folder per resource
//! - `resource`: bytes → [`Compiled`], with the names it refers to
//! - `handles`: counters and state of resources, carried over by name
//! - `refs`: indices in place of names; `link`: the next snapshot (`draft`) from the last one and
//!   what changed (`step`); `known`: the names that it finds resources by; `relink`: renews links to
//!   what changed
//!
//! [`Compiler::compile`] validates one resource; [`Compiler::publish`] links what compiled and
//! publishes it; [`Compiler::apply`] does both for messages at hand.

// Messages are destructured whole, deprecated fields too.
#![allow(deprecated)]
// A function that destructures a message whole is as long as that message.
#![allow(clippy::too_many_lines)]

mod access_log;
mod cluster;
mod draft;
mod endpoint;
mod filter;
mod handles;
mod headers;
mod known;
mod lb_metadata;
mod link;
mod listener;
mod log_filter;
mod matcher;
mod metadata_match;
pub(crate) mod name;
mod policy;
mod refs;
mod relink;
mod resource;
mod route;
mod secret;
mod step;
pub(crate) mod support;
mod tls;
pub(crate) mod values;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::Notify;
use xds_proto::envoy::config::cluster::v3 as cluster_pb;
use xds_proto::envoy::config::endpoint::v3 as endpoint_pb;
use xds_proto::envoy::config::listener::v3 as listener_pb;
use xds_proto::envoy::config::route::v3 as route_pb;
use xds_proto::envoy::extensions::transport_sockets::tls::v3 as secret_pb;
use xds_proto::google::protobuf::Any;

pub use self::endpoint::Assignment;
use self::filter::FilterScope;
pub use self::resource::{Changes, Compiled, Published, References, RejectedResource};
pub use self::secret::SecretStore;
pub use self::step::SnapshotStep;
pub use self::support::CompileError;
use self::support::{At, type_name};
use super::Name;
use super::filter::{FilterNames, HealthSwitch};
use super::secret::Secret;
use crate::connection_limit::ConnectionLimit;
use crate::jwt::remote::NewRemoteKeys;
use crate::log_sink::Sinks;
use crate::metrics::registry::{Registry, RegistryError};
use crate::metrics::resource::{
    ClusterFamilies, CompressorFamilies, CsrfFamilies, DecompressorFamilies,
    HeaderToMetadataFamilies, HealthCheckFamilies, JwtAuthnFamilies, ListenerFamilies,
};
use crate::snapshot::Listener;
use crate::snapshot::RouteConfig;
use crate::upstream::cluster::Cluster;
use crate::upstream::local::NodePlace;

/// Envoy's default (`--drain-time-s`).
const DRAIN_TIME: Duration = Duration::from_secs(600);

/// Compiles resources. One per process, on the control thread.
pub struct Compiler {
    sinks: Arc<Sinks>,
    secrets: Arc<SecretStore>,
    listener_metrics: ListenerFamilies,
    cluster_metrics: ClusterFamilies,
    health_metrics: HealthCheckFamilies,
    compressor_metrics: CompressorFamilies,
    decompressor_metrics: DecompressorFamilies,
    csrf_metrics: CsrfFamilies,
    header_to_metadata_metrics: HeaderToMetadataFamilies,
    jwt_authn_metrics: JwtAuthnFamilies,
    /// Key sets that are to be fetched, for the task that does so.
    pub remote_keys: NewRemoteKeys,
    ids: AtomicU64,
    pub counts: Counts,
    filter_names: FilterNames,
    /// Assignments by EDS service name: any number of clusters may ask for one, now or later.
    assignments: HashMap<Name, Arc<Assignment>>,
    /// Of all clusters ([`Cluster::rebuild`]).
    rebuild: Arc<Notify>,
    /// Of all clusters with health checks ([`crate::upstream::checks::ClusterChecks`]).
    check_changes: Arc<Notify>,
    /// Of all clusters ([`Cluster::place`]).
    place: Arc<NodePlace>,
    services: known::Services,
    peers: known::PeerAddresses,
    referrers: known::Referrers,
    /// Counters of clusters and listeners in use, published or not: a name has its series once.
    metrics: Mutex<handles::MetricsByName>,
    global_limit: Option<Arc<ConnectionLimit>>,
    /// By listener name.
    connection_limits: HashMap<String, Arc<ConnectionLimit>>,
    /// The bounds on connections to upstreams, by listener name.
    upstream_limits: HashMap<String, Arc<ConnectionLimit>>,
    /// How long connections of a listener that was removed may go on.
    drain_time: Duration,
    /// Whether health checks of this proxy are to fail.
    health: Arc<HealthSwitch>,
    /// The name of the node's cluster.
    local_cluster: Arc<str>,
}

/// How many resources of each kind were compiled, and how many only linked anew, since start.
#[derive(Debug)]
pub struct Counts {
    pub listeners: IntCounter,
    pub routes: IntCounter,
    pub clusters: IntCounter,
    pub endpoints: IntCounter,
    pub secrets: IntCounter,
    pub relinked: IntCounter,
    /// Optional filters that are not known and were left out.
    pub skipped_filters: IntCounter,
    /// Resources looked at because they may refer to one that changed.
    pub examined: IntCounter,
    /// Clusters that took the endpoints of an assignment.
    pub bound: IntCounter,
}

impl Counts {
    fn new(registry: &Registry) -> Result<Self, RegistryError> {
        let compiled = registry.counters(
            "anyam_config_compiled_total",
            "Resources compiled, whether or not they could be used.",
            &["kind"],
        )?;
        let of = |kind| compiled.with_label_values(&[kind]);
        Ok(Self {
            listeners: of("listeners"),
            routes: of("routes"),
            clusters: of("clusters"),
            endpoints: of("endpoints"),
            secrets: of("secrets"),
            relinked: registry.counter(
                "anyam_config_relinked_total",
                "Resources linked anew because one they refer to changed.",
            )?,
            skipped_filters: registry.counter(
                "anyam_config_optional_filters_skipped_total",
                "HTTP filters left out because they are optional and this proxy lacks them.",
            )?,
            examined: registry.counter(
                "anyam_config_examined_total",
                "Resources looked at because they may refer to one that changed.",
            )?,
            bound: registry.counter(
                "anyam_config_endpoints_bound_total",
                "Clusters that took the endpoints of an assignment.",
            )?,
        })
    }
}

impl Counts {
    /// An optional filter of a type that is not known is left out, which is logged and counted:
    /// traffic passes without it.
    fn skip_optional(&self, at: At<'_>, any: &Any) {
        self.skipped_filters.inc();
        tracing::warn!(
            "{at}: {} is not supported by this proxy and optional: requests pass without it",
            type_name(any)
        );
    }
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
            health_metrics: HealthCheckFamilies::new(registry)?,
            compressor_metrics: CompressorFamilies::new(registry)?,
            decompressor_metrics: DecompressorFamilies::new(registry)?,
            csrf_metrics: CsrfFamilies::new(registry)?,
            header_to_metadata_metrics: HeaderToMetadataFamilies::new(registry)?,
            jwt_authn_metrics: JwtAuthnFamilies::new(registry)?,
            remote_keys: NewRemoteKeys::default(),
            ids: AtomicU64::new(1),
            counts: Counts::new(registry)?,
            filter_names: FilterNames::default(),
            assignments: HashMap::new(),
            rebuild: Arc::default(),
            check_changes: Arc::default(),
            place: Arc::default(),
            services: known::Services::default(),
            peers: known::PeerAddresses::default(),
            referrers: known::Referrers::default(),
            metrics: Mutex::default(),
            global_limit: None,
            connection_limits: HashMap::new(),
            upstream_limits: HashMap::new(),
            drain_time: DRAIN_TIME,
            health: Arc::default(),
            local_cluster: "".into(),
        })
    }

    /// The named secrets; SDS, the identity agent and static secrets are written there.
    pub fn secrets(&self) -> &Arc<SecretStore> {
        &self.secrets
    }

    /// Compiles a listener, not yet linked. `previous`: the version before it, whose TLS contexts
    /// it takes over where they are the same.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn listener(
        &self,
        m: &listener_pb::Listener,
        previous: Option<&Listener>,
    ) -> Result<Listener, CompileError> {
        self.counts.listeners.inc();
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
        self.counts.routes.inc();
        route::route_config(At::root(""), m, self.filter_scope())
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
        self.counts.clusters.inc();
        cluster::cluster(self, At::root(""), m, previous)
    }

    /// Compiles an assignment, whose addresses have to be numeric.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn endpoints(
        &self,
        m: &endpoint_pb::ClusterLoadAssignment,
    ) -> Result<Compiled, CompileError> {
        self.counts.endpoints.inc();
        let at = At::root("");
        if m.cluster_name.is_empty() {
            return at.field("cluster_name").fail("is required");
        }
        let assignment = endpoint::assignment(at, m)?;
        assignment.addresses(at)?;
        Ok(Compiled::Endpoints(
            m.cluster_name.as_str().into(),
            Arc::new(assignment),
        ))
    }

    /// Compiles a secret.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn secret(&self, m: &secret_pb::Secret) -> Result<Secret, CompileError> {
        self.counts.secrets.inc();
        secret::secret(At::root(""), m)
    }

    /// Bounds downstream connections, for listeners compiled from now on.
    pub fn limit_connections(&mut self, global: Option<u64>, listeners: &HashMap<String, u64>) {
        self.global_limit = global.map(ConnectionLimit::new);
        let of_listener =
            |(name, most): (&String, &u64)| (name.clone(), ConnectionLimit::new(*most));
        self.connection_limits = listeners.iter().map(of_listener).collect();
    }

    /// Sets how long connections of a listener that was removed may go on: ten minutes, unless this
    /// is called.
    pub fn set_drain_time(&mut self, time: Duration) {
        self.drain_time = time;
    }

    /// Sets what health checks of this proxy are answered by: `/healthcheck/fail`, and the name of
    /// the node's cluster.
    pub fn answer_health_checks(&mut self, health: Arc<HealthSwitch>, local_cluster: &str) {
        self.health = health;
        self.local_cluster = local_cluster.into();
    }

    /// Says where the proxy is, for clusters compiled from now on.
    pub fn set_place(&mut self, place: NodePlace) {
        self.place = Arc::new(place);
    }

    /// Limits a listener's open connections, and the connections to upstreams that are opened for
    /// them; near the limit its idle connections are closed.
    pub fn limit_listener(&mut self, listener: &str, most: u64) {
        self.connection_limits
            .insert(listener.to_owned(), ConnectionLimit::closing_idle(most));
        self.upstream_limits
            .insert(listener.to_owned(), ConnectionLimit::new(most));
    }

    /// The bounds on connections of a listener; `global`: that of the process too.
    fn connection_limits(&self, listener: &str, global: bool) -> Vec<Arc<ConnectionLimit>> {
        let global = self.global_limit.iter().filter(|_| global);
        self.connection_limits
            .get(listener)
            .into_iter()
            .chain(global)
            .cloned()
            .collect()
    }

    fn filter_scope(&self) -> FilterScope<'_> {
        FilterScope {
            names: &self.filter_names,
            counts: &self.counts,
            compressors: &self.compressor_metrics,
            decompressors: &self.decompressor_metrics,
            csrf: &self.csrf_metrics,
            header_to_metadata: &self.header_to_metadata_metrics,
            jwt_authn: &self.jwt_authn_metrics,
            remote_keys: &self.remote_keys,
            stat_prefix: "",
            health: &self.health,
            local_cluster: &self.local_cluster,
        }
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests;
