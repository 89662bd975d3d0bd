//! The kinds that are watched, and their resources in the API.

use std::fmt;

use kube::core::ApiResource;

use crate::model::Kind;

/// A kind of objects of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchedKind {
    /// For the locality of pods.
    Node,
    Pod,
    Manifest(Kind),
}

impl WatchedKind {
    /// Those of which every object is watched. Of ConfigMaps only those are that policies name.
    pub fn all() -> impl Iterator<Item = Self> {
        let manifests = Kind::ALL
            .into_iter()
            .filter(|kind| *kind != Kind::ConfigMap);
        let manifests = manifests.map(WatchedKind::Manifest);
        [WatchedKind::Node, WatchedKind::Pod]
            .into_iter()
            .chain(manifests)
    }

    pub fn name(self) -> &'static str {
        match self {
            WatchedKind::Node => "Node",
            WatchedKind::Pod => "Pod",
            WatchedKind::Manifest(kind) => kind.name(),
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            WatchedKind::Node => "nodes",
            WatchedKind::Pod => "pods",
            WatchedKind::Manifest(kind) => match kind {
                Kind::Service => "services",
                Kind::EndpointSlice => "endpointslices",
                Kind::Workload => "workloads",
                Kind::HttpRoute => "httproutes",
                Kind::GrpcRoute => "grpcroutes",
                Kind::TcpRoute => "tcproutes",
                Kind::TlsRoute => "tlsroutes",
                Kind::ReferenceGrant => "referencegrants",
                Kind::BackendTlsPolicy => "backendtlspolicies",
                Kind::ConfigMap => "configmaps",
                Kind::AuthorizationPolicy => "authorizationpolicies",
                Kind::MeshPolicy => "meshpolicies",
                Kind::BackendPolicy => "backendpolicies",
            },
        }
    }

    /// Whether every API server has the kind; the others are custom resources.
    pub fn is_builtin(self) -> bool {
        let builtin = [Kind::Service, Kind::EndpointSlice, Kind::ConfigMap];
        let builtin = builtin.map(WatchedKind::Manifest);
        matches!(self, WatchedKind::Node | WatchedKind::Pod) || builtin.contains(&self)
    }

    /// The kind's resources, one for each version that can be read, the preferred one first.
    pub fn resources(self) -> impl Iterator<Item = ApiResource> {
        let versions: &[&str] = match self {
            WatchedKind::Node | WatchedKind::Pod => &["v1"],
            WatchedKind::Manifest(kind) => kind.api_versions(),
        };
        versions.iter().map(move |api_version| {
            let (group, version) = api_version.split_once('/').unwrap_or(("", *api_version));
            ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: (*api_version).to_owned(),
                kind: self.name().to_owned(),
                plural: self.plural().to_owned(),
            }
        })
    }
}

impl fmt::Display for WatchedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}
