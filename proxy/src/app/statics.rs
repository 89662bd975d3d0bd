//! The bootstrap's own resources: what can serve is published at once; listeners that lead to what
//! comes over ADS are held back until that is there, as Envoy's warm.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::AppError;
use crate::bootstrap::Bootstrap;
use crate::config::compile::{Changes, Compiled, Compiler, SnapshotStep};
use crate::snapshot::{Snapshot, Store};
use crate::xds::apply::keys;
use crate::xds::resource_type::{Key, ResourceType};

pub(super) struct Statics {
    pub(super) held: Vec<SnapshotStep>,
    /// What comes over ADS because static resources refer to it.
    pub(super) references: Vec<Key>,
    /// How long that may take; `None`: nothing is waited for.
    pub(super) initial_fetch_timeout: Option<Duration>,
}

/// Compiles the static resources and publishes those that wait for nothing.
pub(super) fn publish(
    compiler: &mut Compiler,
    store: &Store,
    bootstrap: &Bootstrap,
) -> Result<Statics, AppError> {
    let mut errors = Vec::new();
    let outcome = compiler.apply(store, referred_to(bootstrap));
    errors.extend(outcome.rejected.iter().map(ToString::to_string));
    let mut listeners = Vec::new();
    for m in &bootstrap.listeners {
        match compiler.listener(m, None) {
            Ok(listener) => listeners.push(Compiled::Listener(Arc::new(listener))),
            Err(error) => errors.push(format!("{}: {error}", m.name)),
        }
    }
    let snapshot = store.load();
    let mut fetched = Fetched {
        cds: bootstrap.ads.as_ref().is_some_and(|ads| ads.clusters),
        snapshot: &snapshot,
        keys: BTreeSet::new(),
        clusters: HashSet::new(),
        initial_fetch_timeout: None,
    };
    let of_clusters = snapshot.clusters.values().cloned().map(Compiled::Cluster);
    for cluster in of_clusters {
        fetched.by(&cluster);
    }
    let (mut open, mut held) = (Vec::new(), Vec::new());
    for listener in listeners {
        match fetched.by(&listener) {
            true => held.push(SnapshotStep::Set(listener)),
            false => open.push(SnapshotStep::Set(listener)),
        }
    }
    if bootstrap.ads.is_none()
        && let Some(key) = fetched.keys.first()
    {
        errors.push(format!(
            "{key} comes over ads, and there is no dynamic_resources.ads_config"
        ));
    }
    if !errors.is_empty() {
        return Err(AppError::Configuration(errors));
    }
    let Fetched {
        keys,
        initial_fetch_timeout,
        ..
    } = fetched;
    compiler.publish(store, open);
    Ok(Statics {
        held,
        references: keys.into_iter().collect(),
        initial_fetch_timeout,
    })
}

/// Secrets and clusters. Endpoints of EDS clusters come over ADS; those of the others stand in the
/// cluster.
fn referred_to(bootstrap: &Bootstrap) -> Changes {
    Changes {
        clusters: bootstrap
            .clusters
            .iter()
            .map(|m| (m.name.clone(), Some(m.clone())))
            .collect(),
        secrets: bootstrap
            .secrets
            .iter()
            .map(|m| (m.name.clone(), Some(m.clone())))
            .collect(),
        ..Changes::default()
    }
}

/// What has to be fetched, and who waits for it.
struct Fetched<'a> {
    /// Clusters may come over ADS; else one that is not static never comes.
    cds: bool,
    snapshot: &'a Snapshot,
    keys: BTreeSet<Key>,
    /// Static clusters that wait.
    clusters: HashSet<String>,
    initial_fetch_timeout: Option<Duration>,
}

impl Fetched<'_> {
    /// Notes what `resource` refers to; true: it has to wait, for its own sake or a cluster's.
    fn by(&mut self, resource: &Compiled) -> bool {
        let references = resource.references();
        let initial_fetch_timeout = references.initial_fetch_timeout;
        let mut waits = false;
        for key in keys(references) {
            let static_one = match key.kind {
                ResourceType::Cluster => self.snapshot.clusters.contains_key(key.name.as_str()),
                ResourceType::Secret => self.snapshot.secrets.contains_key(key.name.as_str()),
                _ => false,
            };
            if key.kind == ResourceType::Cluster && !static_one && !self.cds {
                continue;
            }
            if static_one {
                waits |= self.clusters.contains(&key.name);
                continue;
            }
            waits = true;
            self.initial_fetch_timeout = self.initial_fetch_timeout.max(initial_fetch_timeout);
            self.keys.insert(key);
        }
        if waits && let Compiled::Cluster(cluster) = resource {
            self.clusters.insert(cluster.name.to_string());
        }
        waits
    }
}
