//! What in a pod conflicts with a sidecar (errors), and what will not work as expected (warnings).

use std::net::SocketAddr;

use serde_json::Value;

use super::InjectError;
use super::pod::{JsonObject, PodManifest, at, name};
use super::settings::{MeshSettings, ProxySettings, RedirectSettings, SidecarKind};
use super::sidecar::{self, PROXY_UID};
use super::{redirect, volumes};

/// The ports that the sidecar listens on.
const PORTS: [u64; 8] = [15000, 15001, 15006, 15008, 15020, 15021, 15053, 15090];

/// Returns warnings. The pod has no sidecar: it was never injected, or was reverted.
///
/// # Errors
/// The pod has to be changed.
pub(super) fn check(
    pod: &PodManifest,
    mesh: &MeshSettings,
    proxy: &ProxySettings,
) -> Result<Vec<String>, InjectError> {
    for container in pod.all_containers() {
        for ours in [redirect::NAME, sidecar::NAME] {
            if name(container) == ours {
                let kind = "container";
                return Err(InjectError::NameTaken { kind, name: ours });
            }
        }
        let place = || {
            format!(
                "securityContext.runAsUser of the container {}",
                name(container)
            )
        };
        not_the_proxys(at(container, &["securityContext", "runAsUser"]), place)?;
    }
    for volume in &pod.volumes {
        if let Some(ours) = volumes::ALL.into_iter().find(|ours| name(volume) == *ours) {
            let kind = "volume";
            return Err(InjectError::NameTaken { kind, name: ours });
        }
    }
    let place = || "spec.securityContext.runAsUser".to_owned();
    not_the_proxys(at(&pod.spec, &["securityContext", "runAsUser"]), place)?;

    let mut warnings: Vec<String> = pod.all_containers().flat_map(ports).collect();
    let ends = pod.spec.get("restartPolicy").and_then(Value::as_str);
    if proxy.sidecar == SidecarKind::Classic && matches!(ends, Some("Never" | "OnFailure")) {
        warnings.push(
            "a classic sidecar runs on when the pod's containers have ended, so the pod never \
             completes; use mesh.anyam.dev/sidecar: native"
                .to_owned(),
        );
    }
    warnings.extend(dns(pod, &mesh.control_plane));
    warnings.extend(sources(&proxy.redirect));
    Ok(warnings)
}

/// A sidecar that does not find the control plane does not become ready, and no container of the pod
/// starts.
fn dns(pod: &PodManifest, control_plane: &str) -> Option<String> {
    let policy = pod.spec.get("dnsPolicy").and_then(Value::as_str)?;
    let is_name = control_plane.parse::<SocketAddr>().is_err();
    (is_name && matches!(policy, "Default" | "None")).then(|| {
        format!(
            "dnsPolicy {policy}: the sidecar finds {control_plane} by the pod's DNS, which may not \
             know names of the cluster; use ClusterFirst, or the cluster's DNS in dnsConfig"
        )
    })
}

fn sources(redirect: &RedirectSettings) -> Option<String> {
    let lists = [
        &redirect.include_inbound_cidrs,
        &redirect.exclude_inbound_cidrs,
    ];
    lists.iter().any(|list| !list.is_empty()).then(|| {
        "inbound CIDRs: callers that they keep from the sidecar use plaintext, those with a sidecar \
         too; where NAT gives a caller another address than its own, its calls may fail"
            .to_owned()
    })
}

fn not_the_proxys(user: Option<&Value>, place: impl FnOnce() -> String) -> Result<(), InjectError> {
    match user.and_then(Value::as_u64) == Some(PROXY_UID.into()) {
        true => Err(InjectError::ProxyUser {
            place: place(),
            uid: PROXY_UID,
        }),
        false => Ok(()),
    }
}

fn ports(container: &JsonObject) -> impl Iterator<Item = String> {
    let declared = container.get("ports").and_then(Value::as_array);
    let numbers = declared
        .into_iter()
        .flatten()
        .filter_map(|port| port.get("containerPort")?.as_u64());
    let taken = numbers.filter(|number| PORTS.contains(number));
    taken.map(move |number| {
        let container = name(container);
        format!("port {number} of the container {container} is one of the sidecar's; use another")
    })
}
