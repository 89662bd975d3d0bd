//! Who a request is from that the API server forwards to an aggregated API: the API server shows the
//! front proxy's client certificate, and names the user in headers. How both are recognised is in
//! ConfigMap `kube-system/extension-apiserver-authentication`, which the API server keeps.
//!
//! [`FrontProxy`] decides, without I/O; [`follow`] watches.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use http::{HeaderMap, HeaderName};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::call::{CallError, FailureLog, Right, watch_named};
use crate::text::{bounded, percent_decoded};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const WATCH: Right = Right::new("watch", "configmaps");

const CA: &str = "requestheader-client-ca-file";
const ALLOWED_NAMES: &str = "requestheader-allowed-names";
const USERNAME: &str = "requestheader-username-headers";
const UID: &str = "requestheader-uid-headers";
const GROUP: &str = "requestheader-group-headers";
const EXTRA_PREFIX: &str = "requestheader-extra-headers-prefix";

/// A user as the API server has authenticated them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedUser {
    pub name: String,
    /// Empty where the API server does not forward it.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// How the front proxy's certificate is recognised, and the user in its headers.
#[derive(Debug)]
pub struct FrontProxy {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Common names of the certificate; empty: any that the CA signed.
    names: Vec<String>,
    username: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// In lower case.
    extra: Vec<String>,
}

impl FrontProxy {
    /// Of the ConfigMap's data.
    ///
    /// # Errors
    /// What is missing or malformed, with its key.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let pem = data.get(CA).map(String::as_str).unwrap_or_default();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("{CA}: {error:?}"))?;
            let added = roots.add(certificate);
            added.map_err(|error| format!("{CA}: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!(
                "{CA} has no certificate; the API server needs its flags for aggregation (--requestheader-client-ca-file and so on)"
            ));
        }
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| format!("{CA}: {error}"))?;
        let username = headers(data, USERNAME)?;
        if username.is_empty() {
            return Err(format!("{USERNAME} names no header"));
        }
        let extra = list(data, EXTRA_PREFIX)?;
        Ok(FrontProxy {
            verifier,
            names: list(data, ALLOWED_NAMES)?,
            username,
            uid: headers(data, UID)?,
            groups: headers(data, GROUP)?,
            extra: extra.iter().map(|it| it.to_ascii_lowercase()).collect(),
        })
    }

    /// Verifies certificates in handshakes; one without a certificate succeeds too.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// # Errors
    /// When a certificate is not by the CA, or not valid now.
    pub fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), String> {
        let now = UnixTime::now();
        let verified = self
            .verifier
            .verify_client_cert(certificate, intermediates, now);
        verified
            .map(|_| ())
            .map_err(|error| format!("the client certificate is not the API server's: {error}"))
    }

    /// Whether a certificate that [`Self::verifier`] has verified is the front proxy's.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check_name(&self, certificate: &[u8]) -> Result<(), String> {
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|_| "the client certificate is malformed".to_owned())?;
        let mut names = certificate.subject().iter_common_name();
        let name = names.next().and_then(|name| name.as_str().ok());
        let (Some(name), None) = (name, names.next()) else {
            return Err("the client certificate has not exactly one common name".to_owned());
        };
        match self.names.is_empty() || self.names.iter().any(|it| it == name) {
            true => Ok(()),
            false => Err(format!(
                "the client certificate is of `{}`, which is not the front proxy ({ALLOWED_NAMES})",
                bounded(name)
            )),
        }
    }

    /// The user of a request that the front proxy has sent.
    ///
    /// # Errors
    /// When the headers name none, or more than one.
    pub fn user(&self, headers: &HeaderMap) -> Result<ForwardedUser, String> {
        let name = one(headers, &self.username)?;
        if name.is_empty() {
            return Err("the API server's request names no user".to_owned());
        }
        let mut user = ForwardedUser {
            name,
            uid: one(headers, &self.uid)?,
            ..ForwardedUser::default()
        };
        for header in &self.groups {
            for value in headers.get_all(header) {
                user.groups.push(text(value.as_bytes())?);
            }
        }
        for (header, value) in headers {
            let prefixes = self.extra.iter();
            let mut keys = prefixes.filter_map(|prefix| header.as_str().strip_prefix(&**prefix));
            if let Some(key) = keys.next().filter(|key| !key.is_empty()) {
                let value = text(value.as_bytes())?;
                user.extra.entry(unescape(key)).or_default().push(value);
            }
        }
        Ok(user)
    }
}

/// A JSON list of the ConfigMap; a key that is missing is an empty one.
fn list(data: &BTreeMap<String, String>, key: &str) -> Result<Vec<String>, String> {
    let text = data.get(key).map_or("[]", String::as_str);
    serde_json::from_str(text).map_err(|error| format!("{key}: {error}"))
}

fn headers(data: &BTreeMap<String, String>, key: &str) -> Result<Vec<HeaderName>, String> {
    let names = list(data, key)?.into_iter();
    let parsed = names.map(|name| HeaderName::try_from(name).map_err(|e| format!("{key}: {e}")));
    parsed.collect()
}

/// The value of the first of these headers that has one; empty: none has. The API server sends one:
/// of several, one would be the client's own.
fn one(headers: &HeaderMap, names: &[HeaderName]) -> Result<String, String> {
    for name in names {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => return text(value.as_bytes()),
            (_, Some(_)) => return Err(format!("the header {name} is there more than once")),
            _ => {}
        }
    }
    Ok(String::new())
}

fn text(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| "a header with the user's name or groups is not UTF-8")?;
    Ok(text.to_owned())
}

