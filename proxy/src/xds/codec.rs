//! Requests and responses to and from envoy.service.discovery.v3.

use bytes::Bytes;
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::envoy::service::discovery::v3 as pb;
use xds_proto::google::{protobuf::Any, rpc::Status};

use super::message::{DeltaRequest, DeltaResponse, Resource, SotwRequest, SotwResponse};
use crate::xds::resource_type::ResourceType;

/// gRPC's INVALID_ARGUMENT, the code of a NACK.
const INVALID_ARGUMENT: i32 = 3;
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

fn nack(error: Option<String>) -> Option<Status> {
    error.map(|message| Status {
        code: INVALID_ARGUMENT,
        message,
        details: Vec::new(),
    })
}

/// `node` goes with the first request of a stream only.
pub(super) fn delta_request(
    request: DeltaRequest,
    node: Option<Node>,
) -> pb::DeltaDiscoveryRequest {
    pb::DeltaDiscoveryRequest {
        node,
        type_url: request.kind.type_url().to_owned(),
        resource_names_subscribe: request.subscribe,
        resource_names_unsubscribe: request.unsubscribe,
        initial_resource_versions: request.initial_versions.into_iter().collect(),
        response_nonce: request.nonce,
        error_detail: nack(request.error),
        ..Default::default()
    }
}

pub(super) fn sotw_request(request: SotwRequest, node: Option<Node>) -> pb::DiscoveryRequest {
    pb::DiscoveryRequest {
        version_info: request.version,
        node,
        resource_names: request.names,
        type_url: request.kind.type_url().to_owned(),
        response_nonce: request.nonce,
        error_detail: nack(request.error),
        ..Default::default()
    }
}

pub(super) fn delta_response(response: pb::DeltaDiscoveryResponse) -> DeltaResponse {
    DeltaResponse {
        type_url: response.type_url,
        nonce: response.nonce,
        resources: response.resources.into_iter().map(wrapped).collect(),
        removed: response.removed_resources,
    }
}

pub(super) fn sotw_response(response: pb::DiscoveryResponse) -> SotwResponse {
    let resource = |any: Any| match any.type_url == WRAPPER {
        // A malformed wrapper is validated as a bare resource and rejected.
        true => match xds_proto::any::unpack::<pb::Resource>(&any) {
            Ok(resource) => wrapped(resource),
            Err(_) => bare(any),
        },
        false => bare(any),
    };
    SotwResponse {
        type_url: response.type_url,
        nonce: response.nonce,
        version: response.version_info,
        resources: response.resources.into_iter().map(resource).collect(),
    }
}

fn bare(any: Any) -> Resource {
    Resource {
        type_url: any.type_url,
        body: Bytes::from(any.value),
        ..Resource::default()
    }
}

fn wrapped(resource: pb::Resource) -> Resource {
    let unsupported = if resource.ttl.is_some() {
        Some("ttl")
    } else if !resource.aliases.is_empty() {
        Some("aliases")
    } else if resource.resource_name.is_some() {
        Some("resource_name")
    } else {
        None
    };
    let (type_url, body) = match resource.resource {
        Some(any) => (any.type_url, Bytes::from(any.value)),
        None => (String::new(), Bytes::new()),
    };
    Resource {
        name: resource.name,
        version: resource.version,
        type_url,
        body,
        unsupported,
    }
}

/// The `Any` of a resource in force, for dumps.
pub fn any(kind: ResourceType, body: &Bytes) -> Any {
    Any {
        type_url: kind.type_url().to_owned(),
        value: body.to_vec(),
    }
}
