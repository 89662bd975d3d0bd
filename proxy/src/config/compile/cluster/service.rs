//! The service that a cluster stands for, for telemetry.

use std::sync::Arc;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::google::protobuf::value::Kind;

use crate::config::compile::values::{filter_metadata, text};
use crate::metrics::edge::Service;

/// The service a cluster stands for, from Istio's metadata.
pub fn of(metadata: &core::Metadata) -> Option<Arc<Service>> {
    let services = filter_metadata(metadata)
        .get("istio")?
        .fields
        .get("services")?;
    let Some(Kind::ListValue(list)) = &services.kind else {
        return None;
    };
    let Some(Kind::StructValue(first)) = &list.values.first()?.kind else {
        return None;
    };
    let field = |name| {
        first
            .fields
            .get(name)
            .and_then(text)
            .unwrap_or_default()
            .to_owned()
    };
    Some(Arc::new(Service {
        host: field("host"),
        name: field("name"),
        namespace: field("namespace"),
    }))
}
