//! A node's claims, checked against its credential.

use std::collections::HashMap;

use tonic::{Request, Status};
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::envoy::config::core::v3::node::UserAgentVersionType;
use xds_proto::google::protobuf::value::Kind;

use super::resources::{Ports, Scope, TlsFiles, View};
use crate::identity::Peer;
use crate::identity::subject_name;
use crate::text::bounded;

/// Longer node ids are refused.
const MAX_ID: usize = 1024;
/// Linux's PATH_MAX.
const MAX_PATH: usize = 4096;

/// The peer of a request that only proxies may send.
///
/// # Errors
/// `Unauthenticated`, where it has no certificate of this mesh and the port requires one.
// A gRPC status is what the caller answers with; it is large, and this is once per stream.
#[allow(clippy::result_large_err)]
pub fn authenticated<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.ok_or_else(|| Status::internal("the connection has no peer information"))?;
    if !peer.insecure && peer.verified.is_none() {
        return Err(Status::unauthenticated(
            "a client certificate of this mesh is needed; get one by CreateCertificate with a join token",
        ));
    }
    Ok(peer)
}

/// A node whose claims were checked.
#[derive(Clone, Debug)]
pub struct AuthorisedNode {
    pub id: String,
    pub address: String,
    pub software: String,
    pub scope: Scope,
}

/// `sidecar~<ip>~<workload>.<namespace>~<trust domain>`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeId<'a> {
    pub address: &'a str,
    pub workload: &'a str,
    pub namespace: &'a str,
    pub trust_domain: &'a str,
}

impl<'a> NodeId<'a> {
    pub fn parse(id: &'a str) -> Option<Self> {
        let mut parts = id.split('~');
        let mut next = || parts.next();
        let (kind, address, name, trust_domain) = (next()?, next()?, next()?, next()?);
        let (workload, namespace) = name.rsplit_once('.')?;
        let whole = kind == "sidecar" && next().is_none();
        (whole && !workload.is_empty() && !namespace.is_empty()).then_some(NodeId {
            address,
            workload,
            namespace,
            trust_domain,
        })
    }
}

fn denied(message: String) -> Status {
    Status::permission_denied(message)
}

/// The scope of a node whose claims match its credential.
///
/// # Errors
/// `PermissionDenied`, with what does not match.
// A gRPC status is what the caller answers with; it is large, and this is once per stream.
#[allow(clippy::result_large_err)]
pub fn authorise(
    node: &Node,
    peer: &Peer,
    view: &dyn View,
    domain: &str,
) -> Result<AuthorisedNode, Status> {
    if node.id.len() > MAX_ID {
        return Err(Status::invalid_argument(
            "node.id is longer than 1024 bytes",
        ));
    }
    let metadata = strings(node);
    let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
    let parsed = NodeId::parse(&node.id);
    let mut scope = Scope {
        namespace: parsed
            .as_ref()
            .map_or_else(|| text("NAMESPACE"), |id| id.namespace.into()),
        workload: parsed
            .as_ref()
            .map_or_else(|| text("NAME"), |id| id.workload.into()),
        service_account: text("SERVICE_ACCOUNT"),
        trust_domain: domain.to_owned(),
        anyam: text("ANYAM") == "true",
        tls_files: tls_files(&metadata)?,
        ports: ports(&metadata)?,
    };
    if peer.insecure {
        if let Some(account) = view.service_account(&scope.namespace, &scope.workload) {
            scope.service_account = account;
        }
    } else {
        let Some(id) = &parsed else {
            return Err(denied(format!(
                "node.id `{}` is not `sidecar~<ip>~<workload>.<namespace>~<trust domain>`",
                bounded(&node.id)
            )));
        };
        scope.service_account = validate(id, &scope, peer, view, domain)?;
    }
    Ok(AuthorisedNode {
        id: bounded(&node.id),
        address: parsed.map_or_else(String::new, |id| bounded(id.address)),
        software: software(node),
        scope,
    })
}

