//! The objects people write, as Kubernetes spells them. Parsing is strict: a field that would be
//! ignored is an error.
//!
//! - `core`: Service, Workload; `gateway`: HTTPRoute, GRPCRoute, ReferenceGrant;
//!   `policy`: AuthorizationPolicy, MeshPolicy, BackendPolicy
//! - `value`: field types that refuse bad values while parsing

pub mod core;
pub mod gateway;
pub mod policy;
pub mod value;

use std::fmt;

use self::core::{Service, Workload};
use gateway::{GrpcRoute, HttpRoute, ReferenceGrant};
use policy::{AuthorizationPolicy, BackendPolicy, MeshPolicy};
use value::Metadata;

/// The group of our own objects.
pub const GROUP: &str = "mesh.anyam.dev";

#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    Service(Service),
    Workload(Workload),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    ReferenceGrant(ReferenceGrant),
    AuthorizationPolicy(AuthorizationPolicy),
    MeshPolicy(MeshPolicy),
    BackendPolicy(BackendPolicy),
}

impl Manifest {
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Service(object) => &object.metadata,
            Self::Workload(object) => &object.metadata,
            Self::HttpRoute(object) => &object.metadata,
            Self::GrpcRoute(object) => &object.metadata,
            Self::ReferenceGrant(object) => &object.metadata,
            Self::AuthorizationPolicy(object) => &object.metadata,
            Self::MeshPolicy(object) => &object.metadata,
            Self::BackendPolicy(object) => &object.metadata,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Workload(_) => Kind::Workload,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::MeshPolicy(_) => Kind::MeshPolicy,
            Self::BackendPolicy(_) => Kind::BackendPolicy,
        }
    }

    pub fn id(&self) -> ObjectId {
        let metadata = self.metadata();
        ObjectId {
            kind: self.kind(),
            namespace: metadata.namespace.to_string(),
            name: metadata.name.to_string(),
        }
    }
}

/// What tells one object from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Service,
    Workload,
    HttpRoute,
    GrpcRoute,
    ReferenceGrant,
    AuthorizationPolicy,
    MeshPolicy,
    BackendPolicy,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static [&'static str]); 8] = [
        (Self::Service, "Service", &["v1"]),
        (Self::Workload, "Workload", &["mesh.anyam.dev/v1alpha1"]),
        (Self::HttpRoute, "HTTPRoute", &["gateway.networking.k8s.io/v1"]),
        (Self::GrpcRoute, "GRPCRoute", &["gateway.networking.k8s.io/v1"]),
        (
            Self::ReferenceGrant,
            "ReferenceGrant",
            &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"],
        ),
        (Self::AuthorizationPolicy, "AuthorizationPolicy", &["mesh.anyam.dev/v1alpha1"]),
        (Self::MeshPolicy, "MeshPolicy", &["mesh.anyam.dev/v1alpha1"]),
        (Self::BackendPolicy, "BackendPolicy", &["mesh.anyam.dev/v1alpha1"]),
    ];

    pub fn find(api_version: &str, kind: &str) -> Option<Self> {
        let found = |(_, name, versions): &&(Self, &str, &[&str])| {
            *name == kind && versions.contains(&api_version)
        };
        Self::ALL.iter().find(found).map(|(kind, ..)| *kind)
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    /// `v1/Service, …`, for error messages.
    pub fn all_names() -> String {
        Self::ALL.map(|(_, name, versions)| format!("{}/{name}", versions[0])).join(", ")
    }
}
