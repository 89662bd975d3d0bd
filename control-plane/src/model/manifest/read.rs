//! One manifest into one object.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use xds_proto::yaml::{self, Node};

use super::authorization::AuthorizationPolicy;
use super::backend_tls_policy::BackendTlsPolicy;
use super::config_map::{ConfigMap, ConfigMapDocument};
use super::endpoint_slice::{EndpointSlice, SliceDocument};
use super::grant::ReferenceGrant;
use super::match_spec::{GrpcMatch, HttpMatch};
use super::object::{FieldError, Kind, Meta, ObjectId};
use super::policy::{BackendPolicy, MeshPolicy};
use super::route::Route;

use super::service::Service;
use super::workload::Workload;

/// Any object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Workload(Arc<Workload>),
    Route(Arc<Route>),
    Grant(Arc<ReferenceGrant>),
    BackendTls(Arc<BackendTlsPolicy>),
    ConfigMap(Arc<ConfigMap>),
    Authorization(Arc<AuthorizationPolicy>),
    Mesh(Arc<MeshPolicy>),
    Backend(Arc<BackendPolicy>),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Object::Service(_) => Kind::Service,
            Object::Slice(_) => Kind::EndpointSlice,
            Object::Workload(_) => Kind::Workload,
            Object::Route(it) => it.kind,
            Object::Grant(_) => Kind::ReferenceGrant,
            Object::BackendTls(_) => Kind::BackendTlsPolicy,
            Object::ConfigMap(_) => Kind::ConfigMap,
            Object::Authorization(_) => Kind::AuthorizationPolicy,
            Object::Mesh(_) => Kind::MeshPolicy,
            Object::Backend(_) => Kind::BackendPolicy,
        }
    }

    pub fn meta(&self) -> &Meta {
        match self {
            Object::Service(it) => &it.meta,
            Object::Slice(it) => &it.meta,
            Object::Workload(it) => &it.meta,
            Object::Route(it) => &it.meta,
            Object::Grant(it) => &it.meta,
            Object::BackendTls(it) => &it.meta,
            Object::ConfigMap(it) => &it.meta,
            Object::Authorization(it) => &it.meta,
            Object::Mesh(it) => &it.meta,
            Object::Backend(it) => &it.meta,
        }
    }

    pub fn id(&self) -> ObjectId {
        ObjectId {
            kind: self.kind(),
            key: self.meta().key(),
        }
    }
}

/// `apiVersion` and `kind` of a manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
}

impl Header {
    /// Of what a list is: `List` may hold any kind, `ServiceList` what `kubectl get --raw` answers,
    /// whose items may omit their kind. `None`: no list.
    pub fn items(&self) -> Option<Header> {
        match self.kind.strip_suffix("List")? {
            "" => Some(Header::default()),
            kind => Some(Header {
                api_version: self.api_version.clone(),
                kind: kind.to_owned(),
            }),
        }
    }

    /// What is omitted is as in `other`.
    pub fn or(self, other: &Header) -> Header {
        match self.kind.is_empty() && self.api_version.is_empty() {
            true => other.clone(),
            false => self,
        }
    }

    /// # Errors
    /// When the kind or the version is not supported; with the field at fault.
    pub fn known(&self) -> Result<Kind, FieldError> {
        let kinds = || Kind::ALL.map(Kind::name).join(", ");
        if self.kind.is_empty() {
            return Err(FieldError::new(
                "kind",
                format!("is required; allowed: {}", kinds()),
            ));
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == self.kind) else {
            let message = format!("`{}` is not known; allowed: {}", self.kind, kinds());
            return Err(FieldError::new("kind", message));
        };
        match kind.api_versions().contains(&self.api_version.as_str()) {
            true => Ok(kind),
            false => Err(FieldError::new(
                "apiVersion",
                format!(
                    "`{}` is not known for {kind}; allowed: {}",
                    self.api_version,
                    kind.api_versions().join(", ")
                ),
            )),
        }
    }
}

/// A whole manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "S: DeserializeOwned"))]
struct Document<S> {
    /// Absent in the items of a typed list.
    #[serde(default, rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(default, rename = "kind")]
    _kind: IgnoredAny,
    metadata: Meta,
    spec: S,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// Why a manifest is no object.
pub enum ReadError {
    /// While reading; has the place.
    Value(yaml::Error),
    /// After reading.
    Fields(Vec<FieldError>),
}

/// Reads a manifest of a known kind.
///
/// # Errors
/// The first field that does not fit, or all that contradict each other.
pub fn object(kind: Kind, document: &Node<'_>) -> Result<Object, ReadError> {
    Ok(match kind {
        Kind::Service => Object::Service(one(document, Service::new)?),
        Kind::EndpointSlice => {
            let read = SliceDocument::deserialize(document).map_err(ReadError::Value)?;
            Object::Slice(
                EndpointSlice::new(read)
                    .map(Arc::new)
                    .map_err(ReadError::Fields)?,
            )
        }
        Kind::Workload => Object::Workload(one(document, Workload::new)?),
        Kind::HttpRoute => Object::Route(one(document, Route::new::<HttpMatch>)?),
        Kind::GrpcRoute => Object::Route(one(document, Route::new::<GrpcMatch>)?),
        Kind::TcpRoute => Object::Route(one(document, Route::of_tcp)?),
        Kind::TlsRoute => Object::Route(one(document, Route::of_tls)?),
        Kind::ReferenceGrant => Object::Grant(one(document, ReferenceGrant::new)?),
        Kind::BackendTlsPolicy => Object::BackendTls(one(document, BackendTlsPolicy::new)?),
        Kind::ConfigMap => {
            let read = ConfigMapDocument::deserialize(document).map_err(ReadError::Value)?;
            let read = ConfigMap::new(read).map_err(ReadError::Fields)?;
            Object::ConfigMap(Arc::new(read))
        }
        Kind::AuthorizationPolicy => {
            Object::Authorization(one(document, AuthorizationPolicy::new)?)
        }
        Kind::MeshPolicy => Object::Mesh(one(document, MeshPolicy::new)?),
        Kind::BackendPolicy => Object::Backend(one(document, BackendPolicy::new)?),
    })
}

fn one<S, T>(
    document: &Node<'_>,
    new: impl FnOnce(Meta, S) -> Result<T, Vec<FieldError>>,
) -> Result<Arc<T>, ReadError>
where
    S: DeserializeOwned,
{
    let read = Document::<S>::deserialize(document).map_err(ReadError::Value)?;
    new(read.metadata, read.spec)
        .map(Arc::new)
        .map_err(ReadError::Fields)
}
