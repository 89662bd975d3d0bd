//! Transport sockets: raw_buffer and TLS, both sides.
//!
//! Certificates and bundles given by name are slots in the [`SecretStore`]: a context holds the
//! slot, so that a changed secret needs no recompilation.
//!
//! [`SecretStore`]: super::secret::SecretStore

use std::sync::Arc;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds_proto::envoy::extensions::transport_sockets::tls::v3 as pb;

use super::Compiler;
use super::refs::Fetches;
use super::secret::{certificate, peer_rules, validation};
use super::support::{
    At, CompileError, bool_or, decode, ignored, known, required, type_name, u32_opt, unknown_type,
    unsupported,
};
use super::values::over_ads;
use crate::config::cluster::Transport;
use crate::tls::{
    ClientContext, ClientOptions, Identity, PeerRules, Rotating, ServerContext, ServerOptions,
    TlsVersion, TrustBundle, Versions,
};

/// A chain's transport socket; `None`: raw_buffer.
pub fn server(
    compiler: &Compiler,
    at: At<'_>,
    m: &core::TransportSocket,
    fetches: &mut Fetches,
) -> Result<Option<Arc<ServerContext>>, CompileError> {
    let any = typed(at, m)?;
    let inner = at.field("typed_config");
    match type_name(any) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {
            let RawBuffer {} = decode(inner, any)?;
            Ok(None)
        }
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            downstream(compiler, inner, &decode(inner, any)?, fetches)
                .map(|context| Some(Arc::new(context)))
        }
        _ => unknown_type(at, any),
    }
}

/// A cluster's transport socket.
pub fn client(
    compiler: &Compiler,
    at: At<'_>,
    m: &core::TransportSocket,
    fetches: &mut Fetches,
) -> Result<Transport, CompileError> {
    let any = typed(at, m)?;
    let inner = at.field("typed_config");
    match type_name(any) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {
            let RawBuffer {} = decode(inner, any)?;
            Ok(Transport::RawBuffer)
        }
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            upstream(compiler, inner, &decode(inner, any)?, fetches)
                .map(|context| Transport::Tls(Arc::new(context)))
        }
        _ => unknown_type(at, any),
    }
}

fn typed<'m>(
    at: At<'_>,
    m: &'m core::TransportSocket,
) -> Result<&'m xds_proto::google::protobuf::Any, CompileError> {
    let core::TransportSocket { name, config_type } = m;
    ignored!("the type says what the extension is", name);
    let core::transport_socket::ConfigType::TypedConfig(any) = required!(at, config_type);
    Ok(any)
}

fn downstream(
    compiler: &Compiler,
    at: At<'_>,
    m: &pb::DownstreamTlsContext,
    fetches: &mut Fetches,
) -> Result<ServerContext, CompileError> {
    let pb::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = m;
    let require_sni = &bool_or(require_sni, false);
    unsupported!(
        at,
        require_sni,
        ocsp_staple_policy,
        session_ticket_keys_type
    );
    ignored!(
        "sessions are resumed by tickets, which end with the trust bundle they were made under",
        disable_stateful_session_resumption,
        session_timeout
    );
    ignored!("there is one certificate", full_scan_certs_on_sni_mismatch);
    ignored!(
        "the suites are of equal strength; the server's order holds",
        prefer_client_ciphers
    );
    let common = required!(at, common_tls_context);
    let common = CommonTls::of(compiler, at.field("common_tls_context"), common, fetches)?;
    let require = bool_or(require_client_certificate, false);
    if require && common.trust.is_none() {
        let at = at.field("require_client_certificate");
        return at.fail("needs a validation context to verify the certificate with");
    }
    let Some(identity) = common.identity else {
        return at.field("common_tls_context").fail("has no certificate");
    };
    Ok(ServerContext::new(ServerOptions {
        identity,
        trust: common.trust,
        rules: common.rules,
        require_client_certificate: require,
        alpn: common.alpn,
        versions: common.versions,
    }))
}

fn upstream(
    compiler: &Compiler,
    at: At<'_>,
    m: &pb::UpstreamTlsContext,
    fetches: &mut Fetches,
) -> Result<ClientContext, CompileError> {
    let pb::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = m;
    unsupported!(
        at,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation
    );
    ignored!(
        "sessions are remembered within a bound of our own",
        max_session_keys
    );
    ignored!("key usage is always enforced", enforce_rsa_key_usage);
    let common = required!(at, common_tls_context);
    let common = CommonTls::of(compiler, at.field("common_tls_context"), common, fetches)?;
    Ok(ClientContext::new(ClientOptions {
        identity: common.identity,
        trust: common.trust,
        rules: common.rules,
        sni: (!sni.is_empty()).then(|| sni.as_str().into()),
        alpn: common.alpn,
        versions: common.versions,
    }))
}

/// What both sides have.
struct CommonTls {
    identity: Option<Arc<Rotating<Identity>>>,
    trust: Option<Arc<Rotating<TrustBundle>>>,
    rules: PeerRules,
    alpn: Vec<Vec<u8>>,
    versions: Versions,
}

