//! What is in the cluster already and meets the mesh.

use serde_json::Value;

use super::super::{Cluster, items, text};
use super::{Level, PreCheck};

/// The Gateway API's group.
const GATEWAY: &str = "gateway.networking.k8s.io";
const CONFIGURATIONS: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?limit=1000";
/// Ends of the names of other meshes' webhooks that inject sidecars.
const INJECTORS: [(&str, &str); 6] = [
    ("sidecar-injector.istio.io", "Istio"),
    ("linkerd-proxy-injector.linkerd.io", "Linkerd"),
    ("kuma-injector.kuma.io", "Kuma"),
    ("consul-connect-injector.consul.hashicorp.com", "Consul"),
    ("osm-inject.k8s.io", "Open Service Mesh"),
    ("mpod.appmesh.k8s.aws", "App Mesh"),
];
/// The labels by which these inject the pods of a namespace.
const LABELS: [(&str, &str); 3] = [
    ("istio-injection", "enabled"),
    ("kuma.io/sidecar-injection", "enabled"),
    ("appmesh.k8s.aws/sidecarInjectorWebhook", "enabled"),
];
const INJECT: &str = "mesh.anyam.dev/inject";
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// Namespaces whose pods are never injected.
const SYSTEM: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "anyam-system",
];

/// Which of the kinds that the control plane reads are installed, and in which version.
pub async fn gateway_api(cluster: &Cluster) -> Vec<PreCheck> {
    let mut all = Vec::new();
    let mut absent = Vec::new();
    for plural in ["httproutes", "grpcroutes"] {
        let path =
            format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{GATEWAY}");
        match cluster.find::<Value>(&path).await {
            Ok(Some(definition)) => all.push(route_kind(plural, &definition)),
            Ok(None) => absent.push(plural),
            Err(error) => all.push(PreCheck::unread(&format!("CRD {plural}.{GATEWAY}"), &error)),
        }
    }
    if !absent.is_empty() {
        all.push(PreCheck::warning(
            format!(
                "Gateway API: no CRD for {}, so there are no such routes",
                absent.join(", ")
            ),
            "install its CRDs at any time (https://gateway-api.sigs.k8s.io), if routes are wanted",
        ));
    }
    all
}

fn route_kind(plural: &str, definition: &Value) -> PreCheck {
    let served = items(definition, "/spec/versions")
        .iter()
        .filter(|version| version.get("served").and_then(Value::as_bool) == Some(true))
        .any(|version| text(version, "/name") == "v1");
    let annotation = |name: &str| {
        let annotations = definition.pointer("/metadata/annotations");
        let value = annotations.and_then(|all| all.get(format!("{GATEWAY}/{name}")));
        value.and_then(Value::as_str).unwrap_or("unknown")
    };
    let (version, channel) = (annotation("bundle-version"), annotation("channel"));
    match served {
        true => PreCheck::ok(format!(
            "Gateway API: {plural} of {version}, {channel} channel"
        )),
        false => PreCheck::warning(
            format!("Gateway API: {plural} of {version} have no version v1, so they are not read"),
            "upgrade its CRDs to v1.1 or later (https://gateway-api.sigs.k8s.io)",
        ),
    }
}

/// Whether another mesh injects sidecars.
pub async fn injectors(cluster: &Cluster) -> PreCheck {
    const SUBJECT: &str = "other meshes";
    let found: Value = match cluster.read(CONFIGURATIONS).await {
        Ok(found) => found,
        Err(error) => return PreCheck::unread(SUBJECT, &error),
    };
    let webhooks = items(&found, "/items").iter();
    let webhooks = webhooks.flat_map(|configuration| items(configuration, "/webhooks"));
    let mut meshes: Vec<_> = webhooks
        .filter_map(|it| mesh_of(text(it, "/name")))
        .collect();
    meshes.sort_unstable();
    meshes.dedup();
    if meshes.is_empty() {
        return PreCheck::ok("other meshes: none that injects sidecars");
    }
    let names = meshes.join(", ");
    let both = match namespaces(cluster).await {
        Some(namespaces) => some(&namespaces, injected_by_both),
        None => String::new(),
    };
    match both.as_str() {
        "" => PreCheck::warning(
            format!("other meshes: {names} injects sidecars; a pod with two of them does not work"),
            format!(
                "label namespaces for one mesh only: without its label if they have {INJECT}=enabled"
            ),
        ),
        both => PreCheck::error(
            format!("other meshes: {names} and this one both inject the pods of {both}"),
            "remove one of the labels, and restart the pods",
        ),
    }
}

fn mesh_of(webhook: &str) -> Option<&'static str> {
    let mut all = INJECTORS.iter();
    let found = all.find(|(end, _)| webhook.ends_with(end));
    found.map(|(_, mesh)| *mesh)
}

