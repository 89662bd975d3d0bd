//! Messages of an ADS stream without their encoding: the cache uses these types, `codec` converts
//! them to and from envoy.service.discovery.v3.

use bytes::Bytes;

use super::resource_type::ResourceType;

/// Incremental or state-of-the-world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolVariant {
    Delta,
    Sotw,
}

/// One request to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryRequest {
    Delta(DeltaRequest),
    Sotw(SotwRequest),
}

impl DiscoveryRequest {
    pub fn kind(&self) -> ResourceType {
        match self {
            DiscoveryRequest::Delta(request) => request.kind,
            DiscoveryRequest::Sotw(request) => request.kind,
        }
    }

    /// The nonce of the response that it answers; for state of the world, of the last response;
    /// empty in spontaneous delta requests.
    pub fn nonce(&self) -> &str {
        match self {
            DiscoveryRequest::Delta(request) => &request.nonce,
            DiscoveryRequest::Sotw(request) => &request.nonce,
        }
    }

    /// If set, the request is a NACK.
    pub fn error(&mut self) -> &mut Option<String> {
        match self {
            DiscoveryRequest::Delta(request) => &mut request.error,
            DiscoveryRequest::Sotw(request) => &mut request.error,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaRequest {
    pub kind: ResourceType,
    pub subscribe: Vec<String>,
    pub unsubscribe: Vec<String>,
    /// Name and version of what is held already; only in the first request of a type on a stream.
    pub initial_versions: Vec<(String, String)>,
    /// Empty in spontaneous requests.
    pub nonce: String,
    /// Set: a NACK.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SotwRequest {
    pub kind: ResourceType,
    /// The last version that was accepted; empty before the first.
    pub version: String,
    /// Every name of interest; empty: all there are.
    pub names: Vec<String>,
    pub nonce: String,
    /// Set: a NACK.
    pub error: Option<String>,
}

/// One response of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryResponse {
    Delta(DeltaResponse),
    Sotw(SotwResponse),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaResponse {
    pub type_url: String,
    pub nonce: String,
    pub resources: Vec<Resource>,
    pub removed: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SotwResponse {
    pub type_url: String,
    pub nonce: String,
    pub version: String,
    pub resources: Vec<Resource>,
}

/// A resource as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Empty in state-of-the-world responses without a `Resource` wrapper.
    pub name: String,
    pub version: String,
    /// Type URL of the `Any`.
    pub type_url: String,
    pub body: Bytes,
    /// A field of the wrapper that is not supported.
    pub unsupported: Option<&'static str>,
}
