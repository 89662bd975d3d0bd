//! What a pod's annotations say about its sidecar. [`ALL`] is the whole list, and the table in
//! docs/kubernetes.md.

use super::InjectError;
use super::pod::PodManifest;
use super::quantity::Quantity;
use super::settings::{ProxySettings, PullPolicy, SidecarKind, UnknownDestinations};
use super::values::{self, switch};
use crate::injected::GROUP;

/// Label of namespaces; label or annotation of pods.
pub const INJECT: &str = "mesh.anyam.dev/inject";
pub(super) const INJECT_VALUES: &str = "enabled or disabled";

/// An annotation of pods that changes their sidecar.
pub struct Annotation {
    pub name: &'static str,
    /// What its value may be.
    pub allowed: &'static str,
    pub meaning: &'static str,
    /// `None`: the value is not allowed.
    set: fn(&mut ProxySettings, &str) -> Option<()>,
}

const SWITCH: &str = "true or false";
const CPU: &str = "an amount of CPU, as in 250m or 2";
const MEMORY: &str = "an amount of memory, as in 64Mi or 1Gi";

pub const ALL: [Annotation; 26] = [
    Annotation {
        name: "mesh.anyam.dev/sidecar",
        allowed: "native or classic",
        meaning: "native: an init container that keeps running; classic: a container beside the app's",
        set: |proxy, value| {
            proxy.sidecar = match value {
                "native" => SidecarKind::Native,
                "classic" => SidecarKind::Classic,
                _ => return None,
            };
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-image",
        allowed: "an image's name",
        meaning: "image of the sidecar and of the init container",
        set: |proxy, value| {
            proxy.image = Some(value).filter(|v| values::is_word(v))?.to_owned();
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-image-pull-policy",
        allowed: "Always, IfNotPresent or Never",
        meaning: "when that image is pulled",
        set: |proxy, value| {
            let all = [
                PullPolicy::Always,
                PullPolicy::IfNotPresent,
                PullPolicy::Never,
            ];
            proxy.image_pull_policy = all.into_iter().find(|policy| policy.as_str() == value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-cpu-request",
        allowed: CPU,
        meaning: "CPU the sidecar requests",
        set: |proxy, value| amount(&mut proxy.resources.requests.cpu, value),
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-cpu-limit",
        allowed: CPU,
        meaning: "its CPU limit, which gives the number of worker threads",
        set: |proxy, value| amount(&mut proxy.resources.limits.cpu, value),
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-memory-request",
        allowed: MEMORY,
        meaning: "memory the sidecar requests",
        set: |proxy, value| amount(&mut proxy.resources.requests.memory, value),
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-memory-limit",
        allowed: MEMORY,
        meaning: "its memory limit, which bounds the connections that it accepts",
        set: |proxy, value| amount(&mut proxy.resources.limits.memory, value),
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-concurrency",
        allowed: "a number from 1 to 256",
        meaning: "worker threads, whatever the CPU limit",
        set: |proxy, value| {
            let number = values::number(value, 1..=256)?;
            proxy.concurrency = Some(u16::try_from(number).ok()?);
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/proxy-log-level",
        allowed: values::LOG_LEVEL,
        meaning: "level of the sidecar's own log",
        set: |proxy, value| {
            proxy.log_level = Some(value)
                .filter(|value| values::LOG_LEVELS.contains(value))?
                .to_owned();
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/drain-seconds",
        allowed: "seconds, from 1 to 86400",
        meaning: "how long connections may last once the pod is being stopped",
        set: |proxy, value| {
            proxy.drain_seconds = Some(values::number(value, 1..=86_400)?);
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/capture-dns",
        allowed: SWITCH,
        meaning: "whether the app's DNS goes to the sidecar",
        set: |proxy, value| {
            proxy.capture_dns = switch(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/unknown-destinations",
        allowed: "passthrough or block",
        meaning: "what happens to connections to addresses that nothing in the mesh declares",
        set: |proxy, value| {
            let all = [UnknownDestinations::Passthrough, UnknownDestinations::Block];
            proxy.unknown_destinations = all.into_iter().find(|known| known.as_str() == value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/include-inbound-ports",
        allowed: values::PORTS,
        meaning: "the only ports of the app that are reached through the sidecar",
        set: |proxy, value| {
            proxy.redirect.include_inbound_ports = values::ports(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/exclude-inbound-ports",
        allowed: values::PORTS,
        meaning: "ports of the app that are reached without it: no mTLS, no policy",
        set: |proxy, value| {
            proxy.redirect.exclude_inbound_ports = values::ports(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/include-inbound-cidrs",
        allowed: values::CIDRS,
        meaning: "the only callers that reach the app through the sidecar; others use plaintext, with a sidecar too",
        set: |proxy, value| {
            proxy.redirect.include_inbound_cidrs = values::cidrs(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/exclude-inbound-cidrs",
        allowed: values::CIDRS,
        meaning: "callers that reach the app without it, with a sidecar too: no mTLS, no policy",
        set: |proxy, value| {
            proxy.redirect.exclude_inbound_cidrs = values::cidrs(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/include-outbound-ports",
        allowed: values::PORTS,
        meaning: "the only ports that the app calls through the sidecar",
        set: |proxy, value| {
            proxy.redirect.include_outbound_ports = values::ports(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/exclude-outbound-ports",
        allowed: values::PORTS,
        meaning: "ports that the app calls without it",
        set: |proxy, value| {
            proxy.redirect.exclude_outbound_ports = values::ports(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/include-outbound-cidrs",
        allowed: values::CIDRS,
        meaning: "the only addresses that the app calls through the sidecar",
        set: |proxy, value| {
            proxy.redirect.include_outbound_cidrs = values::cidrs(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/exclude-outbound-cidrs",
        allowed: values::CIDRS,
        meaning: "addresses that the app calls without it",
        set: |proxy, value| {
            proxy.redirect.exclude_outbound_cidrs = values::cidrs(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/exempt-uids",
        allowed: values::IDS,
        meaning: "users whose processes' calls leave without the sidecar",
        set: |proxy, value| {
            proxy.redirect.exempt_uids = values::ids(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/exempt-gids",
        allowed: values::IDS,
        meaning: "groups whose processes' calls leave without the sidecar",
        set: |proxy, value| {
            proxy.redirect.exempt_gids = values::ids(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/exclude-interfaces",
        allowed: values::INTERFACES,
        meaning: "interfaces of the pod that bypass the mesh, both ways",
        set: |proxy, value| {
            proxy.redirect.exclude_interfaces = values::interfaces(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/redirect-ipv6",
        allowed: SWITCH,
        meaning: "whether IPv6 goes through the sidecar, too; if not, it bypasses the mesh, both ways",
        set: |proxy, value| {
            proxy.redirect.ipv6 = switch(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/rewrite-probes",
        allowed: SWITCH,
        meaning: "whether the sidecar performs the app's probes; if not, strict mTLS refuses the kubelet's",
        set: |proxy, value| {
            proxy.rewrite_probes = switch(value)?;
            Some(())
        },
    },
    Annotation {
        name: "mesh.anyam.dev/merge-metrics",
        allowed: SWITCH,
        meaning: "whether a pod with prometheus.io annotations is scraped at the sidecar, for the app's metrics and its own",
        set: |proxy, value| {
            proxy.merge_metrics = switch(value)?;
            Some(())
        },
    },
];

fn amount(of: &mut Option<Quantity>, value: &str) -> Option<()> {
    *of = Some(Quantity::parse(value).ok()?);
    Some(())
}

/// The mesh's defaults with the pod's annotations over them.
///
/// # Errors
/// An annotation of our group that does not exist, whose value is not allowed, or that makes a
/// request larger than its limit.
pub(super) fn settings(
    pod: &PodManifest,
    defaults: &ProxySettings,
) -> Result<ProxySettings, InjectError> {
    let mut proxy = defaults.clone();
    for name in pod
        .annotations
        .keys()
        .filter(|name| name.starts_with(GROUP))
    {
        // `inject` was read by `decision`, and `status::revert` has removed `status`.
        if name == INJECT {
            continue;
        }
        let value = pod.annotation(name).unwrap_or_default();
        let Some(annotation) = ALL.iter().find(|annotation| annotation.name == name) else {
            let known: Vec<&str> = ALL.iter().map(|annotation| annotation.name).collect();
            return Err(InjectError::Unknown {
                name: name.clone(),
                known: known.join(", "),
            });
        };
        if (annotation.set)(&mut proxy, value).is_none() {
            return Err(InjectError::Value {
                kind: "annotation",
                name: name.clone(),
                value: value.to_owned(),
                allowed: values::advice(annotation.allowed, value),
            });
        }
    }
    let (requests, limits) = (&proxy.resources.requests, &proxy.resources.limits);
    fits("cpu", &requests.cpu, &limits.cpu)?;
    fits("memory", &requests.memory, &limits.memory)?;
    Ok(proxy)
}

/// The API server would refuse such a container too, but with a message about one that the user did
/// not write.
fn fits(
    what: &'static str,
    request: &Option<Quantity>,
    limit: &Option<Quantity>,
) -> Result<(), InjectError> {
    match (request, limit) {
        (Some(request), Some(limit)) if request.is_above(limit) => Err(InjectError::AboveLimit {
            what,
            request: request.as_str().to_owned(),
            limit: limit.as_str().to_owned(),
            annotations: format!("{GROUP}proxy-{what}-request and {GROUP}proxy-{what}-limit"),
        }),
        _ => Ok(()),
    }
}
