//! MeshPolicy and BackendPolicy.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::balancing::{self, HashOn, LoadBalancer, MAX_HASH_RULES};
use super::object::{self, FieldError, MAX_TARGETS, Meta, Target, TargetRef};
use super::resilience::{Limits, OutlierSpec, RetryBudget, RetrySpec, more_than_zero};
use super::schema;
use super::selector::{self, WorkloadSelector};
use super::values::{self, Span};

/// The root namespace of a folder's mesh: policies there hold for the whole mesh.
pub const ROOT_NAMESPACE: &str = "anyam-system";
/// Ports of one workload that may have a mode of their own.
const MAX_MTLS_PORTS: usize = 64;

/// A checked [`MeshSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPolicy {
    pub meta: Meta,
    /// Only workloads, by name or by labels.
    pub targets: Vec<Target>,
    pub spec: MeshSpec,
}

/// Settings of a mesh, a namespace or workloads. For each field, the most specific policy that sets it
/// has precedence: for a workload, for its namespace, for the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (
        "!has(self.mtls) || !has(self.mtls.ports) || size(self.mtls.ports) == 0 || \
            (has(self.targetRefs) && size(self.targetRefs) > 0) || has(self.selector)",
        "mtls.ports needs targetRefs to a Workload, or a selector",
    ),
    selector::ONE_OF_BOTH,
])))]
pub struct MeshSpec {
    /// Workloads of the policy's namespace. Default: the namespace; in the root namespace, which is the
    /// control plane's (in a folder `anyam-system`), the mesh.
    #[serde(default)]
    #[schemars(length(max = MAX_TARGETS), extend("x-kubernetes-validations" = schema::rule(
        "self.all(t, t.kind == 'Workload' && (!has(t.group) || t.group in ['', 'mesh.anyam.dev']) \
            && !has(t.sectionName))",
        "only a Workload (group mesh.anyam.dev) can be targeted",
    )))]
    target_refs: Vec<TargetRef>,
    /// Workloads of the policy's namespace by labels, as of the pods of a Deployment. Of several policies
    /// that target a workload, by name or by labels, the oldest holds for it.
    #[serde(default)]
    selector: Option<WorkloadSelector>,
    /// Whether callers must use mTLS.
    #[serde(default)]
    pub mtls: Option<Mtls>,
    /// Connections to destinations outside of the mesh.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Defaults for services without a BackendPolicy that sets the field.
    #[serde(default)]
    pub defaults: Defaults,
    /// Access logs of sidecars.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    /// Normalization of request paths by sidecars.
    #[serde(default)]
    pub path_normalization: Option<PathNormalization>,
}

/// Normalization of request paths beyond what sidecars always do: dot segments, repeated slashes and
/// escapes of unreserved characters are normalized everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathNormalization {
    /// Handling of requests with `%2F` or `%5C` in the path. Default: `Reject` on ports where a
    /// policy matches paths, else `Keep`.
    pub escaped_slashes: EscapedSlashes,
}

/// Handling of requests with `%2F` or `%5C` in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum EscapedSlashes {
    /// The response is 400.
    Reject,
    /// Forwarded unchanged.
    Keep,
    /// Decoded before the path is normalized.
    Unescape,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    /// Default: the mode of the next wider policy, finally `Permissive`.
    #[serde(default)]
    pub mode: Option<MtlsMode>,
    /// Mode by port of the workload.
    #[serde(default, deserialize_with = "by_port")]
    #[schemars(schema_with = "ports_schema")]
    pub ports: BTreeMap<NonZeroU16, MtlsMode>,
}

/// Keys of JSON objects are strings: what went through the Kubernetes API has its numbers quoted.
fn by_port<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<NonZeroU16, MtlsMode>, D::Error> {
    let ports: BTreeMap<values::PortKey, MtlsMode> = Deserialize::deserialize(deserializer)?;
    Ok(ports.into_iter().map(|(key, mode)| (key.0, mode)).collect())
}

fn ports_schema(generator: &mut SchemaGenerator) -> Schema {
    schema::by_port::<MtlsMode>(generator, MAX_MTLS_PORTS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum MtlsMode {
    /// Plaintext is refused.
    Strict,
    /// mTLS and plaintext are accepted.
    Permissive,
    /// mTLS is neither accepted nor used.
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    /// Handling of connections to addresses outside of the mesh.
    pub mode: EgressMode,
}

/// Handling of connections to addresses outside of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum EgressMode {
    Allow,
    Block,
}

/// Defaults for services whose own policy does not set the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defaults {
    /// Time-out of connecting to an endpoint.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = schema::more_than_zero()))]
    pub connect_timeout: Option<Span>,
    /// Time-out of a request as a whole; 0s or absent: none.
    #[serde(default)]
    pub request_timeout: Option<Span>,
    /// Retries where a route configures none.
    #[serde(default)]
    pub retry: Option<RetrySpec>,
    /// Ejection of failing endpoints.
    #[serde(default)]
    pub outlier_detection: Option<OutlierSpec>,
    /// Transport of TCP between sidecars.
    #[serde(default)]
    pub tcp_transport: Option<TcpTransport>,
}

