//! The types of resources this proxy subscribes to.

use std::fmt;

use xds_proto::type_url;

/// A type of resource. The order is the one of make-before-break: what is referred to comes
/// before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Secret,
    Cluster,
    Endpoint,
    Listener,
    Route,
    Workload,
    Name,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Secret,
        Kind::Cluster,
        Kind::Endpoint,
        Kind::Listener,
        Kind::Route,
        Kind::Workload,
        Kind::Name,
    ];

    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Secret => type_url::SECRET,
            Kind::Cluster => type_url::CLUSTER,
            Kind::Endpoint => type_url::ENDPOINT,
            Kind::Listener => type_url::LISTENER,
            Kind::Route => type_url::ROUTE,
            Kind::Workload => type_url::WORKLOAD,
            Kind::Name => type_url::NAME,
        }
    }

    pub fn from_type_url(url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// State-of-the-world responses of these types are complete: what is missing was removed.
    pub fn is_complete_in_sotw(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }

    /// Whether the server may take a resource away that is in use. Of the others the last good
    /// one stays for as long as something refers to it, as in Envoy.
    pub fn is_removable(self) -> bool {
        !matches!(self, Kind::Endpoint | Kind::Route | Kind::Secret)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Secret => "secret",
            Kind::Cluster => "cluster",
            Kind::Endpoint => "endpoints",
            Kind::Listener => "listener",
            Kind::Route => "route configuration",
            Kind::Workload => "workload",
            Kind::Name => "DNS name",
        })
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
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
