//! The sidecar's container.

use serde_json::{Value, json};

use super::metrics::Merged;
use super::pod::{self, JsonObject, PodManifest};
use super::probes::Rewritten;
use super::settings::{Amounts, MeshSettings, ProxySettings, ResourceRequirements, SidecarKind};
use super::volumes::{self, CA_FILE, STATE_DIR, TOKEN_FILE, object};
use crate::injected;
pub(super) use crate::injected::{HEALTH_PORT, METRICS_PORT, STATUS_PORT};

pub(super) const NAME: &str = injected::SIDECAR;
pub(super) const PROXY_UID: u32 = 1337;
/// Kubernetes' default for `terminationGracePeriodSeconds`.
const GRACE: u64 = 30;
/// Seconds of the grace period that are left once connections are cut, so that the process ends by
/// itself.
const GRACE_LEFT: u64 = 5;
/// The labels by which metrics name an app and its version.
const LABELS: [&str; 4] = [
    "app.kubernetes.io/name",
    "app",
    "app.kubernetes.io/version",
    "version",
];

pub(super) fn container(
    pod: &PodManifest,
    mesh: &MeshSettings,
    proxy: &ProxySettings,
    probes: &Rewritten,
    metrics: &Merged,
) -> JsonObject {
    let mut container = object(json!({
        "name": NAME,
        "image": proxy.image,
        "imagePullPolicy": proxy.image_pull_policy.as_str(),
        "args": arguments(proxy),
        "env": environment(pod, mesh, proxy, probes, metrics),
        "ports": [
            {"name": "anyam-status", "containerPort": STATUS_PORT, "protocol": "TCP"},
            {"name": "anyam-health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
            {"name": "anyam-metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": resources(&proxy.resources),
        // With a native sidecar no container of the app starts before this probe succeeds.
        "startupProbe": {
            "httpGet": {"path": "/healthz/ready", "port": HEALTH_PORT, "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": 600,
        },
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": HEALTH_PORT, "scheme": "HTTP"},
            "periodSeconds": 15,
            "timeoutSeconds": 3,
            "failureThreshold": 4,
        },
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": volumes::mounts(),
    }));
    let (hook, command) = match proxy.sidecar {
        SidecarKind::Native => {
            container.insert("restartPolicy".into(), "Always".into());
            // Performed when the pod begins to end. SIGTERM comes when the app has ended.
            ("preStop", "drain")
        }
        // Nothing of the app starts before this has ended: the sidecar is the first container.
        SidecarKind::Classic => ("postStart", "wait"),
    };
    let hook = json!({hook: {"exec": {"command": ["anyam-proxy", command]}}});
    container.insert("lifecycle".into(), hook);
    container
}

fn arguments(proxy: &ProxySettings) -> Vec<String> {
    let concurrency = proxy.concurrency.map(|n| format!("--concurrency={n}"));
    ["sidecar".to_owned()]
        .into_iter()
        .chain(concurrency)
        .collect()
}

fn environment(
    pod: &PodManifest,
    mesh: &MeshSettings,
    proxy: &ProxySettings,
    probes: &Rewritten,
    metrics: &Merged,
) -> Vec<Value> {
    let dns_port = if proxy.capture_dns { "15053" } else { "0" };
    let drain = proxy.drain_seconds.unwrap_or_else(|| drain_seconds(pod));
    let mut list = vec![
        field("ANYAM_WORKLOAD", "metadata.name"),
        field("ANYAM_NAMESPACE", "metadata.namespace"),
        field("ANYAM_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("ANYAM_ADDRESS", "status.podIPs"),
        text("ANYAM_TRUST_DOMAIN", &mesh.trust_domain),
        text("ANYAM_CONTROL_PLANE", &mesh.control_plane),
        text("ANYAM_CONTROL_PLANE_NAME", &mesh.control_plane_name),
        text("ANYAM_JOIN_TOKEN_FILE", TOKEN_FILE),
        text("ANYAM_CA_FILE", CA_FILE),
        text("ANYAM_STATE_DIR", STATE_DIR),
        text("ANYAM_STATUS_PORT", &STATUS_PORT.to_string()),
        text("ANYAM_DNS_PORT", dns_port),
        text("ANYAM_UNKNOWN", proxy.unknown_destinations.as_str()),
        text("ANYAM_LOG_LEVEL", &proxy.log_level),
        text("ANYAM_DRAIN_TIME_S", &drain.to_string()),
    ];
    let labels: Vec<String> = LABELS
        .iter()
        .filter_map(|name| Some((name, pod.label(name)?)))
        // A label's value has no comma in the API server's syntax, so this drops none that it
        // accepts.
        .filter(|(_, value)| !value.contains(','))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let wait_for_app = match proxy.sidecar {
        SidecarKind::Native => "",
        // It gets the signal when the app does, which may still call others.
        SidecarKind::Classic => "true",
    };
    let optional = [
        ("ANYAM_WAIT_FOR_APP", wait_for_app.to_owned()),
        ("ANYAM_LABELS", labels.join(",")),
        ("ANYAM_MESH_CIDRS", mesh.mesh_cidrs.join(",")),
        ("ANYAM_APP_PROBES", probes.to_environment()),
        ("ANYAM_APP_METRICS", metrics.to_environment()),
    ];
    let given = optional.iter().filter(|(_, value)| !value.is_empty());
    list.extend(given.map(|(name, value)| text(name, value)));
    list
}

fn drain_seconds(pod: &PodManifest) -> u64 {
    let grace = pod.spec.get("terminationGracePeriodSeconds");
    let grace = grace.and_then(Value::as_u64).unwrap_or(GRACE);
    grace.saturating_sub(GRACE_LEFT).max(1)
}

/// The kubelet expands `$(NAME)` in values and reads `$$` as `$`.
fn text(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value.replace('$', "$$")})
}

fn field(name: &str, path: &str) -> Value {
    // `apiVersion` as the API server's defaulting sets it.
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

pub(super) fn resources(resources: &ResourceRequirements) -> Value {
    let mut object = JsonObject::new();
    for (field, amounts) in [
        ("requests", &resources.requests),
        ("limits", &resources.limits),
    ] {
        let Amounts { cpu, memory } = amounts;
        let given = [("cpu", cpu), ("memory", memory)];
        let given = given.into_iter().filter_map(|(what, amount)| {
            Some((what.to_owned(), Value::from(amount.as_ref()?.as_str())))
        });
        let given: JsonObject = given.collect();
        if !given.is_empty() {
            object.insert(field.to_owned(), given.into());
        }
    }
    object.into()
}

/// Whether a container is the sidecar's or sets its rules.
pub(super) fn is_ours(container: &JsonObject) -> bool {
    [NAME, super::redirect::NAME].contains(&pod::name(container))
}