/// Every claim against the certificate; the service account that the workload runs as.
#[allow(clippy::result_large_err)]
fn validate(
    id: &NodeId<'_>,
    scope: &Scope,
    peer: &Peer,
    view: &dyn View,
    domain: &str,
) -> Result<String, Status> {
    let Some(verified) = &peer.verified else {
        return Err(Status::unauthenticated(
            "a client certificate of this mesh is needed; get one by CreateCertificate with a join token",
        ));
    };
    let identity = &verified.identity;
    let (namespace, workload) = (bounded(id.namespace), bounded(id.workload));
    if identity.trust_domain != domain || id.trust_domain != domain {
        return Err(denied(format!(
            "this control plane serves trust domain `{domain}`; the certificate is of `{}` and node.id of `{}`",
            identity.trust_domain,
            bounded(id.trust_domain)
        )));
    }
    let other = || {
        denied(format!(
            "node.id claims Workload {namespace}/{workload}, but the certificate is {identity} (workload `{}`)",
            bounded(&verified.workload)
        ))
    };
    let named = &verified.workload;
    if identity.namespace != id.namespace
        || (!named.is_empty() && *named != subject_name(id.workload))
    {
        return Err(other());
    }
    match view.service_account(id.namespace, id.workload) {
        None => Err(denied(format!(
            "no Workload {namespace}/{workload} is declared; add its manifest first"
        ))),
        Some(account) if account != identity.service_account => Err(other()),
        Some(account) => {
            let claimed = &scope.service_account;
            if !claimed.is_empty() && *claimed != account {
                return Err(other());
            }
            Ok(account)
        }
    }
}

fn strings(node: &Node) -> HashMap<String, String> {
    let fields = node.metadata.iter().flat_map(|metadata| &metadata.fields);
    let text = |(key, value): (&String, &xds_proto::google::protobuf::Value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((key.clone(), text.clone())),
        Some(Kind::BoolValue(flag)) => Some((key.clone(), flag.to_string())),
        _ => None,
    };
    fields.filter_map(text).collect()
}

#[allow(clippy::result_large_err)]
fn tls_files(metadata: &HashMap<String, String>) -> Result<Option<TlsFiles>, Status> {
    let path = |key: &str| match metadata.get(key) {
        // They are in each of its clusters.
        Some(path) if path.len() > MAX_PATH => Err(Status::invalid_argument(format!(
            "node.metadata.{key} is longer than {MAX_PATH} bytes"
        ))),
        path => Ok(path.cloned()),
    };
    let paths = (
        path("TLS_CERT_CHAIN")?,
        path("TLS_KEY")?,
        path("TLS_ROOT_CERT")?,
    );
    let (Some(certificate_chain), Some(private_key), Some(root_certificate)) = paths else {
        return Ok(None);
    };
    Ok(Some(TlsFiles {
        certificate_chain,
        private_key,
        root_certificate,
    }))
}

#[allow(clippy::result_large_err)]
fn ports(metadata: &HashMap<String, String>) -> Result<Ports, Status> {
    let port = |key: &str, usual: u16| match metadata.get(key) {
        None => Ok(usual),
        Some(text) => match text.parse() {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(Status::invalid_argument(format!(
                "node.metadata.{key}: `{}` is no port; 1 to 65535",
                bounded(text)
            ))),
        },
    };
    let usual = Ports::default();
    let ports = Ports {
        outbound: port("OUTBOUND_PORT", usual.outbound)?,
        inbound: port("INBOUND_PORT", usual.inbound)?,
    };
    match ports.outbound == ports.inbound {
        true => Err(Status::invalid_argument(format!(
            "node.metadata: OUTBOUND_PORT and INBOUND_PORT are both {}; they must differ",
            ports.inbound
        ))),
        false => Ok(ports),
    }
}

fn software(node: &Node) -> String {
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            build.version.as_ref().map_or_else(String::new, |v| {
                format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)
            })
        }
        None => String::new(),
    };
    let text = format!("{} {version}", node.user_agent_name);
    bounded(text.trim()).chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_node_are_bounded() {
        let keys = ["TLS_CERT_CHAIN", "TLS_KEY", "TLS_ROOT_CERT"];
        let good = keys.map(|key| (key.to_owned(), format!("/{key}.pem")));
        let mut metadata = HashMap::from(good);
        assert!(tls_files(&metadata).unwrap().is_some());
        metadata.insert("TLS_KEY".to_owned(), "x".repeat(MAX_PATH + 1));
        let refused = tls_files(&metadata).unwrap_err();
        assert_eq!(
            refused.message(),
            "node.metadata.TLS_KEY is longer than 4096 bytes"
        );
        metadata.remove("TLS_KEY");
        assert!(tls_files(&metadata).unwrap().is_none());
    }
}
