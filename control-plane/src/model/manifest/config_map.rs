//! ConfigMap, of which a bundle of CA certificates is read, where a policy names it.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::sync::Arc;

use pem::{EncodeConfig, LineEnding};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde::de::IgnoredAny;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::object::{FieldError, Meta};

/// The entry that has the certificates.
pub const KEY: &str = "ca.crt";
/// Bytes of certificates; all that browsers trust are some 200 KiB.
pub const MAX_BUNDLE: usize = 512 << 10;
/// What proxies accept of an issuer's RSA key.
const MIN_RSA_BITS: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    pub meta: Meta,
    pub ca: CaBundle,
}

/// What is in [`KEY`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaBundle {
    Missing,
    /// Why none of it can be trusted.
    Invalid(String),
    /// PEM of the certificates that proxies take, at least one.
    Roots(Arc<str>),
}

/// A manifest; it has no `spec`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapDocument {
    #[serde(default, rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(default, rename = "kind")]
    _kind: IgnoredAny,
    metadata: Meta,
    #[serde(default)]
    data: Data,
    #[serde(default, rename = "binaryData")]
    _binary_data: IgnoredAny,
    #[serde(default, rename = "immutable")]
    _immutable: IgnoredAny,
}

/// Other entries are not read.
#[derive(Default, Deserialize)]
struct Data {
    #[serde(default, rename = "ca.crt")]
    ca: Option<String>,
}

impl ConfigMap {
    /// # Errors
    /// Returns no error today; the signature is that of the other objects.
    pub fn new(document: ConfigMapDocument) -> Result<Self, Vec<FieldError>> {
        let ca = match document.data.ca {
            None => CaBundle::Missing,
            Some(text) => {
                read(&text).map_or_else(CaBundle::Invalid, |pem| CaBundle::Roots(pem.into()))
            }
        };
        Ok(ConfigMap {
            meta: document.metadata,
            ca,
        })
    }
}

/// What proxies would refuse must not reach them: they would keep what they had.
fn read(text: &str) -> Result<String, String> {
    if text.len() > MAX_BUNDLE {
        return Err(format!("has more than {} KiB", MAX_BUNDLE >> 10));
    }
    let blocks = pem::parse_many(text).map_err(|error| format!("is no PEM: {error}"))?;
    let certificates = blocks.into_iter().filter(|it| it.tag() == "CERTIFICATE");
    let certificates: Vec<pem::Pem> = certificates.collect();
    if certificates.is_empty() {
        return Err("has no PEM block CERTIFICATE".to_owned());
    }
    let mut store = RootCertStore::empty();
    let mut weak = None;
    let mut roots = String::new();
    for (index, block) in certificates.iter().enumerate() {
        let der = CertificateDer::from(block.contents());
        let added = store.add(der);
        added.map_err(|error| format!("certificate {}: {error}", index.saturating_add(1)))?;
        match weak_key(block.contents()) {
            Some(bits) => weak = Some(bits),
            None => {
                let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
                roots.push_str(&pem::encode_config(block, lines));
            }
        }
    }
    match (roots.is_empty(), weak) {
        (true, Some(bits)) => Err(format!(
            "has an RSA key of {bits} bits; {MIN_RSA_BITS} are needed"
        )),
        _ => Ok(roots),
    }
}

fn weak_key(der: &[u8]) -> Option<usize> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => Some(key.key_size()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Object;
    use crate::source::yaml;

    fn bundle(data: &str) -> CaBundle {
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
            "data": {"other": "x", "ca.crt": data}, "binaryData": {"b": "AA=="}, "immutable": true,
        });
        match yaml::parse("a.json", &text.to_string())
            .unwrap()
            .remove(0)
            .object
        {
            Object::ConfigMap(map) => map.ca.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn why(data: &str) -> String {
        match bundle(data) {
            CaBundle::Invalid(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn certificates_are_read_among_other_text_and_what_proxies_refuse_is_not_valid() {
        let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (one, two) = (made("one"), made("two"));
        let both = format!("# CAs\n{}\nmore\n{}", one.cert.pem(), two.cert.pem());
        let CaBundle::Roots(roots) = bundle(&both) else {
            panic!("{:?}", bundle(&both))
        };
        assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 2);
        let key = one.signing_key.serialize_pem();
        assert_eq!(why(&key), "has no PEM block CERTIFICATE");
        assert_eq!(why(""), "has no PEM block CERTIFICATE");
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let spoilt = format!("{}{junk}", one.cert.pem());
        assert!(
            why(&spoilt).starts_with("certificate 2: "),
            "{}",
            why(&spoilt)
        );
        assert!(why(&"x".repeat(MAX_BUNDLE + 1)).contains("KiB"));
    }
}
