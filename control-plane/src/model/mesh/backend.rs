//! What the backends of routes point at.

use std::sync::Arc;

use super::{Mesh, ServiceEntry};
use crate::model::manifest::grant::ReferenceGrant;
use crate::model::manifest::object::{Key, Kind};
use crate::model::manifest::route::{BackendKind, Destination, Route};
use crate::model::manifest::service::AppProtocol;

/// Why a route's backend cannot be used. Such a share of requests is answered with 500, of connections
/// it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBackend {
    /// Its kind and group.
    InvalidKind(String),
    RefNotPermitted,
    UnsupportedProtocol(String),
    NotFound(String),
}

impl Mesh {
    /// What a route's backend or mirror points at.
    ///
    /// # Errors
    /// See [`BadBackend`].
    pub fn backend(
        &self,
        route: &Route,
        to: &Destination,
    ) -> Result<(&Arc<ServiceEntry>, u16), BadBackend> {
        match &to.kind {
            BackendKind::Service => {}
            BackendKind::Other(kind) => return Err(BadBackend::InvalidKind(kind.clone())),
            BackendKind::Unreadable => return Err(BadBackend::InvalidKind("unknown".to_owned())),
        }
        if to.namespace != route.meta.namespace && !self.granted(route, to) {
            return Err(BadBackend::RefNotPermitted);
        }
        let key = Key::new(&to.namespace, &to.name);
        let service = self
            .service(&key)
            .ok_or_else(|| BadBackend::NotFound(format!("there is no Service {key}")))?;
        if let Some(name) = &service.service.external_name {
            let message =
                format!("Service {key} is of type ExternalName ({name}): it has no endpoints");
            return Err(BadBackend::NotFound(message));
        }
        let port = to
            .port
            .ok_or_else(|| BadBackend::NotFound(format!("Service {key} needs a port here")))?;
        let entry = service
            .port(port)
            .ok_or_else(|| BadBackend::NotFound(format!("Service {key} has no port {port}")))?;
        let tls = entry.tls.is_some();
        match mismatch(route.kind, entry.protocol, tls) {
            Some(why) => Err(BadBackend::UnsupportedProtocol(format!(
                "port {port} of Service {key} {why}"
            ))),
            None => Ok((service, port)),
        }
    }

    fn granted(&self, route: &Route, to: &Destination) -> bool {
        // What the caller addressed itself needs no ReferenceGrant (consumer routes, GEP-1294). A route
        // that has other parents too could send their callers there.
        let mut parents = route
            .parents
            .iter()
            .filter(|parent| parent.service)
            .peekable();
        let parent = parents.peek().is_some()
            && parents.all(|parent| parent.namespace == to.namespace && parent.name == to.name);
        let grants = self
            .grants
            .get(&to.namespace)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let kind = route.kind.name();
        let allows =
            |grant: &Arc<ReferenceGrant>| grant.allows(kind, &route.meta.namespace, &to.name);
        parent || grants.iter().any(allows)
    }
}

/// What of a backend's port does not fit, if routes of this kind cannot send there. `tls`: whether a
/// BackendTLSPolicy holds for it.
fn mismatch(kind: Kind, protocol: AppProtocol, tls: bool) -> Option<String> {
    let declared = |what: &str| Some(format!("is declared to carry {what}"));
    match (kind, protocol) {
        (Kind::TcpRoute, AppProtocol::Undeclared) if tls => {
            let why = "declares nothing, and a BackendTLSPolicy holds for it: declare that it carries TCP or TLS";
            Some(why.to_owned())
        }
        (kind, protocol) if kind.is_connection_route() && protocol.is_http() => {
            declared(&format!("{}, and a {kind} forwards bytes", protocol.word()))
        }
        (kind, _) if kind.is_connection_route() => None,
        // Requests in the policy's TLS.
        (Kind::HttpRoute, AppProtocol::Tls) if tls => None,
        (_, AppProtocol::Tcp | AppProtocol::Tls) => declared("TCP or TLS"),
        (Kind::GrpcRoute, AppProtocol::Http) => declared("HTTP/1.1, and gRPC needs HTTP/2"),
        _ => None,
    }
}
