//! Transport sockets: between sidecars, and to apps that speak TLS themselves.

use std::collections::BTreeSet;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds_proto::envoy::extensions::transport_sockets::tls::v3 as tls;

use super::proto::{boolv, exact, inline, safe_regex, transport_socket};
use crate::ads::resources::{Scope, TlsFiles};
use crate::model::manifest::backend_tls_policy::SubjectName;
use crate::model::mesh::backend_tls::{BackendTls, Trust};

/// HTTP/2 with the spelling of header names beside it.
pub const H2_CASE: &str = "anyam-h2-case";
pub const H2: &str = "anyam-h2";
pub const HTTP1: &str = "anyam-http/1.1";
pub const TCP: &str = "anyam-tcp";

/// HTTP/2 that carries TCP connections, as HBONE has it. Recognised only by its port.
pub const TUNNEL: &str = "h2";

/// All that mean HTTP over mTLS, in the order in which a server prefers it.
pub const HTTP: [&str; 3] = [H2_CASE, H2, HTTP1];
/// All that mean mTLS of the mesh, in contrast to TLS of the app's own.
pub const MESH: [&str; 4] = [H2_CASE, H2, HTTP1, TCP];

/// Where a stock Envoy finds the system's CA certificates.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

pub fn raw_buffer() -> core::TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}

/// Dials a peer that must show one of `identities`.
pub fn upstream(
    scope: &Scope,
    identities: &BTreeSet<String>,
    alpn: &[&str],
) -> core::TransportSocket {
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common(scope, identities, alpn)),
        ..tls::UpstreamTlsContext::default()
    };
    transport_socket("envoy.transport_sockets.tls", &context)
}

/// Dials an app that shows a certificate as a BackendTLSPolicy wants it. `None`: there is nothing to
/// verify it with.
pub fn to_app(scope: &Scope, wanted: &BackendTls, alpn: &[&str]) -> Option<core::TransportSocket> {
    use tls::common_tls_context::ValidationContextType as Kind;
    let (mut trusted_ca, mut system_root_certs) = (None, None);
    match &wanted.trust {
        Trust::Nothing => return None,
        Trust::Roots(pem) => trusted_ca = Some(inline(&pem.concat())),
        Trust::System if scope.anyam => system_root_certs = Some(Default::default()),
        Trust::System => trusted_ca = Some(file(SYSTEM_ROOTS)),
    }
    let validation = tls::CertificateValidationContext {
        trusted_ca,
        system_root_certs,
        match_typed_subject_alt_names: wanted.names.iter().map(subject).collect(),
        ..tls::CertificateValidationContext::default()
    };
    let context = tls::UpstreamTlsContext {
        sni: wanted.hostname.clone(),
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
            validation_context_type: Some(Kind::ValidationContext(validation)),
            ..tls::CommonTlsContext::default()
        }),
        ..tls::UpstreamTlsContext::default()
    };
    Some(transport_socket("envoy.transport_sockets.tls", &context))
}

fn subject(name: &SubjectName) -> tls::SubjectAltNameMatcher {
    use tls::subject_alt_name_matcher::SanType;
    let (san_type, matcher) = match name {
        SubjectName::Uri(uri) => (SanType::Uri, exact(uri)),
        SubjectName::Dns(name) => match name.strip_prefix("*.") {
            None => (SanType::Dns, exact(name)),
            // One label, or the certificate's own star.
            Some(parent) => {
                let parent = regex::escape(parent);
                (SanType::Dns, safe_regex(format!("[^.]+\\.{parent}")))
            }
        },
    };
    tls::SubjectAltNameMatcher {
        san_type: san_type as i32,
        matcher: Some(matcher),
        ..tls::SubjectAltNameMatcher::default()
    }
}

/// Accepts any peer with an identity of the mesh; what it may do is decided by authorisation.
pub fn downstream(scope: &Scope, alpn: &[&str]) -> core::TransportSocket {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common(scope, &BTreeSet::new(), alpn)),
        require_client_certificate: boolv(true),
        ..tls::DownstreamTlsContext::default()
    };
    transport_socket("envoy.transport_sockets.tls", &context)
}

fn common(scope: &Scope, identities: &BTreeSet<String>, alpn: &[&str]) -> tls::CommonTlsContext {
    let version = tls::tls_parameters::TlsProtocol::TlSv13 as i32;
    let mut context = tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: version,
            tls_maximum_protocol_version: version,
            ..tls::TlsParameters::default()
        }),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..tls::CommonTlsContext::default()
    };
    use tls::common_tls_context::ValidationContextType as Kind;
    match &scope.tls_files {
        Some(files) => {
            context.tls_certificates = vec![certificate(files)];
            context.validation_context_type =
                Some(Kind::ValidationContext(tls::CertificateValidationContext {
                    trusted_ca: Some(file(&files.root_certificate)),
                    ..names(identities)
                }));
        }
        // The proxy's own secrets: it has them by CSR. One that has none fails closed.
        None => {
            context.tls_certificate_sds_secret_configs = vec![secret("default")];
            context.validation_context_type = Some(Kind::CombinedValidationContext(
                tls::common_tls_context::CombinedCertificateValidationContext {
                    default_validation_context: Some(names(identities)),
                    validation_context_sds_secret_config: Some(secret("ROOTCA")),
                    ..Default::default()
                },
            ));
        }
    }
    context
}

fn names(identities: &BTreeSet<String>) -> tls::CertificateValidationContext {
    let uri = tls::subject_alt_name_matcher::SanType::Uri as i32;
    let one = |identity: &String| tls::SubjectAltNameMatcher {
        san_type: uri,
        matcher: Some(exact(identity)),
        ..tls::SubjectAltNameMatcher::default()
    };
    tls::CertificateValidationContext {
        match_typed_subject_alt_names: identities.iter().map(one).collect(),
        ..tls::CertificateValidationContext::default()
    }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: None,
    }
}

fn certificate(files: &TlsFiles) -> tls::TlsCertificate {
    tls::TlsCertificate {
        certificate_chain: Some(file(&files.certificate_chain)),
        private_key: Some(file(&files.private_key)),
        ..tls::TlsCertificate::default()
    }
}

fn file(path: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..core::DataSource::default()
    }
}
