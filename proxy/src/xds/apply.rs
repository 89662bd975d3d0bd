//! Judged resources → compiler → next snapshot → store; answers to the data path.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use xds_proto::anyam::dns::v1::Name;
use xds_proto::anyam::workload::v1::Workload;
use xds_proto::envoy::config::cluster::v3::Cluster;
use xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_proto::envoy::config::listener::v3::Listener;
use xds_proto::envoy::config::route::v3::RouteConfiguration;
use xds_proto::envoy::extensions::transport_sockets::tls::v3::Secret;

use super::cache::{Cache, Change, Judge, Judged, Now, Outcome};
use super::client::Apply;
use super::kind::{Key, Kind};
use super::refs;
use crate::config::compile::{Changes, Compiler};
use crate::config::demand::{Answer, Resource, Wanted};
use crate::config::listener::Cidr;
use crate::config::{Store, endpoint};

/// An on-demand resource unused for so long is let go.
const IDLE: Duration = Duration::from_secs(1800);

/// What the mesh says of addresses that the control plane does not know.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// They may be passed through; else they are refused.
    pub passthrough: bool,
    /// Where every address is the mesh's own: never passed through unknown.
    pub mesh: Vec<Cidr>,
}

/// A resource that was judged good.
pub enum Good {
    Listener(Box<Listener>),
    Route(RouteConfiguration),
    Cluster(Box<Cluster>),
    Endpoint(ClusterLoadAssignment),
    Secret(Secret),
    Workload(endpoint::Workload),
    Name(Vec<IpAddr>, Duration),
}

/// See the module. Lives on the control thread, the only writer of the store.
pub struct Applier {
    compiler: Compiler,
    store: Arc<Store>,
    /// Names of the bootstrap's own resources, which nothing dynamic replaces.
    statics: HashSet<Key>,
    egress: Egress,
    names: HashMap<String, (Vec<IpAddr>, Duration)>,
    /// Connections of on-demand listeners when last looked at, and since when unchanged.
    usage: HashMap<Key, (u64, Instant)>,
}

impl Applier {
    pub fn new(
        compiler: Compiler,
        store: Arc<Store>,
        statics: HashSet<Key>,
        egress: Egress,
    ) -> Self {
        Applier {
            compiler,
            store,
            statics,
            egress,
            names: HashMap::new(),
            usage: HashMap::new(),
        }
    }

    /// What is not the stream's to bring.
    fn without_statics(&self, refs: Vec<Key>) -> Vec<Key> {
        let own = |key: &Key| self.statics.contains(key);
        refs.into_iter().filter(|key| !own(key)).collect()
    }

    fn judge_listener(&self, body: &Bytes) -> Result<Judged<Good>, String> {
        let message = decode::<Listener>(body)?;
        let before = self.store.load();
        let before = before.listeners.get(message.name.as_str());
        let compiled = self
            .compiler
            .listener(&message, before.map(|listener| &**listener))
            .map_err(|error| error.to_string())?;
        let mut refs = refs::of_links(&compiled.clusters, &compiled.routes);
        refs.extend(refs::listener_secrets(&message));
        Ok(Judged {
            name: message.name.clone(),
            refs: self.without_statics(refs),
            value: Good::Listener(Box::new(message)),
        })
    }

    fn judge_cluster(&self, body: &Bytes) -> Result<Judged<Good>, String> {
        let message = decode::<Cluster>(body)?;
        let before = self.store.load();
        let before = before.clusters.get(message.name.as_str());
        let compiled = self
            .compiler
            .cluster(&message, before.map(|cluster| &**cluster))
            .map_err(|error| error.to_string())?;
        let mut refs = refs::cluster_secrets(&message);
        refs.extend(refs::of_discovery(&compiled.discovery));
        Ok(Judged {
            name: message.name.clone(),
            refs: self.without_statics(refs),
            value: Good::Cluster(Box::new(message)),
        })
    }

    fn judge_route(&self, body: &Bytes) -> Result<Judged<Good>, String> {
        let message = decode::<RouteConfiguration>(body)?;
        let compiled = self
            .compiler
            .route_config(&message)
            .map_err(|error| error.to_string())?;
        Ok(Judged {
            name: message.name.clone(),
            refs: self.without_statics(refs::of_links(&compiled.clusters, &[])),
            value: Good::Route(message),
        })
    }

