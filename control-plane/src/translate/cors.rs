//! CORS of a route (GEP-1767) as Envoy's filter has it. The filter is in the chain of listeners
//! whose routes use it.

use xds_proto::envoy::extensions::filters::http::cors::v3::{Cors as CorsFilter, CorsPolicy};
use xds_proto::google::protobuf::Any;

use super::proto::{boolv, exact, safe_regex, typed};
use crate::model::manifest::route::{Cors, CorsOrigin};

/// In the filter chain, and in routes.
pub const NAME: &str = "envoy.filters.http.cors";

pub fn filter() -> Any {
    typed(&CorsFilter::default())
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
