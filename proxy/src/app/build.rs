//! What everything else is built on: registry, sinks, compiler, and the first snapshot, out of
//! the bootstrap's own resources.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use xds_proto::google::protobuf::Struct;
use xds_proto::google::protobuf::value::Kind as Value;

use super::logging::Logs;
use super::{AppError, statics, target};
use crate::bootstrap::{Bootstrap, capacity};
use crate::config::compile::values::locality;
use crate::config::compile::{Compiler, SecretStore, SnapshotStep};
use crate::drain::Drain;
use crate::metrics::edge::Peer;
use crate::metrics::edges::Edges;
use crate::metrics::registry::RegistryError;
use crate::metrics::{Registry, SpliceMetrics};
use crate::probe::Prober;
use crate::snapshot::{Snapshot, Store};
use crate::telemetry::calls::Telemetry;
use crate::upstream::dns::Resolver;
use crate::upstream::local::NodePlace;
use crate::xds::channel::ManagementServer;
use crate::xds::resource_type::{Key, ResourceType};

pub(super) struct Core {
    pub(super) registry: Arc<Registry>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) secrets: Arc<SecretStore>,
    pub(super) compiler: Compiler,
    pub(super) store: Arc<Store>,
    /// Of names of clusters.
    pub(super) resolver: Resolver,
    /// Static listeners that lead to resources of ADS: they open once those have arrived, or were
    /// waited for long enough.
    pub(super) held: Vec<SnapshotStep>,
    /// What static resources refer to and the bootstrap does not have: it comes over ADS.
    pub(super) references: Vec<Key>,
    /// How long that may take; `None`: nothing is waited for.
    pub(super) initial_fetch_timeout: Option<Duration>,
}

impl Core {
    /// Compiles the static resources. `labels`: of every metric; `drain_time`: of connections whose
    /// listener is removed.
    pub(super) fn new(
        bootstrap: &Bootstrap,
        logs: &Logs,
        labels: &[(String, String)],
        drain: &Drain,
        drain_time: Duration,
    ) -> Result<Self, AppError> {
        let registry = Arc::new(Registry::with_labels(labels)?);
        registry.adopt(&logs.dropped)?;
        let secrets = Arc::new(SecretStore::default());
        let mut compiler = Compiler::new(&registry, logs.sinks.clone(), secrets.clone())?;
        compiler.set_drain_time(drain_time);
        compiler.answer_health_checks(drain.health().clone(), &bootstrap.node.cluster);
        let locality = bootstrap.node.locality.as_ref().map(locality);
        compiler.set_place(NodePlace::new(locality, &bootstrap.local_cluster));
        let store = Arc::new(Store::new(Snapshot::default()));
        compiler.limit_connections(bootstrap.limits.global, &bootstrap.limits.listeners);
        if let Some(limit) = &bootstrap.extensions.connections {
            let most = limit.most.unwrap_or_else(capacity::inbound);
            compiler.limit_listener(&limit.listener, most);
        }
        let statics = statics::publish(&mut compiler, &store, bootstrap)?;
        let telemetry = Arc::new(Telemetry {
            edges: Edges::new(registry.clone()),
            local: Arc::new(local_peer(bootstrap)),
            taps: Default::default(),
            splices: SpliceMetrics::new(&registry)?,
        });
        Ok(Core {
            telemetry,
            registry,
            secrets,
            compiler,
            store,
            resolver: Resolver::default(),
            held: statics.held,
            references: statics.references,
            initial_fetch_timeout: statics.initial_fetch_timeout,
        })
    }

    pub(super) fn target(&self, cluster: &str) -> Result<ManagementServer, AppError> {
        target(&self.store, cluster)
    }

    /// The static resources, encoded, for the config dump.
    pub(super) fn statics(&self, bootstrap: &Bootstrap) -> Vec<(ResourceType, String, Bytes)> {
        let mut statics = Vec::new();
        for m in &bootstrap.secrets {
            statics.push((
                ResourceType::Secret,
                m.name.clone(),
                m.encode_to_vec().into(),
            ));
        }
        for m in &bootstrap.clusters {
            statics.push((
                ResourceType::Cluster,
                m.name.clone(),
                m.encode_to_vec().into(),
            ));
        }
        for m in &bootstrap.listeners {
            statics.push((
                ResourceType::Listener,
                m.name.clone(),
                m.encode_to_vec().into(),
            ));
        }
        statics
    }
}

/// `None`: there is no status port.
pub(super) fn prober(
    bootstrap: &Bootstrap,
    registry: &Registry,
) -> Result<Option<Prober>, RegistryError> {
    let status = bootstrap.extensions.status.as_ref();
    status
        .map(|status| Prober::new(status, registry))
        .transpose()
}

/// The workload that this proxy serves, from its node metadata.
fn local_peer(bootstrap: &Bootstrap) -> Peer {
    let metadata = bootstrap.node.metadata.as_ref();
    let text = |fields: Option<&Struct>, name: &str| match fields?.fields.get(name)?.kind {
        Some(Value::StringValue(ref text)) => Some(text.clone()),
        _ => None,
    };
    let labels = metadata.and_then(|m| match m.fields.get("LABELS")?.kind {
        Some(Value::StructValue(ref labels)) => Some(labels),
        _ => None,
    });
    let label = |names: [&str; 2]| names.iter().find_map(|name| text(labels, name));
    let workload = text(metadata, "NAME").unwrap_or_default();
    let app = label(["app.kubernetes.io/name", "app"]);
    Peer {
        namespace: text(metadata, "NAMESPACE").unwrap_or_default(),
        principal: bootstrap
            .extensions
            .identity
            .as_ref()
            .map_or(String::new(), |identity| {
                identity.settings.spiffe_id.as_str().to_owned()
            }),
        app: app.unwrap_or_else(|| workload.clone()),
        version: label(["app.kubernetes.io/version", "version"]).unwrap_or_default(),
        cluster: text(metadata, "CLUSTER_ID").unwrap_or_default(),
        workload,
    }
}
