//! Secrets: certificates with keys, validation contexts, and the slots that hold them by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xds_proto::envoy::extensions::transport_sockets::tls::v3 as pb;

use super::matcher::string;
use super::support::{
    At, CompileError, bool_or, decode, each, elsewhere, ignored, known, required, type_name,
    unknown_type, unsupported,
};
use super::tls::depth;
use super::values::{data_source, extension};
use crate::config::secret::{Secret, SecretValue};
use crate::tls::{Identity, PeerRules, Rotating, SanMatch, TrustBundle};

/// The named secrets. TLS contexts hold a reference to the slot of a name; a renewed secret is
/// written into its slot. A slot may be empty: handshakes fail until its secret arrives.
#[derive(Default)]
pub struct SecretStore {
    secrets: Mutex<RotatingSecrets>,
}

#[derive(Default)]
struct RotatingSecrets {
    identities: HashMap<String, Arc<Rotating<Identity>>>,
    bundles: HashMap<String, Arc<Rotating<TrustBundle>>>,
}

impl SecretStore {
    /// The slot of the certificate called `name`.
    pub fn identity(&self, name: &str) -> Arc<Rotating<Identity>> {
        let mut secrets = self.lock();
        let place = secrets.identities.entry(name.to_owned());
        place.or_insert_with(|| Rotating::new(None)).clone()
    }

    /// The slot of the trust bundle called `name`.
    pub fn bundle(&self, name: &str) -> Arc<Rotating<TrustBundle>> {
        let mut secrets = self.lock();
        let place = secrets.bundles.entry(name.to_owned());
        place.or_insert_with(|| Rotating::new(None)).clone()
    }

    /// Removes the slots that neither a TLS context nor a writer holds, except for those `kept`.
    pub fn forget_unused(&self, kept: impl Fn(&str) -> bool) {
        let mut secrets = self.lock();
        let RotatingSecrets {
            identities,
            bundles,
        } = &mut *secrets;
        // Contexts that are being compiled, or are not published yet, count as well.
        identities.retain(|name, slot| Arc::strong_count(slot) > 1 || kept(name));
        bundles.retain(|name, slot| Arc::strong_count(slot) > 1 || kept(name));
    }

