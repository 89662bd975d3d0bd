//! Certificates of the TLS cases: P-256, one root, a SPIFFE id for each side.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::BenchError;

/// Writes `ca.crt`, `{client,server}.{crt,key,both}`, and a gRPC `message` into `folder`.
///
/// # Errors
/// When a key cannot be made or a file cannot be written.
pub fn write(folder: &Path) -> Result<(), BenchError> {
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).map_err(|error| BenchError::Io {
            what: name.into(),
            error,
        })
    };
    let message = "\0\0\0\0\x5f".to_owned() + &"x".repeat(95);
    write("message", message)?;
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::new(Vec::new())?;
    // Issuer and subject of the same name would be a self-signed certificate to OpenSSL.
    root.distinguished_name
        .push(DnType::CommonName, "bench root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write("ca.crt", root.self_signed(&root_key)?.pem())?;
    let issuer = Issuer::new(root, root_key);
    for side in ["client", "server"] {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(Vec::new())?;
        leaf.distinguished_name.push(DnType::CommonName, side);
        let id = format!("spiffe://bench/ns/default/sa/{side}");
        leaf.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = leaf.signed_by(&key, &issuer)?.pem();
        write(&format!("{side}.crt"), certificate.clone())?;
        write(&format!("{side}.key"), key.serialize_pem())?;
        // HAProxy takes certificate and key in one file.
        let both = certificate + &key.serialize_pem();
        write(&format!("{side}.both"), both)?;
    }
    Ok(())
}
