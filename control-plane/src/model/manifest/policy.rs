//! MeshPolicy and BackendPolicy.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use serde::{Deserialize, Deserializer};

use super::object::{self, FieldError, Meta, Target, TargetRef};
use super::values::{self, Span};

/// Objects in this namespace hold for the whole mesh.
pub const ROOT_NAMESPACE: &str = "anyam-system";

/// What holds for a mesh, a namespace or a workload. The most specific one that sets a field
/// has precedence, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPolicy {
    pub meta: Meta,
    /// Only workloads.
    pub targets: Vec<Target>,
    pub spec: MeshSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    #[serde(default)]
    target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub mtls: Option<Mtls>,
    #[serde(default)]
    pub egress: Option<Egress>,
    #[serde(default)]
    pub defaults: Defaults,
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    #[serde(default)]
    pub path_normalization: Option<PathNormalization>,
}

/// What sidecars do with request paths beyond what they always do: dot segments, slashes and
/// escapes of unreserved characters are put right everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathNormalization {
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of requests with `%2F` or `%5C` in their path. Default: `Reject` on ports where a
/// policy matches paths, else `Keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum EscapedSlashes {
    /// Answered with 400.
    Reject,
    /// Passed on as they are.
    Keep,
    /// Decoded, and put right with the rest of the path.
    Unescape,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    #[serde(default)]
    pub mode: Option<MtlsMode>,
    /// By the workload's port.
    #[serde(default, deserialize_with = "by_port")]
    pub ports: BTreeMap<NonZeroU16, MtlsMode>,
}

/// Keys of JSON objects are strings: what went through the Kubernetes API has its numbers quoted.
fn by_port<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<NonZeroU16, MtlsMode>, D::Error> {
    let ports: BTreeMap<values::PortKey, MtlsMode> = Deserialize::deserialize(deserializer)?;
    Ok(ports.into_iter().map(|(key, mode)| (key.0, mode)).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum MtlsMode {
    /// Plaintext is refused.
    Strict,
    /// Both are taken.
    Permissive,
    /// No mTLS is taken or offered.
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    pub mode: EgressMode,
}

/// What becomes of connections to addresses outside the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum EgressMode {
    Allow,
    Block,
}

/// Defaults for services whose own policy does not set the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defaults {
    #[serde(default)]
    pub connect_timeout: Option<Span>,
    /// Of a whole request; 0s or absent: none.
    #[serde(default)]
    pub request_timeout: Option<Span>,
    #[serde(default)]
    pub retry: Option<RetrySpec>,
    #[serde(default)]
    pub outlier_detection: Option<OutlierSpec>,
    #[serde(default)]
    pub tcp_transport: Option<TcpTransport>,
}

/// How TCP travels between sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum TcpTransport {
    /// A TLS connection each.
    Direct,
    /// Inside few HTTP/2 connections, to workloads whose sidecar takes them so.
    Tunnel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum LogFormat {
    Text,
    Json,
    Off,
}

impl MeshPolicy {
    /// # Errors
    /// Fields that contradict each other.
    pub fn new(meta: Meta, mut spec: MeshSpec) -> Result<Self, Vec<FieldError>> {
        let refs = std::mem::take(&mut spec.target_refs);
        let (targets, mut errors) = match object::targets(&refs, true) {
            Ok(targets) => (targets, Vec::new()),
            Err(errors) => (Vec::new(), errors),
        };
        if let Some(index) = targets
            .iter()
            .position(|t| !matches!(t, Target::Workload(_)))
        {
            let path = format!("spec.targetRefs[{index}].kind");
            errors.push(FieldError::new(path, "only a Workload can be targeted"));
        }
        let ports = spec
            .mtls
            .as_ref()
            .is_some_and(|mtls| !mtls.ports.is_empty());
        if ports && targets.is_empty() {
            errors.push(FieldError::new(
                "spec.mtls.ports",
                "needs targetRefs to a Workload",
            ));
        }
        if let Some(retry) = &spec.defaults.retry {
            retry.check("spec.defaults.retry", &mut errors);
        }
        if let Some(outlier) = &spec.defaults.outlier_detection {
            outlier.check("spec.defaults.outlierDetection", &mut errors);
        }
        if errors.is_empty() {
            Ok(MeshPolicy {
                meta,
                targets,
                spec,
            })
        } else {
            Err(errors)
        }
    }
}