    /// Writes a secret into its slot.
    pub fn set(&self, secret: &Secret) {
        match &secret.value {
            SecretValue::Certificate(identity) => self.identity(&secret.name).set(identity.clone()),
            SecretValue::Validation(bundle) => self.bundle(&secret.name).set(bundle.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, RotatingSecrets> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// envoy.extensions.transport_sockets.tls.v3.Secret.
pub fn secret(at: At<'_>, m: &pb::Secret) -> Result<Secret, CompileError> {
    use pb::secret::Type;
    let pb::Secret { name, r#type } = m;
    let value = match required!(at, r#type) {
        Type::TlsCertificate(m) => {
            SecretValue::Certificate(Arc::new(certificate(at.field("tls_certificate"), m)?))
        }
        Type::ValidationContext(m) => {
            let at = at.field("validation_context");
            let (bundle, rules) = validation(at, m)?;
            if !rules.sans.is_empty() {
                return at
                    .field("match_typed_subject_alt_names")
                    .fail("in a named secret is not supported; set it where the secret is used");
            }
            match bundle {
                Some(bundle) => SecretValue::Validation(Arc::new(bundle)),
                None => return at.field("trusted_ca").fail("is required"),
            }
        }
        Type::SessionTicketKeys(_) => {
            return at
                .field("session_ticket_keys")
                .fail("is not supported by this proxy");
        }
        Type::GenericSecret(_) => {
            return at
                .field("generic_secret")
                .fail("is not supported by this proxy");
        }
    };
    Ok(Secret {
        name: name.as_str().into(),
        value,
    })
}

pub fn certificate(at: At<'_>, m: &pb::TlsCertificate) -> Result<Identity, CompileError> {
    let pb::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = m;
    unsupported!(
        at,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    );
    let chain = required!(at, certificate_chain);
    let key = required!(at, private_key);
    let chain = data_source(at.field("certificate_chain"), chain)?;
    let key = data_source(at.field("private_key"), key)?;
    Identity::from_pem(&chain, &key).map_err(|e| at.error(e))
}

/// Roots and CRLs, and the rules for a peer's names.
pub fn validation(
    at: At<'_>,
    m: &pb::CertificateValidationContext,
) -> Result<(Option<TrustBundle>, PeerRules), CompileError> {
    let rules = peer_rules(at, m)?;
    let crl = match &m.crl {
        Some(source) => Some(data_source(at.field("crl"), source)?),
        None => None,
    };
    let bundle = match (&m.trusted_ca, &m.custom_validator_config) {
        (_, Some(config)) => {
            let at = at.field("custom_validator_config");
            Some(spiffe_bundle(at, config, crl.as_deref())?)
        }
        (Some(source), None) => {
            let at = at.field("trusted_ca");
            let roots = data_source(at, source)?;
            let bundle = TrustBundle::from_pem(&roots, crl.as_deref());
            Some(bundle.map_err(|e| at.error(e))?)
        }
        (None, None) if crl.is_some() => return at.field("crl").fail("needs trusted_ca"),
        (None, None) if m.system_root_certs.is_some() => Some(TrustBundle::system()),
        (None, None) => None,
    };
    // Without roots the names would be read from certificates that any client can make itself.
    if bundle.is_none() && !rules.sans.is_empty() {
        return at
            .field("trusted_ca")
            .fail("is required where names are matched");
    }
    Ok((bundle, rules))
}

/// A validation context's rules for names and chains; roots and CRLs are [`validation`]'s.
pub fn peer_rules(
    at: At<'_>,
    m: &pb::CertificateValidationContext,
) -> Result<PeerRules, CompileError> {
    let pb::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = m;
    let require_signed_certificate_timestamp =
        &bool_or(require_signed_certificate_timestamp, false);
    unsupported!(
        at,
        ca_certificate_provider_instance,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        allow_expired_certificate,
        trust_chain_verification,
        only_verify_leaf_cert_crl,
    );
    elsewhere!(trusted_ca, system_root_certs, crl, custom_validator_config);
    ignored!(
        "the list of accepted authorities is never sent",
        suppress_client_ca_list
    );
    Ok(PeerRules {
        sans: each(
            at,
            "match_typed_subject_alt_names",
            match_typed_subject_alt_names,
            san,
        )?,
        max_intermediates: depth(max_verify_depth),
    })
}

fn san(at: At<'_>, m: &pb::SubjectAltNameMatcher) -> Result<SanMatch, CompileError> {
    use pb::subject_alt_name_matcher::SanType;
    let pb::SubjectAltNameMatcher {
        san_type,
        matcher,
        oid,
    } = m;
    unsupported!(at, oid);
    let matcher = string(at.field("matcher"), required!(at, matcher))?;
    match known(at.field("san_type"), *san_type)? {
        SanType::Uri => Ok(SanMatch::Uri(matcher)),
        SanType::Dns => Ok(SanMatch::Dns(matcher)),
        _ => at.field("san_type").fail("only URI and DNS are supported"),
    }
}

fn spiffe_bundle(
    at: At<'_>,
    config: &xds_proto::envoy::config::core::v3::TypedExtensionConfig,
    crl: Option<&[u8]>,
) -> Result<TrustBundle, CompileError> {
    let any = extension(at, config)?;
    if type_name(any) != "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig" {
        return unknown_type(at, any);
    }
    let at = at.field("typed_config");
    let m: pb::SpiffeCertValidatorConfig = decode(at, any)?;
    let pb::SpiffeCertValidatorConfig {
        trust_domains,
        trust_bundles,
    } = &m;
    unsupported!(at, trust_bundles);
    let domains = each(at, "trust_domains", trust_domains, |at, m| {
        let pb::spiffe_cert_validator_config::TrustDomain {
            name,
            trust_bundle,
            workload_trust_domain,
        } = m;
        unsupported!(at, workload_trust_domain);
        let source = required!(at, trust_bundle);
        Ok((
            name.as_str(),
            data_source(at.field("trust_bundle"), source)?,
        ))
    })?;
    let domains = domains
        .iter()
        .map(|(name, roots)| (*name, roots.as_slice()));
    TrustBundle::from_trust_domains(domains, crl).map_err(|e| at.error(e))
}