/// Transport of TCP between sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum TcpTransport {
    /// One TLS connection for each TCP connection.
    Direct,
    /// In tunnels inside few HTTP/2 connections, to workloads whose sidecar accepts tunnels.
    Tunnel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    /// Format of the lines on the sidecar's standard output.
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
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
        let (mut targets, mut errors) = match object::targets(&refs, true) {
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
        targets.extend(selector::target(
            spec.selector.take(),
            &targets,
            &mut errors,
        ));
        let ports = spec.mtls.as_ref().map_or(0, |mtls| mtls.ports.len());
        if ports > 0 && targets.is_empty() {
            errors.push(FieldError::new(
                "spec.mtls.ports",
                "needs targetRefs to a Workload, or a selector",
            ));
        }
        if ports > MAX_MTLS_PORTS {
            let message = format!("may have {MAX_MTLS_PORTS} ports at most");
            errors.push(FieldError::new("spec.mtls.ports", message));
        }
        let connect = spec.defaults.connect_timeout;
        more_than_zero(connect, "spec.defaults.connectTimeout", &mut errors);
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

/// A checked [`BackendSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPolicy {
    pub meta: Meta,
    /// Only services, at least one.
    pub targets: Vec<Target>,
    pub spec: BackendSpec,
}

/// Settings of calls to services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["targetRefs"], "x-kubernetes-validations" = schema::rule(
    "!has(self.hashOn) || size(self.hashOn) == 0 || \
        (has(self.loadBalancer) && self.loadBalancer in ['RingHash', 'Maglev'])",
    "hashOn needs loadBalancer: RingHash or Maglev",
)))]
pub struct BackendSpec {
    /// Services of the policy's namespace.
    #[serde(default)]
    #[schemars(length(min = 1, max = MAX_TARGETS), extend("x-kubernetes-validations" = schema::rule(
        "self.all(t, t.kind == 'Service' && (!has(t.group) || t.group in ['', 'core']) \
            && !has(t.sectionName))",
        "only a whole Service (group \"\") can be targeted",
    )))]
    target_refs: Vec<TargetRef>,
    /// Load balancing policy. Default: LeastRequest; RingHash by the caller's address where the
    /// Service has `sessionAffinity: ClientIP`.
    #[serde(default)]
    pub load_balancer: Option<LoadBalancer>,
    /// What RingHash and Maglev hash; all of it together. Default: the caller's address.
    #[serde(default)]
    #[schemars(length(max = MAX_HASH_RULES))]
    pub hash_on: Vec<HashOn>,
    /// Ejection of failing endpoints.
    #[serde(default)]
    pub outlier_detection: Option<OutlierSpec>,
    /// Circuit breakers of each caller's sidecar.
    #[serde(default)]
    pub limits: Limits,
    /// Retries where a route configures none.
    #[serde(default)]
    pub retry: Option<RetrySpec>,
    /// Bound on concurrent retries.
    #[serde(default)]
    pub retry_budget: Option<RetryBudget>,
    /// Time-out of connecting to an endpoint.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = schema::more_than_zero()))]
    pub connect_timeout: Option<Span>,
    /// Time-out of a request as a whole; 0s: none.
    #[serde(default)]
    pub request_timeout: Option<Span>,
    /// Time without requests (HTTP) or bytes (TCP) after which a connection is closed.
    #[serde(default)]
    pub idle_timeout: Option<Span>,
    /// Requests after which a connection is closed.
    #[serde(default)]
    pub max_requests_per_connection: Option<NonZeroU32>,
    /// Whether HTTP/1 requests are sent as HTTP/2 between sidecars. Off by default: HTTP/1 needs less
    /// CPU at a steady load and in bulk, HTTP/2 has fewer connections and needs less at saturation.
    #[serde(default)]
    pub http2: Option<bool>,
    /// Transport of TCP between sidecars.
    #[serde(default)]
    pub tcp_transport: Option<TcpTransport>,
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
        balancing::check(spec.load_balancer, &spec.hash_on, &mut errors);
        if let Some(retry) = &spec.retry {
            retry.check("spec.retry", &mut errors);
        }
        if let Some(outlier) = &spec.outlier_detection {
            outlier.check("spec.outlierDetection", &mut errors);
        }
        more_than_zero(spec.connect_timeout, "spec.connectTimeout", &mut errors);
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
