//! BackendTLSPolicy, as Gateway API writes it (GEP-1897).

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::object::{self, FieldError, Meta, Target, TargetRef};
use super::reference::UNREADABLE;
use super::values;

/// Gateway API's own bounds.
const MAX_REFS: usize = 8;
const MAX_NAMES: usize = 5;
const MAX_URI: usize = 253;

/// Apps of some services speak TLS, with certificates that callers' sidecars verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    pub meta: Meta,
    /// Only services, at least one.
    pub targets: Vec<Target>,
    /// The server name (SNI).
    pub hostname: String,
    /// Any of them must be in the certificate; none: the hostname.
    pub names: Vec<SubjectName>,
    pub trust: CaSource,
    /// Whether there are any; none is known.
    pub options: bool,
}

/// A name that a certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// Its first label may be `*`.
    Dns(String),
    Uri(String),
}

/// By which CA certificates the endpoints' are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaSource {
    /// Those of the system on which the caller's sidecar runs.
    System,
    /// Of objects in the policy's namespace, at least one.
    Refs(Vec<CaRef>),
}

/// A reference to an object with CA certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaRef {
    ConfigMap(String),
    /// Kind and group, and the name.
    Other(String, String),
    /// This or another part of how certificates are verified cannot be read.
    Unreadable,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTlsSpec {
    target_refs: Vec<TargetRef>,
    validation: ValidationSpec,
    #[serde(default)]
    options: Option<std::collections::BTreeMap<String, IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ValidationSpec {
    #[serde(default)]
    ca_certificate_refs: Vec<CaRefSpec>,
    #[serde(default, rename = "wellKnownCACertificates")]
    well_known: Option<WellKnown>,
    hostname: String,
    #[serde(default)]
    subject_alt_names: Vec<SubjectNameSpec>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
enum WellKnown {
    System,
    #[serde(rename = "")]
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaRefSpec {
    group: String,
    kind: String,
    #[serde(deserialize_with = "values::subdomain")]
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectNameSpec {
    #[serde(rename = "type")]
    kind: SubjectNameKind,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    uri: String,
}

#[derive(Clone, Copy, Deserialize)]
enum SubjectNameKind {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
}

impl BackendTlsPolicy {
    /// # Errors
    /// Fields that contradict each other or are not supported.
    pub fn new(meta: Meta, mut spec: BackendTlsSpec) -> Result<Self, Vec<FieldError>> {
        let (targets, mut errors) = match object::targets(&spec.target_refs, false) {
            Ok(targets) => (targets, Vec::new()),
            Err(errors) => (Vec::new(), errors),
        };
        if spec.target_refs.is_empty() {
            let message = "at least one Service is needed";
            errors.push(FieldError::new("spec.targetRefs", message));
        }
        let trust = spec.validation.trust(&mut errors);
        let names = names(spec.validation.subject_alt_names, &mut errors);
        let hostname = spec.validation.hostname;
        if let Err(message) =
            values::check_server_name(&hostname).and_then(|()| values::check_name(&hostname, true))
        {
            errors.push(FieldError::new("spec.validation.hostname", message));
        }
        match errors.is_empty() {
            true => Ok(BackendTlsPolicy {
                meta,
                targets,
                hostname,
                names,
                trust,
                options: spec.options.is_some_and(|options| !options.is_empty()),
            }),
            false => Err(errors),
        }
    }

    /// Names of the ConfigMaps in its namespace that it trusts.
    pub fn config_maps(&self) -> impl Iterator<Item = &String> {
        let refs = match &self.trust {
            CaSource::System => &[][..],
            CaSource::Refs(refs) => refs,
        };
        refs.iter().filter_map(|it| match it {
            CaRef::ConfigMap(name) => Some(name),
            CaRef::Other(..) | CaRef::Unreadable => None,
        })
    }
}

impl ValidationSpec {
    fn trust(&mut self, errors: &mut Vec<FieldError>) -> CaSource {
        const REFS: &str = "spec.validation.caCertificateRefs";
        let refs = std::mem::take(&mut self.ca_certificate_refs);
        let system = self.well_known == Some(WellKnown::System);
        if refs.len() > MAX_REFS {
            let message = format!("has {} entries; {MAX_REFS} are allowed", refs.len());
            errors.push(FieldError::new(REFS, message));
        }
        match (refs.is_empty(), system) {
            (true, true) => return CaSource::System,
            (false, false) => {}
            (true, false) => {
                let message = "is needed, or wellKnownCACertificates: System";
                errors.push(FieldError::new(REFS, message));
            }
            (false, true) => {
                let message = "and wellKnownCACertificates exclude each other";
                errors.push(FieldError::new(REFS, message));
            }
        }
        CaSource::Refs(refs.into_iter().map(CaRefSpec::read).collect())
    }
}

impl CaRefSpec {
    fn read(self) -> CaRef {
        match (self.kind.as_str(), self.group.as_str()) {
            ("ConfigMap", "" | "core") => CaRef::ConfigMap(self.name),
            UNREADABLE => CaRef::Unreadable,
            (kind, "") => CaRef::Other(kind.to_owned(), self.name),
            (kind, group) => CaRef::Other(format!("{kind}.{group}"), self.name),
        }
    }
}

fn names(specs: Vec<SubjectNameSpec>, errors: &mut Vec<FieldError>) -> Vec<SubjectName> {
    const NAMES: &str = "spec.validation.subjectAltNames";
    if specs.len() > MAX_NAMES {
        let message = format!("has {} entries; {MAX_NAMES} are allowed", specs.len());
        errors.push(FieldError::new(NAMES, message));
    }
    let mut all = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let at = |field: &str| format!("{NAMES}[{index}].{field}");
        let (other, given) = match spec.kind {
            SubjectNameKind::Hostname => ("uri", !spec.uri.is_empty()),
            SubjectNameKind::Uri => ("hostname", !spec.hostname.is_empty()),
        };
        if given {
            errors.push(FieldError::new(at(other), "is not of this type"));
        }
        match spec.kind {
            SubjectNameKind::Hostname => match values::check_server_name(&spec.hostname) {
                Ok(()) => all.push(SubjectName::Dns(spec.hostname)),
                Err(message) => errors.push(FieldError::new(at("hostname"), message)),
            },
            SubjectNameKind::Uri => match is_absolute(&spec.uri) {
                true => all.push(SubjectName::Uri(spec.uri)),
                false => {
                    let message = format!("is no absolute URI of {MAX_URI} bytes at most");
                    errors.push(FieldError::new(at("uri"), message));
                }
            },
        }
    }
    all
}

/// A scheme, and something behind it.
fn is_absolute(uri: &str) -> bool {
    let scheme = |it: &str| {
        it.starts_with(|c: char| c.is_ascii_alphabetic())
            && it
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let parts = uri.split_once(':');
    let whole = parts.is_some_and(|(before, after)| scheme(before) && !after.is_empty());
    whole && uri.len() <= MAX_URI && uri.bytes().all(|b| b.is_ascii_graphic())
}
