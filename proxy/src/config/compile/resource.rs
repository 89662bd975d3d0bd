//! Resources: encoded bytes → [`Compiled`], which can be published.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use xds_proto::anyam::workload::v1 as workload_pb;
use xds_proto::{type_url, unknown};

use super::endpoint::Assignment;
use super::step::SnapshotStep;
use super::support::{At, CompileError};
use super::{Compiler, Name};
use crate::config::cluster::Discovery;
use crate::config::endpoint::Workload;
use crate::config::secret::Secret;
use crate::snapshot::Listener;
use crate::snapshot::RouteConfig;
use crate::snapshot::{ClusterLinks, RouteLink, Snapshot, Store};
use crate::upstream::cluster::Cluster;

/// A resource that compiled, not yet linked. Cheap to clone.
#[derive(Clone)]
pub enum Compiled {
    Listener(Arc<Listener>),
    Routes(Arc<RouteConfig>),
    Cluster(Arc<Cluster>),
    /// The assignment's name (an EDS service name), and the assignment.
    Endpoints(Name, Arc<Assignment>),
    Secret(Arc<Secret>),
    /// The resource's name (the address it was asked for by), all its addresses, the workload.
    Workload(Name, Arc<[IpAddr]>, Arc<Workload>),
}

/// Names a resource refers to, which have to be subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub routes: BTreeSet<Name>,
    pub clusters: BTreeSet<Name>,
    /// EDS service names.
    pub endpoints: BTreeSet<Name>,
    pub secrets: BTreeSet<Name>,
    /// The longest `initial_fetch_timeout` among them, where they set one.
    pub initial_fetch_timeout: Option<Duration>,
}

/// A resource that was rejected; its last good version, if any, stays in use.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {error}")]
pub struct RejectedResource {
    pub type_url: &'static str,
    pub name: String,
    pub error: CompileError,
}

impl Compiled {
    /// The resource's name.
    pub fn name(&self) -> &Name {
        match self {
            Self::Listener(listener) => &listener.def.name,
            Self::Routes(routes) => &routes.table.name,
            Self::Cluster(cluster) => &cluster.name,
            Self::Secret(secret) => &secret.name,
            Self::Endpoints(name, _) | Self::Workload(name, ..) => name,
        }
    }

    pub fn references(&self) -> References {
        let mut references = References::default();
        match self {
            Self::Listener(listener) => references.of_listener(listener),
            Self::Routes(routes) => references.of_clusters(&routes.clusters),
            Self::Cluster(cluster) => references.of_cluster(cluster),
            Self::Endpoints(..) | Self::Secret(_) | Self::Workload(..) => {}
        }
        references
    }
}

impl References {
    fn of_listener(&mut self, listener: &Listener) {
        self.of_clusters(&listener.clusters);
        self.initial_fetch_timeout = self
            .initial_fetch_timeout
            .max(listener.def.initial_fetch_timeout);
        self.secrets.extend(listener.def.secrets.iter().cloned());
        for link in &listener.routes {
            match link {
                RouteLink::Inline(routes) => self.of_clusters(&routes.clusters),
                RouteLink::Named(link) => drop(self.routes.insert(link.name.clone())),
            }
        }
    }

    fn of_cluster(&mut self, cluster: &Cluster) {
        if let Discovery::Eds { service_name } = &cluster.discovery {
            self.endpoints.insert(service_name.clone());
        }
        self.initial_fetch_timeout = self
            .initial_fetch_timeout
            .max(cluster.initial_fetch_timeout);
        self.secrets.extend(cluster.secrets.iter().cloned());
    }

    fn of_clusters(&mut self, links: &ClusterLinks) {
        self.clusters
            .extend(links.iter().map(|link| link.name.clone()));
    }
}

impl Compiler {
    /// Compiles the bytes of a resource. State is taken over from what `current` has under its
    /// name.
    ///
    /// # Errors
    /// Names the first field that cannot be used, or that this proxy's schema lacks.
    pub fn compile(
        &self,
        type_url: &str,
        body: &[u8],
        current: &Snapshot,
    ) -> Result<Compiled, CompileError> {
        match type_url {
            type_url::LISTENER => self.compile_listener(&whole(body)?, current),
            type_url::CLUSTER => self.compile_cluster(&whole(body)?, current),
            type_url::ROUTE => Ok(Compiled::Routes(Arc::new(
                self.route_config(&whole(body)?)?,
            ))),
            type_url::ENDPOINT => self.endpoints(&whole(body)?),
            type_url::SECRET => Ok(Compiled::Secret(Arc::new(self.secret(&whole(body)?)?))),
            type_url::WORKLOAD => {
                let message = workload_pb::Workload::decode(body);
                workload(message.map_err(|e| At::root("").error(e))?)
            }
            other => At::root("").fail(format_args!("{other} is not a type of resource here")),
        }
    }

    fn compile_listener(
        &self,
        m: &super::listener_pb::Listener,
        current: &Snapshot,
    ) -> Result<Compiled, CompileError> {
        let previous = current.listeners.get(m.name.as_str());
        let listener = self.listener(m, previous.map(Arc::as_ref))?;
        Ok(Compiled::Listener(Arc::new(listener)))
    }

