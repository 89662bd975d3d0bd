//! The two protocols' messages, converted to and from the session's types.

use std::time::Instant;

use xds_proto::envoy::config::core::v3::{ControlPlane, Node};
use xds_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    Resource as WireResource,
};
use xds_proto::google::protobuf::Any;

use super::resources::View;
use super::session::{Push, RequestError, Session};
use super::subscription::ProtocolVariant;

/// One of the two protocols.
pub(super) trait Wire: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const PROTOCOL: ProtocolVariant;

    fn node(request: &Self::Request) -> Option<&Node>;
    /// Type URL and error message of a NACK.
    fn refusal(request: &Self::Request) -> Option<(&str, &str)>;
    fn apply(
        session: &mut Session,
        request: &Self::Request,
        view: &dyn View,
        now: Instant,
    ) -> Result<(), RequestError>;
    fn response(push: Push) -> Self::Response;
}

fn control_plane() -> Option<ControlPlane> {
    Some(ControlPlane {
        identifier: concat!("anyam-control ", env!("CARGO_PKG_VERSION")).into(),
    })
}

pub(super) struct Delta;

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const PROTOCOL: ProtocolVariant = ProtocolVariant::Delta;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn refusal(request: &Self::Request) -> Option<(&str, &str)> {
        let error = request.error_detail.as_ref()?;
        Some((&request.type_url, &error.message))
    }

    fn apply(
        session: &mut Session,
        request: &Self::Request,
        view: &dyn View,
        now: Instant,
    ) -> Result<(), RequestError> {
        session.delta_request(request, view, now)
    }

    fn response(push: Push) -> Self::Response {
        let type_url = push.type_url.to_string();
        let resource = |one: super::Resource| WireResource {
            name: one.name.to_string(),
            version: one.version.to_string(),
            resource: Some(Any {
                type_url: type_url.clone(),
                value: one.body.into(),
            }),
            ..Default::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: push.version,
            resources: push.resources.into_iter().map(resource).collect(),
            removed_resources: push.removed.iter().map(ToString::to_string).collect(),
            type_url: type_url.clone(),
            nonce: push.nonce,
            control_plane: control_plane(),
            ..Default::default()
        }
    }
}

pub(super) struct Sotw;

impl Wire for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const PROTOCOL: ProtocolVariant = ProtocolVariant::Sotw;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn refusal(request: &Self::Request) -> Option<(&str, &str)> {
        let error = request.error_detail.as_ref()?;
        Some((&request.type_url, &error.message))
    }

    fn apply(
        session: &mut Session,
        request: &Self::Request,
        view: &dyn View,
        now: Instant,
    ) -> Result<(), RequestError> {
        session.sotw_request(request, view, now)
    }

    fn response(push: Push) -> Self::Response {
        let type_url = push.type_url.to_string();
        let any = |one: super::Resource| Any {
            type_url: type_url.clone(),
            value: one.body.into(),
        };
        DiscoveryResponse {
            version_info: push.version,
            resources: push.resources.into_iter().map(any).collect(),
            type_url: type_url.clone(),
            nonce: push.nonce,
            control_plane: control_plane(),
            ..Default::default()
        }
    }
}