    fn judge_endpoints(&self, body: &Bytes) -> Result<Judged<Good>, String> {
        let message = decode::<ClusterLoadAssignment>(body)?;
        self.compiler
            .check_endpoints(&message)
            .map_err(|error| error.to_string())?;
        Ok(leaf(message.cluster_name.clone(), Good::Endpoint(message)))
    }

    fn judge_secret(&self, body: &Bytes) -> Result<Judged<Good>, String> {
        let message = decode::<Secret>(body)?;
        self.compiler
            .secret(&message)
            .map_err(|error| error.to_string())?;
        Ok(leaf(message.name.clone(), Good::Secret(message)))
    }

    /// An address of the mesh must not be taken for one outside of it.
    fn unknown_listener(&self, address: IpAddr, outcome: Outcome) -> Answer {
        let in_mesh = self.egress.mesh.iter().any(|range| range.contains(address));
        match outcome {
            _ if in_mesh || !self.egress.passthrough => Answer::Unavailable,
            Outcome::Absent => Answer::Absent,
            // Only where the mesh's ranges are known can an address be told to be outside.
            _ if self.egress.mesh.is_empty() => Answer::Unavailable,
            _ => Answer::Absent,
        }
    }
}

fn leaf(name: String, value: Good) -> Judged<Good> {
    Judged {
        name,
        value,
        refs: Vec::new(),
    }
}

fn decode<M: Message + Default + prost::Name>(body: &Bytes) -> Result<M, String> {
    let unknown = xds_proto::unknown::unknown_fields(&M::full_name(), body);
    if let Some(first) = unknown.first() {
        return Err(format!("{first}: is not a field this proxy knows"));
    }
    M::decode(body.clone()).map_err(|error| format!("not a valid {}: {error}", M::NAME))
}

fn judge_workload(name: &str, body: &Bytes) -> Result<Judged<Good>, String> {
    let message = decode::<Workload>(body)?;
    let address: IpAddr = name
        .parse()
        .map_err(|_| "name: a workload is named by its address".to_owned())?;
    let same = |text: &String| text.parse::<IpAddr>() == Ok(address);
    if !message.addresses.iter().any(same) {
        return Err(format!("addresses: do not contain {address}"));
    }
    let Workload {
        name: workload,
        namespace,
        service_account,
        trust_domain,
        addresses: _,
        canonical_service,
        canonical_revision,
        cluster,
        node: _,
    } = message;
    let value = Good::Workload(endpoint::Workload {
        name: workload,
        namespace,
        service_account,
        trust_domain,
        canonical_service,
        canonical_revision,
        cluster,
    });
    Ok(leaf(name.to_owned(), value))
}

fn judge_name(body: &Bytes) -> Result<Judged<Good>, String> {
    let message = decode::<Name>(body)?;
    let mut addresses = Vec::with_capacity(message.addresses.len());
    for (index, text) in message.addresses.iter().enumerate() {
        let address = text.parse::<IpAddr>();
        addresses.push(address.map_err(|_| format!("addresses[{index}]: not an IP address"))?);
    }
    let ttl = Duration::from_secs(message.ttl_seconds.into());
    Ok(leaf(message.host, Good::Name(addresses, ttl)))
}

impl Judge for Applier {
    type Value = Good;

    fn judge(&mut self, kind: Kind, name: &str, body: &Bytes) -> Result<Judged<Good>, String> {
        let judged = match kind {
            Kind::Listener => self.judge_listener(body),
            Kind::Cluster => self.judge_cluster(body),
            Kind::Route => self.judge_route(body),
            Kind::Endpoint => self.judge_endpoints(body),
            Kind::Secret => self.judge_secret(body),
            Kind::Workload => judge_workload(name, body),
            Kind::Name => judge_name(body),
        }?;
        if self.statics.contains(&Key::new(kind, judged.name.as_str())) {
            return Err("name: the bootstrap has a static resource of this name".to_owned());
        }
        Ok(judged)
    }
}