    fn compile_cluster(
        &self,
        m: &super::cluster_pb::Cluster,
        current: &Snapshot,
    ) -> Result<Compiled, CompileError> {
        let previous = current.clusters.get(m.name.as_str());
        let cluster = self.cluster(m, previous.map(Arc::as_ref))?;
        Ok(Compiled::Cluster(Arc::new(cluster)))
    }

    /// Names that all of `snapshot` refers to.
    pub fn references(&self, snapshot: &Snapshot) -> References {
        let mut all = References::default();
        let listeners = snapshot.listeners.values();
        listeners.for_each(|listener| all.of_listener(listener));
        let routes = snapshot.routes.values();
        routes.for_each(|routes| all.of_clusters(&routes.clusters));
        let clusters = snapshot.clusters.values();
        clusters.for_each(|cluster| all.of_cluster(cluster));
        all
    }

    /// Compiles and publishes messages at hand, as those of a bootstrap; a resource that is
    /// rejected is left out and reported; its last good version, if any, stays in use.
    pub fn apply(&mut self, store: &Store, changes: Changes) -> Published {
        let current = store.load();
        let mut sorted = Sorted::default();
        for (name, m) in changes.secrets {
            sorted.take(type_url::SECRET, name, m, |m| {
                Ok(Compiled::Secret(Arc::new(self.secret(&m)?)))
            });
        }
        for (name, m) in changes.clusters {
            let compile = |m| self.compile_cluster(&m, &current);
            sorted.take(type_url::CLUSTER, name, m, compile);
        }
        for (name, m) in changes.endpoints {
            sorted.take(type_url::ENDPOINT, name, m, |m| self.endpoints(&m));
        }
        for (name, m) in changes.routes {
            sorted.take(type_url::ROUTE, name, m, |m| {
                Ok(Compiled::Routes(Arc::new(self.route_config(&m)?)))
            });
        }
        for (name, m) in changes.listeners {
            sorted.take(type_url::LISTENER, name, m, |m| {
                self.compile_listener(&m, &current)
            });
        }
        for (address, workload) in changes.workloads {
            let name: Name = address.to_string().into();
            sorted.steps.push(match workload {
                Some(w) => {
                    SnapshotStep::Set(Compiled::Workload(name, [address].into(), Arc::new(w)))
                }
                None => SnapshotStep::Remove(type_url::WORKLOAD, name),
            });
        }
        Published {
            published: self.publish(store, sorted.steps),
            rejected: sorted.rejected,
        }
    }
}

/// Messages that changed, by name; `None`: gone. Applied and published together.
#[derive(Default)]
pub struct Changes {
    pub listeners: Vec<(String, Option<super::listener_pb::Listener>)>,
    pub routes: Vec<(String, Option<super::route_pb::RouteConfiguration>)>,
    pub clusters: Vec<(String, Option<super::cluster_pb::Cluster>)>,
    pub endpoints: Vec<(String, Option<super::endpoint_pb::ClusterLoadAssignment>)>,
    pub secrets: Vec<(String, Option<super::secret_pb::Secret>)>,
    pub workloads: Vec<(IpAddr, Option<Workload>)>,
}

/// What [`Compiler::apply`] did.
#[derive(Debug, Default)]
pub struct Published {
    pub rejected: Vec<RejectedResource>,
    /// Whether a new snapshot was published.
    pub published: bool,
}

/// The resources that compiled, and the errors of those that did not.
#[derive(Default)]
struct Sorted {
    steps: Vec<SnapshotStep>,
    rejected: Vec<RejectedResource>,
}

impl Sorted {
    fn take<M>(
        &mut self,
        type_url: &'static str,
        name: String,
        message: Option<M>,
        compile: impl FnOnce(M) -> Result<Compiled, CompileError>,
    ) {
        match message.map(compile) {
            None => self.steps.push(SnapshotStep::Remove(type_url, name.into())),
            Some(Ok(compiled)) => self.steps.push(SnapshotStep::Set(compiled)),
            Some(Err(error)) => self.rejected.push(RejectedResource {
                type_url,
                name,
                error,
            }),
        }
    }
}

/// Decodes a message and rejects fields that the schema lacks: prost would drop them in silence,
/// and one of them may be what denies access.
fn whole<M: Message + prost::Name + Default>(body: &[u8]) -> Result<M, CompileError> {
    if let Some(found) = unknown::find(&M::full_name(), body).first() {
        return Err(CompileError {
            path: found.path().to_owned(),
            why: format!("this proxy's schema lacks it ({found})"),
        });
    }
    M::decode(body).map_err(|e| At::root("").error(format_args!("not a {}: {e}", M::NAME)))
}

/// anyam.workload.v1.Workload.
fn workload(m: workload_pb::Workload) -> Result<Compiled, CompileError> {
    let at = At::root("");
    let workload_pb::Workload {
        name,
        namespace,
        service_account,
        trust_domain,
        addresses,
        canonical_service,
        canonical_revision,
        cluster,
        node,
    } = m;
    super::support::ignored!("nothing is decided by the machine yet", node);
    let parsed = super::support::each(at, "addresses", &addresses, |at, address| {
        super::values::ip(at, address)
    })?;
    let Some(first) = addresses.first() else {
        return at.field("addresses").fail("is required");
    };
    let workload = Workload {
        name,
        namespace,
        service_account,
        trust_domain,
        canonical_service,
        canonical_revision,
        cluster,
    };
    Ok(Compiled::Workload(
        first.as_str().into(),
        parsed.into(),
        Arc::new(workload),
    ))
}