/// How calls to a service behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPolicy {
    pub meta: Meta,
    /// Only services, at least one.
    pub targets: Vec<Target>,
    pub spec: BackendSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendSpec {
    #[serde(default)]
    target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub load_balancer: Option<LoadBalancer>,
    #[serde(default)]
    pub outlier_detection: Option<OutlierSpec>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub retry: Option<RetrySpec>,
    #[serde(default)]
    pub retry_budget: Option<RetryBudget>,
    #[serde(default)]
    pub connect_timeout: Option<Span>,
    #[serde(default)]
    pub request_timeout: Option<Span>,
    #[serde(default)]
    pub idle_timeout: Option<Span>,
    #[serde(default)]
    pub max_requests_per_connection: Option<NonZeroU32>,
    /// Whether HTTP/1 calls travel as HTTP/2 between sidecars. Off by default: HTTP/1 costs less at a
    /// steady load and in bulk, HTTP/2 has fewer connections and costs less at the limit.
    #[serde(default)]
    pub http2: Option<bool>,
    #[serde(default)]
    pub tcp_transport: Option<TcpTransport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum LoadBalancer {
    LeastRequest,
    RoundRobin,
    Random,
}

/// An endpoint that fails is left out for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierSpec {
    /// Answers 5xx and failed connections in a row; 0: not looked at.
    #[serde(default)]
    pub consecutive_errors: Option<u32>,
    /// Answers 502, 503, 504 and failed connections in a row; 0: not looked at.
    #[serde(default)]
    pub consecutive_gateway_errors: Option<u32>,
    #[serde(default)]
    pub interval: Option<Span>,
    #[serde(default)]
    pub base_ejection: Option<Span>,
    #[serde(default)]
    pub max_ejection_percent: Option<u32>,
}

/// Limits over all connections of one caller's sidecar to the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    #[serde(default)]
    pub connections: Option<u32>,
    #[serde(default)]
    pub pending: Option<u32>,
    #[serde(default)]
    pub requests: Option<u32>,
    #[serde(default)]
    pub retries: Option<u32>,
}

/// Retries where a route configures none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// After the first; 0: none.
    #[serde(default)]
    pub attempts: Option<u32>,
    #[serde(default)]
    pub backoff: Option<Span>,
    #[serde(default)]
    pub per_try_timeout: Option<Span>,
    /// Status codes that are worth another attempt.
    #[serde(default)]
    pub codes: Vec<u16>,
}

/// Active retries as a share of active requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    #[serde(default)]
    pub percent: Option<u32>,
    #[serde(default)]
    pub min_retries: Option<u32>,
}

impl RetrySpec {
    fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        if self.attempts.is_some_and(|attempts| attempts > 10) {
            errors.push(FieldError::new(
                format!("{at}.attempts"),
                "may be 10 at most",
            ));
        }
        if let Some(index) = self
            .codes
            .iter()
            .position(|code| !(400..600).contains(code))
        {
            let message = "is no status to retry; allowed: 400 to 599";
            errors.push(FieldError::new(format!("{at}.codes[{index}]"), message));
        }
    }
}

impl OutlierSpec {
    fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        if self
            .max_ejection_percent
            .is_some_and(|percent| percent > 100)
        {
            errors.push(FieldError::new(
                format!("{at}.maxEjectionPercent"),
                "may be 100 at most",
            ));
        }
        for (field, span) in [
            ("interval", self.interval),
            ("baseEjection", self.base_ejection),
        ] {
            if span.is_some_and(|span| span.0.is_zero()) {
                errors.push(FieldError::new(
                    format!("{at}.{field}"),
                    "must be more than 0",
                ));
            }
        }
    }
}

impl BackendPolicy {
    /// # Errors
    /// Fields that contradict each other.
    pub fn new(meta: Meta, mut spec: BackendSpec) -> Result<Self, Vec<FieldError>> {
        let refs = std::mem::take(&mut spec.target_refs);
        let (targets, mut errors) = match object::targets(&refs, false) {
            Ok(targets) => (targets, Vec::new()),
            Err(errors) => (Vec::new(), errors),
        };
        if let Some(index) = refs.iter().position(|target| target.section_name.is_some()) {
            let path = format!("spec.targetRefs[{index}].sectionName");
            errors.push(FieldError::new(
                path,
                "is not supported; the policy holds for all ports",
            ));
        }
        if refs.is_empty() {
            errors.push(FieldError::new(
                "spec.targetRefs",
                "at least one Service is needed",
            ));
        }
        if let Some(retry) = &spec.retry {
            retry.check("spec.retry", &mut errors);
        }
        if let Some(outlier) = &spec.outlier_detection {
            outlier.check("spec.outlierDetection", &mut errors);
        }
        if spec.connect_timeout.is_some_and(|span| span.0.is_zero()) {
            errors.push(FieldError::new(
                "spec.connectTimeout",
                "must be more than 0",
            ));
        }
        if spec
            .retry_budget
            .and_then(|budget| budget.percent)
            .is_some_and(|p| p > 100)
        {
            errors.push(FieldError::new(
                "spec.retryBudget.percent",
                "may be 100 at most",
            ));
        }
        if errors.is_empty() {
            Ok(BackendPolicy {
                meta,
                targets,
                spec,
            })
        } else {
            Err(errors)
        }
    }
}
