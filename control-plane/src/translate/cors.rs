//! CORS of a route (GEP-1767) as Envoy's filter has it. The filter is in the chain of listeners
//! whose routes use it.

use xds_proto::envoy::extensions::filters::http::cors::v3::{Cors as CorsFilter, CorsPolicy};
use xds_proto::google::protobuf::Any;

use super::proto::{boolv, exact, safe_regex, typed};
use crate::model::Mesh;
use crate::model::manifest::route::{Cors, CorsOrigin, Route};
use crate::model::mesh::PortEntry;

/// In the filter chain, and in routes.
pub const NAME: &str = "envoy.filters.http.cors";

pub fn filter() -> Any {
    typed(&CorsFilter::default())
}

/// Whether one of the routes answers for other origins.
pub fn is_used<'a>(routes: impl IntoIterator<Item = &'a std::sync::Arc<Route>>) -> bool {
    let mut rules = routes.into_iter().flat_map(|route| &route.rules);
    rules.any(|rule| rule.filters.cors.is_some())
}

/// By callers from a namespace to an address.
pub fn is_used_at(mesh: &Mesh, namespace: &str, at: std::net::SocketAddr) -> bool {
    let service = mesh.by_vip.get(&at.ip()).and_then(|key| mesh.service(key));
    let port: Option<&PortEntry> = service.and_then(|service| service.port(at.port()));
    port.is_some_and(|port| is_used(port.request_routes_for(namespace)))
}

pub fn policy(cors: &Cors) -> Any {
    let origin = |origin: &CorsOrigin| match origin {
        CorsOrigin::Any => exact("*"),
        CorsOrigin::Exact(text) => exact(text),
        CorsOrigin::Regex(text) => safe_regex(text),
    };
    typed(&CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(origin).collect(),
        allow_methods: cors.methods.join(", "),
        allow_headers: cors.headers.join(", "),
        expose_headers: cors.expose.join(", "),
        max_age: cors.max_age.to_string(),
        allow_credentials: boolv(cors.credentials),
        // The route decides for the app.
        forward_not_matching_preflights: boolv(false),
        ..CorsPolicy::default()
    })
}
