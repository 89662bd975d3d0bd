//! `/certs`: envoy.admin.v3.Certificates.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Admin, rfc3339, set};
use crate::config::secret::SecretValue;

/// Certificates by CSR first, then those of secrets.
pub(super) fn certs(admin: &Admin) -> Value {
    let mut certificates = Vec::new();
    let mut extra = json!({});
    if let Some(status) = &admin.identity {
        let status = status.borrow().clone();
        certificates.push(json!({
            "ca_cert": pem(&status.roots, "ROOTCA"),
            "cert_chain": pem(&status.chain, "default"),
        }));
        extra = json!({
            "renewals": status.renewals,
            "error": status.error,
            "clock": status.clock,
        });
    }
    let snapshot = admin.store.load();
    let mut secrets: Vec<_> = snapshot.secrets.values().collect();
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    for secret in secrets {
        if let SecretValue::Certificate(identity) = &secret.value {
            let chain = identity.chain().iter();
            let chain: Vec<Value> = chain
                .filter_map(|der| describe(der, &secret.name))
                .collect();
            certificates.push(json!({ "ca_cert": [], "cert_chain": chain }));
        }
    }
    let mut page = json!({ "certificates": certificates });
    if admin.identity.is_some() {
        set(&mut page, "identity", extra);
    }
    page
}

fn pem(text: &str, path: &str) -> Vec<Value> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .flatten()
        .filter_map(|der| describe(&der, path))
        .collect()
}

fn describe(der: &[u8], path: &str) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let time = |seconds: i64| {
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let time = SystemTime::UNIX_EPOCH.checked_add(since);
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let (from, to) = (
        time(validity.not_before.timestamp()),
        time(validity.not_after.timestamp()),
    );
    let left = to.duration_since(SystemTime::now()).unwrap_or_default();
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or(Vec::new(), |san| {
        let names = san.value.general_names.iter();
        names.filter_map(name).collect::<Vec<_>>()
    });
    Some(json!({
        "path": path,
        "serial_number": certificate.raw_serial_as_string().replace(':', ""),
        "subject_alt_names": names,
        "days_until_expiration": (left.as_secs() / 86_400).to_string(),
        "seconds_until_expiration": left.as_secs(),
        "valid_from": rfc3339(from),
        "expiration_time": rfc3339(to),
    }))
}

fn name(name: &GeneralName<'_>) -> Option<Value> {
    match name {
        GeneralName::URI(uri) => Some(json!({ "uri": uri })),
        GeneralName::DNSName(dns) => Some(json!({ "dns": dns })),
        _ => None,
    }
}
