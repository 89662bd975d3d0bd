//! The init container that sets the pod's netfilter rules.

use serde_json::json;

use super::pod::JsonObject;
use super::settings::ProxySettings;
use super::sidecar::{self, HEALTH_PORT, METRICS_PORT, PROXY_UID, STATUS_PORT};
use super::volumes::object;
use crate::injected::{self, IPV6, OPEN_PORTS};

pub(super) const NAME: &str = injected::INIT;

pub(super) fn container(proxy: &ProxySettings) -> JsonObject {
    object(json!({
        "name": NAME,
        "image": proxy.image,
        "imagePullPolicy": proxy.image_pull_policy.as_str(),
        "args": arguments(proxy),
        // As the sidecar's: a pod whose containers all have requests equal to limits keeps the QoS
        // class Guaranteed.
        "resources": sidecar::resources(&proxy.resources),
        "securityContext": {
            // Setting netfilter rules takes NET_ADMIN in the pod's network namespace, and the
            // capability takes effect only for root.
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }))
}

fn arguments(proxy: &ProxySettings) -> Vec<String> {
    let mut arguments: Vec<String> = vec![
        "redirect".into(),
        format!("--proxy-uid={PROXY_UID}"),
        format!("--{OPEN_PORTS}={METRICS_PORT},{HEALTH_PORT},{STATUS_PORT}"),
    ];
    if !proxy.capture_dns {
        arguments.push("--dns-port=0".into());
    }
    let redirect = &proxy.redirect;
    let lists = redirect.ports().into_iter().chain(redirect.cidrs());
    let lists = lists.chain(redirect.ids()).chain([redirect.interfaces()]);
    let given = lists.filter(|(_, list)| !list.is_empty());
    arguments.extend(given.map(|(flag, list)| format!("--{flag}={}", list.join(","))));
    if !redirect.ipv6 {
        arguments.push(format!("--{IPV6}=false"));
    }
    arguments
}
