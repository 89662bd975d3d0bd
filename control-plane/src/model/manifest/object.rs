//! What all objects have in common.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{schema, values};

/// Targets of one policy (Gateway API's bound, GEP-713).
pub const MAX_TARGETS: usize = 16;

/// Kinds the mesh is described with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Service,
    EndpointSlice,
    Workload,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    TlsRoute,
    ReferenceGrant,
    BackendTlsPolicy,
    ConfigMap,
    AuthorizationPolicy,
    MeshPolicy,
    BackendPolicy,
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Workload,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TcpRoute,
        Kind::TlsRoute,
        Kind::ReferenceGrant,
        Kind::BackendTlsPolicy,
        Kind::ConfigMap,
        Kind::AuthorizationPolicy,
        Kind::MeshPolicy,
        Kind::BackendPolicy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Workload => "Workload",
            Kind::HttpRoute => "HTTPRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::TcpRoute => "TCPRoute",
            Kind::TlsRoute => "TLSRoute",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::BackendTlsPolicy => "BackendTLSPolicy",
            Kind::ConfigMap => "ConfigMap",
            Kind::AuthorizationPolicy => "AuthorizationPolicy",
            Kind::MeshPolicy => "MeshPolicy",
            Kind::BackendPolicy => "BackendPolicy",
        }
    }

    /// `apiVersion`s that are read, the preferred one first.
    pub fn api_versions(self) -> &'static [&'static str] {
        match self {
            Kind::Service | Kind::ConfigMap => &["v1"],
            Kind::EndpointSlice => &["discovery.k8s.io/v1"],
            Kind::HttpRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1beta1",
            ],
            // The fields that we read are the same in all of them.
            Kind::GrpcRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1beta1",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Kind::TcpRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Kind::TlsRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha3",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Kind::ReferenceGrant => &[
                "gateway.networking.k8s.io/v1beta1",
                "gateway.networking.k8s.io/v1",
            ],
            Kind::BackendTlsPolicy => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha3",
            ],
            Kind::Workload | Kind::AuthorizationPolicy | Kind::MeshPolicy | Kind::BackendPolicy => {
                &["mesh.anyam.dev/v1alpha1"]
            }
        }
    }
}

impl Kind {
    pub fn is_route(self) -> bool {
        matches!(self, Kind::HttpRoute | Kind::GrpcRoute) || self.is_connection_route()
    }

    /// Whether it is a route of connections; others are of requests.
    pub fn is_connection_route(self) -> bool {
        matches!(self, Kind::TcpRoute | Kind::TlsRoute)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    pub kind: Kind,
    pub key: Key,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// `metadata`, as far as the mesh looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "MetadataSpec")]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    /// `creationTimestamp` (RFC 3339, UTC, so that text order is age). Older objects win conflicts.
    pub created: Option<String>,
}

impl Meta {
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// Gateway API's order between objects that contradict each other: the oldest, then the first
    /// by name. Objects without a time stamp come last among those that have one.
    pub fn precedence(&self) -> (bool, &str, &str, &str) {
        (
            self.created.is_none(),
            self.created.as_deref().unwrap_or_default(),
            &self.namespace,
            &self.name,
        )
    }
}

/// `metadata` as it may be written. What the API server adds is accepted and not used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetadataSpec {
    #[serde(deserialize_with = "values::subdomain")]
    name: String,
    #[serde(default = "default_namespace", deserialize_with = "values::label")]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    creation_timestamp: Option<String>,
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    #[serde(default, rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(default, rename = "uid")]
    _uid: IgnoredAny,
    #[serde(default, rename = "resourceVersion")]
    _resource_version: IgnoredAny,
    #[serde(default, rename = "generation")]
    _generation: IgnoredAny,
    #[serde(default, rename = "generateName")]
    _generate_name: IgnoredAny,
    #[serde(default, rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(default, rename = "managedFields")]
    _managed_fields: IgnoredAny,
    #[serde(default, rename = "selfLink")]
    _self_link: IgnoredAny,
    #[serde(default, rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(default, rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period: IgnoredAny,
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl From<MetadataSpec> for Meta {
    fn from(from: MetadataSpec) -> Self {
        Meta {
            name: from.name,
            namespace: from.namespace,
            labels: from.labels,
            created: from.creation_timestamp,
        }
    }
}

/// Something wrong that only shows when fields are looked at together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.ports[0].port`.
    pub path: String,
    pub message: String,
}

impl FieldError {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// A target of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// Of the kind's API; empty for a Service.
    #[serde(default)]
    pub group: String,
    /// Service or Workload.
    pub kind: String,
    /// Of an object in the policy's namespace.
    #[serde(deserialize_with = "values::subdomain")]
    #[schemars(schema_with = "schema::subdomain")]
    pub name: String,
    /// Of a Service, a port's name: the policy holds for that port alone.
    #[serde(default, deserialize_with = "values::optional_label")]
    #[schemars(schema_with = "schema::label")]
    pub section_name: Option<String>,
}

/// A checked target, in the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Service {
        name: String,
        port: Option<String>,
    },
    Workload(String),
    /// Workloads that have all of these labels; without any (which no manifest says, see
    /// `source::kubernetes::lenient`), each of the namespace.
    Labels(BTreeMap<String, String>),
}

/// Checks `spec.targetRefs`.
///
/// # Errors
/// For a kind that is not among `Service` and, if `workloads`, `Workload`.
pub fn targets(refs: &[TargetRef], workloads: bool) -> Result<Vec<Target>, Vec<FieldError>> {
    let allowed = match workloads {
        true => "Service (group \"\") and Workload (group \"mesh.anyam.dev\")",
        false => "Service (group \"\")",
    };
    let mut errors = Vec::new();
    let mut targets = Vec::new();
    if refs.len() > MAX_TARGETS {
        let message = format!("{MAX_TARGETS} entries are allowed");
        errors.push(FieldError::new("spec.targetRefs", message));
    }
    for (index, target) in refs.iter().enumerate() {
        match (target.group.as_str(), target.kind.as_str()) {
            ("" | "core", "Service") => targets.push(Target::Service {
                name: target.name.clone(),
                port: target.section_name.clone(),
            }),
            ("mesh.anyam.dev" | "", "Workload") if workloads && target.section_name.is_none() => {
                targets.push(Target::Workload(target.name.clone()));
            }
            (group, kind) => errors.push(FieldError::new(
                format!("spec.targetRefs[{index}].kind"),
                format!("cannot target {kind} of group \"{group}\"; allowed: {allowed}"),
            )),
        }
    }
    if errors.is_empty() {
        Ok(targets)
    } else {
        Err(errors)
    }
}
