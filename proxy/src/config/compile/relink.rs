//! Fresh links from a route configuration or listener to what it refers to by name.

use std::collections::HashSet;
use std::sync::Arc;

use persistent::Map;

use crate::config::Name;
use crate::snapshot::{ClusterLinks, Link, Listener, RouteConfig, RouteLink, Snapshot};
use crate::upstream::cluster::Cluster;

pub(super) fn refers(links: &ClusterLinks, changed: &HashSet<Name>) -> bool {
    !changed.is_empty() && links.iter().any(|link| changed.contains(&link.name))
}

fn relink_clusters(links: &ClusterLinks, clusters: &Map<Name, Arc<Cluster>>) -> ClusterLinks {
    let fresh = |link: &Link<Cluster>| Link {
        name: link.name.clone(),
        target: clusters.get(&link.name).cloned(),
    };
    links.iter().map(fresh).collect()
}

pub(super) fn relink_routes(
    routes: &RouteConfig,
    clusters: &Map<Name, Arc<Cluster>>,
) -> RouteConfig {
    RouteConfig {
        table: routes.table.clone(),
        clusters: relink_clusters(&routes.clusters, clusters),
    }
}

pub(super) fn relink_listener(listener: &Listener, snapshot: &Snapshot) -> Listener {
    let route = |link: &RouteLink| match link {
        RouteLink::Inline(routes) => {
            RouteLink::Inline(Arc::new(relink_routes(routes, &snapshot.clusters)))
        }
        RouteLink::Named(link) => RouteLink::Named(Link {
            name: link.name.clone(),
            target: snapshot.routes.get(&link.name).cloned(),
        }),
    };
    Listener {
        def: listener.def.clone(),
        clusters: relink_clusters(&listener.clusters, &snapshot.clusters),
        routes: listener.routes.iter().map(route).collect(),
    }
}