impl CommonTls {
    fn of(
        compiler: &Compiler,
        at: At<'_>,
        m: &pb::CommonTlsContext,
        fetches: &mut Fetches,
    ) -> Result<Self, CompileError> {
        let pb::CommonTlsContext {
            tls_params,
            tls_certificates,
            tls_certificate_sds_secret_configs,
            tls_certificate_provider_instance,
            custom_tls_certificate_selector,
            tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance,
            alpn_protocols,
            custom_handshaker,
            key_log,
            validation_context_type,
        } = m;
        unsupported!(
            at,
            tls_certificate_provider_instance,
            custom_tls_certificate_selector,
            tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance,
            custom_handshaker,
            key_log,
        );
        let identity = match (
            tls_certificates.as_slice(),
            tls_certificate_sds_secret_configs.as_slice(),
        ) {
            ([], []) => None,
            ([m], []) => {
                let identity = certificate(at.index("tls_certificates", 0), m)?;
                Some(Rotating::new(Some(Arc::new(identity))))
            }
            ([], [m]) => {
                let at = at.index("tls_certificate_sds_secret_configs", 0);
                Some(compiler.secrets.identity(&secret_name(at, m, fetches)?))
            }
            _ => {
                return at
                    .field("tls_certificates")
                    .fail("only one certificate is supported");
            }
        };
        let (trust, rules) = peer_validation(compiler, at, validation_context_type, fetches)?;
        Ok(Self {
            identity,
            trust,
            rules,
            alpn: alpn_protocols
                .iter()
                .map(|p| p.clone().into_bytes())
                .collect(),
            versions: versions(at.field("tls_params"), tls_params)?,
        })
    }
}

type PeerValidation = (Option<Arc<Rotating<TrustBundle>>>, PeerRules);

fn peer_validation(
    compiler: &Compiler,
    at: At<'_>,
    m: &Option<pb::common_tls_context::ValidationContextType>,
    fetches: &mut Fetches,
) -> Result<PeerValidation, CompileError> {
    use pb::common_tls_context::ValidationContextType as Kind;
    match m {
        None => Ok((None, PeerRules::default())),
        Some(Kind::ValidationContext(m)) => {
            let (bundle, rules) = validation(at.field("validation_context"), m)?;
            Ok((
                bundle.map(|bundle| Rotating::new(Some(Arc::new(bundle)))),
                rules,
            ))
        }
        Some(Kind::ValidationContextSdsSecretConfig(m)) => {
            let name = secret_name(at.field("validation_context_sds_secret_config"), m, fetches)?;
            Ok((Some(compiler.secrets.bundle(&name)), PeerRules::default()))
        }
        Some(Kind::CombinedValidationContext(m)) => {
            let at = at.field("combined_validation_context");
            let pb::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            } = m;
            unsupported!(
                at,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            );
            let secret = required!(at, validation_context_sds_secret_config);
            let name = secret_name(
                at.field("validation_context_sds_secret_config"),
                secret,
                fetches,
            )?;
            let rules = match default_validation_context {
                None => PeerRules::default(),
                Some(m) => {
                    let at = at.field("default_validation_context");
                    if m.trusted_ca.is_some()
                        || m.system_root_certs.is_some()
                        || m.crl.is_some()
                        || m.custom_validator_config.is_some()
                    {
                        return at.fail("roots and CRLs come from the named secret");
                    }
                    peer_rules(at, m)?
                }
            };
            Ok((Some(compiler.secrets.bundle(&name)), rules))
        }
        Some(Kind::ValidationContextCertificateProvider(_)) => at
            .field("validation_context_certificate_provider")
            .fail("is not supported by this proxy"),
        Some(Kind::ValidationContextCertificateProviderInstance(_)) => at
            .field("validation_context_certificate_provider_instance")
            .fail("is not supported by this proxy"),
    }
}

/// The name of a secret. Without `sds_config` it is a static one, or one of those the bootstrap's
/// identity extension provides.
fn secret_name(
    at: At<'_>,
    m: &pb::SdsSecretConfig,
    fetches: &mut Fetches,
) -> Result<String, CompileError> {
    let pb::SdsSecretConfig { name, sds_config } = m;
    if name.is_empty() {
        return at.field("name").fail("is required");
    }
    if let Some(source) = sds_config {
        let initial_fetch_timeout = over_ads(at.field("sds_config"), source)?;
        fetches.secret(name, initial_fetch_timeout);
    }
    Ok(name.clone())
}

fn versions(at: At<'_>, m: &Option<pb::TlsParameters>) -> Result<Versions, CompileError> {
    use pb::tls_parameters::TlsProtocol as Tls;
    let none = pb::TlsParameters::default();
    let pb::TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = m.as_ref().unwrap_or(&none);
    unsupported!(at, compliance_policies);
    ignored!(
        "suites, groups and signatures are fixed; none of them is weak",
        cipher_suites,
        ecdh_curves,
        signature_algorithms
    );
    let min = at.field("tls_minimum_protocol_version");
    let max = at.field("tls_maximum_protocol_version");
    let version = |at: At<'_>, value, otherwise| match known(at, value)? {
        Tls::TlsAuto => Ok(otherwise),
        Tls::TlSv12 => Ok(TlsVersion::Tls12),
        Tls::TlSv13 => Ok(TlsVersion::Tls13),
        Tls::TlSv10 | Tls::TlSv11 => at.fail("TLS below 1.2 is not supported"),
    };
    let versions = Versions {
        // A lower minimum would change no handshake, but a configured one is rejected, because it
        // cannot be honoured.
        min: version(min, *tls_minimum_protocol_version, TlsVersion::Tls12)?,
        max: version(max, *tls_maximum_protocol_version, TlsVersion::Tls13)?,
    };
    if versions.min > versions.max {
        return max.fail("is below the minimum");
    }
    Ok(versions)
}

/// Certificates allowed between leaf and root.
pub fn depth(m: &Option<xds_proto::google::protobuf::UInt32Value>) -> usize {
    u32_opt(m).map_or(PeerRules::default().max_intermediates, |depth| {
        depth as usize
    })
}
