//! The types of resources this proxy subscribes to.

use std::fmt;

use xds_proto::type_url;

/// A type of resource. The order is the one of make-before-break: what is referred to comes
/// before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    Secret,
    Cluster,
    Endpoint,
    Listener,
    Route,
    Workload,
    Name,
}

impl ResourceType {
    pub const ALL: [ResourceType; 7] = [
        ResourceType::Secret,
        ResourceType::Cluster,
        ResourceType::Endpoint,
        ResourceType::Listener,
        ResourceType::Route,
        ResourceType::Workload,
        ResourceType::Name,
    ];

    pub fn type_url(self) -> &'static str {
        match self {
            ResourceType::Secret => type_url::SECRET,
            ResourceType::Cluster => type_url::CLUSTER,
            ResourceType::Endpoint => type_url::ENDPOINT,
            ResourceType::Listener => type_url::LISTENER,
            ResourceType::Route => type_url::ROUTE,
            ResourceType::Workload => type_url::WORKLOAD,
            ResourceType::Name => type_url::NAME,
        }
    }

    pub fn from_type_url(url: &str) -> Option<ResourceType> {
        ResourceType::ALL
            .into_iter()
            .find(|kind| kind.type_url() == url)
    }

    /// State-of-the-world responses of these types are complete: what is missing was removed.
    pub fn is_complete_in_sotw(self) -> bool {
        matches!(self, ResourceType::Cluster | ResourceType::Listener)
    }

    /// Whether the server may take a resource away that is in use. Of the others the last good
    /// one stays for as long as something refers to it, as in Envoy.
    pub fn is_removable(self) -> bool {
        !matches!(
            self,
            ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret
        )
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResourceType::Secret => "secret",
            ResourceType::Cluster => "cluster",
            ResourceType::Endpoint => "endpoints",
            ResourceType::Listener => "listener",
            ResourceType::Route => "route configuration",
            ResourceType::Workload => "workload",
            ResourceType::Name => "DNS name",
        })
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: ResourceType,
    pub name: String,
}

impl Key {
    pub fn new(kind: ResourceType, name: impl Into<String>) -> Self {
        Key {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}
