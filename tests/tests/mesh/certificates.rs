//! Apps that speak TLS themselves, and their certificates.

use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyam_cli::demo::netns::Namespace;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

use crate::harness::Mesh;
use crate::process::Process;

/// Where [`Authority::serve`] listens.
const PORT: u16 = 8443;

/// A CA that is not the mesh's.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    pub root: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A TLS server of openssl's, with a certificate for `name`.example. It answers each request with a page
    /// of its own.
    pub fn serve(&self, mesh: &Mesh, name: &str, at: Ipv4Addr, host: &Namespace) -> Process {
        let [certificate, key] = self.issue(&mesh.folder, name, &[&format!("{name}.example")]);
        let accept = format!("{at}:{PORT}");
        let arguments = [
            "s_server",
            "-accept",
            &accept,
            "-cert",
            &certificate,
            "-key",
            &key,
            "-www",
            "-quiet",
        ];
        let log = format!("openssl-{name}");
        mesh.spawn(&log, host, Path::new("openssl"), &arguments, 65_534)
    }

    /// Files of a certificate for `names` and of its key, which every user may read.
    fn issue(&self, folder: &Path, subject: &str, names: &[&str]) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let certificate = params(subject, names).signed_by(&key, &self.issuer);
        let files = [
            ("pem", certificate.unwrap().pem()),
            ("key", key.serialize_pem()),
        ];
        files.map(|(kind, text)| {
            let path = folder.join(format!("{subject}.{kind}"));
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            path.display().to_string()
        })
    }
}

fn params(subject: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}
