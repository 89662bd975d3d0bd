//! Filters that are in a listener's chain because its routes use them.

use std::net::SocketAddr;
use std::sync::Arc;

use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::http::http_filter;
use super::{cors, session};
use crate::model::Mesh;
use crate::model::manifest::route::Route;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteFilters {
    /// One of the routes answers for other origins.
    cors: bool,
    /// One of the routes has sessions.
    session: bool,
}

impl RouteFilters {
    pub fn of<'a>(routes: impl IntoIterator<Item = &'a Arc<Route>>) -> Self {
        let mut filters = Self::default();
        for rule in routes.into_iter().flat_map(|route| &route.rules) {
            filters.cors |= rule.filters.cors.is_some();
            filters.session |= rule.session.is_some();
        }
        filters
    }

    /// Those of calls from a namespace to an address.
    pub fn at(mesh: &Mesh, namespace: &str, at: SocketAddr) -> Self {
        let service = mesh.by_vip.get(&at.ip()).and_then(|key| mesh.service(key));
        let port = service.and_then(|service| service.port(at.port()));
        port.map_or_else(Self::default, |port| {
            Self::of(port.request_routes_for(namespace))
        })
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// In the order of the chain.
    pub fn chain(self) -> Vec<HttpFilter> {
        let cors = self.cors.then(|| http_filter(cors::NAME, cors::filter()));
        let session = self.session.then(session::filter);
        cors.into_iter().chain(session).collect()
    }
}