fn label<'a>(namespace: &'a Value, name: &str) -> &'a str {
    let labels = namespace.pointer("/metadata/labels");
    let value = labels.and_then(|labels| labels.get(name));
    value.and_then(Value::as_str).unwrap_or_default()
}

fn injected_by_both(namespace: &Value) -> bool {
    let other = LABELS
        .iter()
        .any(|(name, value)| label(namespace, name) == *value)
        || !label(namespace, "istio.io/rev").is_empty();
    other && label(namespace, INJECT) == "enabled"
}

async fn namespaces(cluster: &Cluster) -> Option<Vec<Value>> {
    let found: Value = cluster.read("/api/v1/namespaces?limit=1000").await.ok()?;
    Some(items(&found, "/items").to_vec())
}

/// The first few namespaces of which something is true.
fn some(namespaces: &[Value], holds: impl Fn(&Value) -> bool) -> String {
    let names = namespaces.iter().filter(|it| holds(it));
    let names: Vec<_> = names.map(|it| text(it, "/metadata/name")).collect();
    let more = names.len().saturating_sub(5);
    let first: Vec<_> = names.into_iter().take(5).collect();
    match more {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The init container of injected pods has NET_ADMIN, which two of the pod security levels refuse.
pub async fn pod_security(cluster: &Cluster) -> PreCheck {
    let Some(namespaces) = namespaces(cluster).await else {
        return PreCheck::warning(
            "pod security: not looked at, because you may not list namespaces",
            "let an administrator of the cluster run this check",
        );
    };
    let strict = some(&namespaces, refuses_injected);
    match strict.as_str() {
        "" => PreCheck::ok("pod security: no namespace refuses injected pods"),
        strict => PreCheck {
            level: Level::Warning,
            what: format!(
                "pod security: {strict} enforce baseline or restricted, which refuse the capability NET_ADMIN of injected pods' init container"
            ),
            todo: format!("for those that are to join the mesh, set {ENFORCE}=privileged"),
        },
    }
}

fn refuses_injected(namespace: &Value) -> bool {
    let system = SYSTEM.contains(&text(namespace, "/metadata/name"));
    !system && ["baseline", "restricted"].contains(&label(namespace, ENFORCE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_meshes_are_known_by_their_webhooks() {
        assert_eq!(
            mesh_of("rev.namespace.sidecar-injector.istio.io"),
            Some("Istio")
        );
        assert_eq!(mesh_of("namespace-kuma-injector.kuma.io"), Some("Kuma"));
        assert_eq!(
            mesh_of("linkerd-proxy-injector.linkerd.io"),
            Some("Linkerd")
        );
        for none in [
            "tap-injector.linkerd.io",
            "vault.hashicorp.com",
            "namespace.injector.mesh.anyam.dev",
        ] {
            assert_eq!(mesh_of(none), None, "{none}");
        }
    }

    #[test]
    fn a_gateway_api_is_judged_by_the_versions_it_serves() {
        let definition = |version: &str, served: bool| {
            json!({
                "metadata": {"annotations": {"gateway.networking.k8s.io/bundle-version": "v1.7.0",
                                             "gateway.networking.k8s.io/channel": "standard"}},
                "spec": {"versions": [{"name": version, "served": served}]},
            })
        };
        let good = route_kind("httproutes", &definition("v1", true));
        assert_eq!(good.level, Level::Ok);
        assert!(good.what.contains("v1.7.0, standard"), "{good:?}");
        for bad in [
            definition("v1beta1", true),
            definition("v1", false),
            json!({}),
        ] {
            assert_eq!(route_kind("httproutes", &bad).level, Level::Warning);
        }
    }

    #[test]
    fn namespaces_are_judged_by_their_labels() {
        let namespace =
            |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
        let both = namespace(
            "a",
            json!({"istio-injection": "enabled", "mesh.anyam.dev/inject": "enabled"}),
        );
        let one = namespace("b", json!({"istio-injection": "enabled"}));
        let rev = namespace(
            "c",
            json!({"istio.io/rev": "x", "mesh.anyam.dev/inject": "enabled"}),
        );
        assert_eq!(some(&[both, one, rev], injected_by_both), "a, c");
        let many: Vec<_> = (0..8)
            .map(|n| {
                namespace(
                    &format!("n{n}"),
                    json!({"pod-security.kubernetes.io/enforce": "baseline"}),
                )
            })
            .collect();
        assert_eq!(
            some(&many, refuses_injected),
            "n0, n1, n2, n3, n4 and 3 more"
        );
        let system = namespace(
            "kube-system",
            json!({"pod-security.kubernetes.io/enforce": "restricted"}),
        );
        assert!(!refuses_injected(&system));
    }
}
