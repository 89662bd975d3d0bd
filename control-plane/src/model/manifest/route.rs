//! Routes of all kinds in one form. `route_spec` reads HTTPRoutes and GRPCRoutes,
//! `connection_route_spec` those of connections.

use std::time::Duration;

use super::object::{Kind, Meta};
use super::values::Pattern;

/// A route of requests or of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// One for which [`Kind::is_route`] holds.
    pub kind: Kind,
    pub meta: Meta,
    pub parents: Vec<Parent>,
    /// Server names that a TLSRoute matches; none: all. Of a route of requests they choose nothing.
    pub hostnames: Vec<String>,
    /// A rule of connections has a name and backends, nothing else.
    pub rules: Vec<Rule>,
}

/// A reference to what a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parent {
    /// False: no Service; another controller handles such a parent.
    pub service: bool,
    /// As written, or as defaulted, like `kind`.
    pub group: String,
    pub kind: String,
    pub namespace: String,
    /// Whether the namespace is written; else it is the route's own.
    pub has_namespace: bool,
    pub name: String,
    /// `None`: all ports.
    pub port: Option<u16>,
    /// A port's name.
    pub section: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: Option<String>,
    /// Any of them; never empty.
    pub matches: Vec<Match>,
    pub filters: Filters,
    pub backends: Vec<Backend>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    pub session: Option<SessionPersistence>,
}

/// GEP-1619: the requests of a session go to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    /// Of the cookie or header; `None`: made of the rule's.
    pub name: Option<String>,
    pub carrier: SessionCarrier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCarrier {
    Cookie {
        /// `None`: until the client ends.
        lasts: Option<Duration>,
    },
    /// A header of responses, which the client repeats.
    Header,
}

/// All of its parts have to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub path: PathMatch,
    pub method: Option<String>,
    pub headers: Vec<ValueMatch>,
    pub query: Vec<ValueMatch>,
    /// Of a GRPCRoute, where it names a service or method; `path` says the same.
    pub grpc: Option<GrpcNames>,
}

/// How much of a gRPC call a match names: its precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcNames {
    /// By expressions.
    pub regex: bool,
    /// Characters of the service; 0: any.
    pub service: usize,
    pub method: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By path elements; without a trailing slash, so empty for `/`.
    Prefix(String),
    /// The whole path, and what stands for it in an explanation.
    Regex(Pattern),
}

impl Default for PathMatch {
    fn default() -> Self {
        PathMatch::Prefix(String::new())
    }
}

/// A header (lower case) or query parameter by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueMatch {
    pub name: String,
    pub value: ValueTest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueTest {
    Exact(String),
    Regex(Pattern),
}

/// What a rule or a backend does besides forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    pub request: HeaderEdits,
    pub response: HeaderEdits,
    pub redirect: Option<Redirect>,
    pub rewrite: Option<Rewrite>,
    pub mirrors: Vec<Mirror>,
    pub cors: Option<Cors>,
}

/// GEP-1767: which origins' scripts may read responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub origins: Vec<CorsOrigin>,
    pub credentials: bool,
    /// `*` alone: all. The same for headers.
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    /// Seconds for which a preflight's answer may be kept.
    pub max_age: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    Any,
    /// As browsers write it: lower case, no default port.
    Exact(String),
    /// A regular expression for the whole origin.
    Regex(String),
}

/// Requests that are also sent elsewhere, where the answer is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub to: Destination,
    /// How many of a million.
    pub share: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub path: Option<PathEdit>,
    pub port: Option<u16>,
    pub status: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub hostname: Option<String>,
    pub path: Option<PathEdit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    Full(String),
    /// Instead of the prefix that matched.
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub to: Destination,
    pub weight: u32,
    pub filters: Filters,
}

/// Where a reference to a backend points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub kind: BackendKind,
    pub namespace: String,
    pub name: String,
    pub port: Option<u16>,
}

/// What a backend is. A share of anything but a Service fails, a mirror of it gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendKind {
    Service,
    /// Another kind, with its group: `ServiceImport.multicluster.x-k8s.io`.
    Other(String),
    /// The reference cannot be read.
    Unreadable,
}

impl Rule {
    /// All that the rule may send requests to.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let backends = self.backends.iter().map(|backend| &backend.to);
        backends.chain(self.filters.mirrors.iter().map(|mirror| &mirror.to))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Zero: none.
    pub request: Option<Duration>,
    /// Of each attempt. Zero: none.
    pub backend_request: Option<Duration>,
}

/// GEP-1731.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    pub codes: Vec<u16>,
    /// Attempts after the first.
    pub attempts: Option<u32>,
    pub backoff: Option<Duration>,
}