impl Apply for Applier {
    fn publish(&mut self, changes: Vec<Change<Good>>) {
        let mut next = Changes::default();
        for change in changes {
            self.add(&mut next, change);
        }
        let outcome = self.compiler.apply(&self.store, next);
        for rejected in outcome.rejected {
            // Judged good a moment ago: only a file that changed in between can do this.
            tracing::error!(%rejected, "refused while it was applied");
        }
        // What still warms waits for nothing that would come: the cache has let it through.
        if self.compiler.warming().next().is_some() {
            self.compiler.stop_warming(&self.store);
        }
    }

    fn key(&self, wanted: &Wanted) -> Key {
        match &wanted.what {
            Resource::Listener(address) => Key::new(Kind::Listener, format!("outbound/{address}")),
            Resource::Workload(address) => Key::new(Kind::Workload, address.to_string()),
            Resource::Name(name) => Key::new(Kind::Name, name.as_str()),
        }
    }

    fn answer(&self, wanted: Wanted, outcome: Outcome) {
        let answer = match (&wanted.what, outcome) {
            (Resource::Name(name), Outcome::Found) => match self.names.get(name) {
                Some((addresses, ttl)) => Answer::Addresses {
                    addresses: addresses.clone(),
                    ttl: *ttl,
                },
                None => Answer::Absent,
            },
            (_, Outcome::Found) => Answer::Found,
            (Resource::Listener(address), outcome) => self.unknown_listener(address.ip(), outcome),
            (_, Outcome::Absent) => Answer::Absent,
            (_, Outcome::Unavailable) => Answer::Unavailable,
        };
        // The connection that asked may be gone.
        let _ = wanted.answer.send(answer);
    }

    fn idle(&mut self, cache: &Cache<Good>, now: Now) -> Vec<Key> {
        let Some(before) = now.instant.checked_sub(IDLE) else {
            return Vec::new();
        };
        let mut idle = cache.idle_on_demand(Kind::Name, before);
        idle.extend(cache.idle_on_demand(Kind::Workload, before));
        let listeners = cache.idle_on_demand(Kind::Listener, before);
        self.usage.retain(|key, _| listeners.contains(key));
        let snapshot = self.store.load();
        for key in listeners {
            let Some(listener) = snapshot.listeners.get(key.name.as_str()) else {
                continue;
            };
            let metrics = &listener.def.metrics;
            let count = metrics.connections.get();
            let seen = self
                .usage
                .entry(key.clone())
                .or_insert((count, now.instant));
            if seen.0 != count || metrics.active.get() > 0 {
                *seen = (count, now.instant);
            } else if seen.1 <= before {
                idle.push(key);
            }
        }
        idle
    }
}

impl Applier {
    fn add(&mut self, next: &mut Changes, change: Change<Good>) {
        let (key, value) = match change {
            Change::Upsert(key, value) => (key, Some(value)),
            Change::Remove(key) => (key, None),
        };
        let name = key.name;
        match (key.kind, value) {
            (_, Some(Good::Listener(m))) => next.listeners.push((name, Some(*m))),
            (_, Some(Good::Route(m))) => next.routes.push((name, Some(m))),
            (_, Some(Good::Cluster(m))) => next.clusters.push((name, Some(*m))),
            (_, Some(Good::Endpoint(m))) => next.endpoints.push((name, Some(m))),
            (_, Some(Good::Secret(m))) => next.secrets.push((name, Some(m))),
            (_, Some(Good::Name(addresses, ttl))) => {
                self.names.insert(name, (addresses, ttl));
            }
            (_, Some(Good::Workload(workload))) => {
                if let Ok(address) = name.parse() {
                    next.workloads.push((address, Some(workload)));
                }
            }
            (Kind::Listener, None) => next.listeners.push((name, None)),
            (Kind::Route, None) => next.routes.push((name, None)),
            (Kind::Cluster, None) => next.clusters.push((name, None)),
            (Kind::Endpoint, None) => next.endpoints.push((name, None)),
            (Kind::Secret, None) => next.secrets.push((name, None)),
            (Kind::Name, None) => {
                self.names.remove(&name);
            }
            (Kind::Workload, None) => {
                if let Ok(address) = name.parse() {
                    next.workloads.push((address, None));
                }
            }
        }
    }
}
