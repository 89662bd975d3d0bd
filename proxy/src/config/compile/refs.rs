//! Names a resource refers to, collected while it compiles; indices stand in their places.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Name;
use crate::config::{ClusterRef, RouteRef};
use crate::snapshot::RouteConfig;
use crate::snapshot::{ClusterLinks, Link, RouteLink, RouteLinks};
use crate::upstream::cluster::Cluster;

/// Resources over ADS that a resource names, and how long their first fetch may take.
#[derive(Default)]
pub struct Fetches {
    /// Secrets (SDS).
    pub secrets: Vec<Name>,
    /// The longest `initial_fetch_timeout`.
    pub initial_fetch_timeout: Option<Duration>,
}

impl Fetches {
    /// References to secrets that were already waited for.
    pub fn again(secrets: &[Name]) -> Self {
        Self {
            secrets: secrets.to_vec(),
            initial_fetch_timeout: None,
        }
    }

    pub fn wait(&mut self, initial_fetch_timeout: Duration) {
        self.initial_fetch_timeout = self.initial_fetch_timeout.max(Some(initial_fetch_timeout));
    }

    pub fn secret(&mut self, name: &str, initial_fetch_timeout: Duration) {
        self.secrets.push(name.into());
        self.wait(initial_fetch_timeout);
    }
}

/// Clusters by name, each once.
#[derive(Default)]
pub struct ClusterNames {
    names: Vec<Name>,
    index: HashMap<Name, ClusterRef>,
}

impl ClusterNames {
    pub fn refer(&mut self, name: &str) -> ClusterRef {
        if let Some(known) = self.index.get(name) {
            return *known;
        }
        let name: Name = name.into();
        // Four thousand million names do not fit into a resource.
        let reference = ClusterRef(self.names.len() as u32);
        self.names.push(name.clone());
        self.index.insert(name, reference);
        reference
    }

    /// Links without targets; linking fills them.
    pub fn links(self) -> ClusterLinks {
        let unlinked = |name| Link::<Cluster> { name, target: None };
        self.names.into_iter().map(unlinked).collect()
    }
}

/// Route configurations of a listener: named ones each once, inline ones as they come.
#[derive(Default)]
pub struct RouteNames {
    links: Vec<RouteLink>,
}

impl RouteNames {
    pub fn inline(&mut self, routes: RouteConfig) -> RouteRef {
        self.push(RouteLink::Inline(Arc::new(routes)))
    }

    pub fn named(&mut self, name: &str) -> RouteRef {
        let same = |link: &RouteLink| matches!(link, RouteLink::Named(l) if *l.name == *name);
        if let Some(at) = self.links.iter().position(same) {
            return RouteRef(at as u32);
        }
        self.push(RouteLink::Named(Link {
            name: name.into(),
            target: None,
        }))
    }

    fn push(&mut self, link: RouteLink) -> RouteRef {
        self.links.push(link);
        RouteRef(self.links.len() as u32 - 1)
    }

    pub fn links(self) -> RouteLinks {
        self.links.into()
    }
}