/// Percent-encoded, as the API server encodes what no header name may have; with a broken escape it is
/// as it stands.
fn unescape(key: &str) -> String {
    match percent_decoded(key) {
        (bytes, true) => String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned()),
        (_, false) => key.to_owned(),
    }
}

/// Keeps `trusted` as the ConfigMap says; does not end. Without the ConfigMap nothing is trusted; one
/// that cannot be used leaves the last that could.
pub async fn follow(client: Client, trusted: watch::Sender<Option<Arc<FrontProxy>>>) {
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut events = pin!(watcher(maps, watch_named(NAME)).default_backoff());
    let mut failures = FailureLog::new("reading how the API server authenticates to this API");
    let mut seen = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => seen = false,
            Ok(watcher::Event::InitDone) if seen => {}
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                trusted.send_replace(None);
                failures.failed(&format!("there is no ConfigMap {NAMESPACE}/{NAME}"));
            }
            Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => {
                seen = true;
                match FrontProxy::read(&map.data.unwrap_or_default()) {
                    Ok(front_proxy) => {
                        failures.succeeded();
                        trusted.send_replace(Some(Arc::new(front_proxy)));
                    }
                    Err(why) => failures.failed(&format!("ConfigMap {NAMESPACE}/{NAME}: {why}")),
                }
            }
            Err(error) => {
                if let Some(error) = CallError::of_watch(WATCH, &error) {
                    failures.failed(&error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn data(ca: &str) -> BTreeMap<String, String> {
        let entries = [
            (CA, ca),
            (ALLOWED_NAMES, r#"["front-proxy-client"]"#),
            (USERNAME, r#"["X-Remote-User"]"#),
            (UID, r#"["X-Remote-Uid"]"#),
            (GROUP, r#"["X-Remote-Group"]"#),
            (EXTRA_PREFIX, r#"["X-Remote-Extra-"]"#),
        ];
        let owned = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        owned.into_iter().collect()
    }

    fn certificate(name: &str) -> rcgen::Certificate {
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap()
    }

    fn front_proxy() -> FrontProxy {
        FrontProxy::read(&data(&certificate("ca").pem())).unwrap()
    }

    fn map(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::try_from(*name).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn the_user_is_what_the_headers_say() {
        let user = front_proxy().user(&map(&[
            ("X-Remote-User", "jané".as_bytes()),
            ("x-remote-uid", b"u-1"),
            ("X-Remote-Group", b"dev"),
            ("X-Remote-Group", b"system:authenticated"),
            ("X-Remote-Extra-Example.com%2fScope", b"a"),
            ("X-Remote-Extra-example.com%2Fscope", b"b"),
            ("X-Remote-Extra-odd%", b"c"),
            ("X-Remote-Extra-", b"no key"),
            ("Impersonate-User", b"admin"),
            ("Authorization", b"Bearer x"),
        ]));
        let extra = |key: &str, values: &[&str]| {
            let values: Vec<_> = values.iter().map(|it| (*it).to_owned()).collect();
            (key.to_owned(), values)
        };
        let expected = ForwardedUser {
            name: "jané".to_owned(),
            uid: "u-1".to_owned(),
            groups: vec!["dev".to_owned(), "system:authenticated".to_owned()],
            extra: BTreeMap::from([
                extra("example.com/scope", &["a", "b"]),
                extra("odd%", &["c"]),
            ]),
        };
        assert_eq!(user, Ok(expected));
    }

    #[test]
    fn no_user_and_two_users_are_refused() {
        let front_proxy = front_proxy();
        let cases: [&[(&str, &[u8])]; 7] = [
            &[],
            &[("x-remote-user", b"")],
            &[("x-remote-group", b"system:masters")],
            &[("x-remote-user", b"jane"), ("x-remote-user", b"admin")],
            &[
                ("x-remote-user", b"jane"),
                ("x-remote-uid", b"1"),
                ("x-remote-uid", b"2"),
            ],
            &[("x-remote-user", b"\xff")],
            &[("x-remote-user", b"jane"), ("x-remote-group", b"\xff")],
        ];
        for bad in cases {
            assert!(front_proxy.user(&map(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_allowed_names_are_the_front_proxy() {
        let front_proxy = front_proxy();
        let check = |name: &str| front_proxy.check_name(certificate(name).der());
        assert_eq!(check("front-proxy-client"), Ok(()));
        for other in ["front-proxy-client2", "kube-apiserver", ""] {
            assert!(check(other).is_err(), "{other}");
        }
        assert!(front_proxy.check_name(b"junk").is_err());
        let mut any = data(&certificate("ca").pem());
        any.insert(ALLOWED_NAMES.to_owned(), "[]".to_owned());
        let any = FrontProxy::read(&any).unwrap();
        assert_eq!(any.check_name(certificate("x").der()), Ok(()));
    }

    #[test]
    fn a_config_map_without_a_ca_or_malformed_is_not_used() {
        let good = certificate("ca").pem();
        let with = |key: &str, value: &str| {
            let mut data = data(&good);
            data.insert(key.to_owned(), value.to_owned());
            FrontProxy::read(&data).unwrap_err()
        };
        assert!(FrontProxy::read(&BTreeMap::new()).unwrap_err().contains(CA));
        assert!(
            with(
                CA,
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            )
            .contains(CA)
        );
        assert!(with(USERNAME, "[]").contains(USERNAME));
        assert!(with(USERNAME, "[\"a b\"]").contains(USERNAME));
        assert!(with(ALLOWED_NAMES, "front-proxy").contains(ALLOWED_NAMES));
    }
}
