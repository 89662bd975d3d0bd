//! A Pod into a Workload.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::decode::{Container, Pod};
use crate::injected::{
    EXCLUDE_INBOUND_CIDRS, EXCLUDE_INBOUND_PORTS, GROUP, HEALTH_PORT, INCLUDE_INBOUND_CIDRS,
    INCLUDE_INBOUND_PORTS, INIT, IPV6, METRICS_PORT, OPEN_PORTS, REDIRECT_IPV6, SIDECAR, STATUS,
    STATUS_PORT,
};
use crate::model::manifest::object::Meta;
use crate::model::manifest::service::AppProtocol;
use crate::model::manifest::values::Cidr;
use crate::model::manifest::workload::{Locality, Redirection, Workload, WorkloadPort};

/// The workload that a pod is, without its locality, which is its node's. `None`: the pod has no
/// address yet, or its containers have ended and its address may be another pod's.
pub fn workload(key: (&str, &str), pod: Pod) -> Option<Workload> {
    let status = &pod.status;
    if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
        return None;
    }
    let all = status.pod_ips.iter().map(|it| it.ip.as_str());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in all.chain([status.pod_ip.as_str()]) {
        if let Ok(ip) = ip.parse::<IpAddr>()
            && !addresses.contains(&ip.to_canonical())
        {
            addresses.push(ip.to_canonical());
        }
    }
    if addresses.is_empty() {
        return None;
    }
    let mut conditions = status.conditions.iter();
    let ready = conditions.any(|it| it.kind == "Ready" && it.status == "True");
    let sidecar = has_sidecar(&pod);
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    Some(Workload {
        addresses,
        ready,
        sidecar,
        tunnels: true,
        pod: true,
        terminating: pod.about.deleted,
        redirected: redirected(&pod),
        ports: ports(&pod),
        locality: None,
        weight: 1,
        service_account: match pod.spec.service_account_name.is_empty() {
            true => "default".to_owned(),
            false => pod.spec.service_account_name,
        },
        node: pod.spec.node_name,
        hostname: named(pod.spec.hostname),
        subdomain: named(pod.spec.subdomain),
        host_network: pod.spec.host_network,
        meta: Meta {
            namespace: key.0.to_owned(),
            name: key.1.to_owned(),
            labels: pod.about.labels,
            created: pod.about.created,
        },
    })
}

/// Whether the pod declares a sidecar, not whether it runs at the moment: while a sidecar restarts,
/// calls must fail, and not fall back to plaintext.
fn has_sidecar(pod: &Pod) -> bool {
    let is_sidecar = |it: &Container| it.name == SIDECAR;
    let restarts = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
    let mut native = pod.spec.init_containers.iter().filter(restarts);
    // For sidecars whose container has another name.
    let marked = STATUS.strip_prefix(GROUP);
    let marked = marked.and_then(|name| pod.about.annotations.get(name));
    !pod.spec.host_network
        && (pod.spec.containers.iter().any(is_sidecar)
            || native.any(is_sidecar)
            || marked.is_some_and(|mark| !mark.is_empty()))
}

/// What is redirected, from the flags of the init container that injection adds; without that
/// container, from the annotations.
fn redirected(pod: &Pod) -> Redirection {
    let mut init = pod.spec.init_containers.iter();
    let init = init.find(|it| it.name == INIT);
    let list = |name: &str| match init {
        Some(init) => init.args.iter().find_map(|argument| {
            let (flag, list) = argument.strip_prefix("--")?.split_once('=')?;
            (flag == name).then_some(list)
        }),
        None => pod.about.annotations.get(name),
    };
    let ranges = |name: &str| list(name).map(port_ranges).unwrap_or_default();
    let mut exclude = ranges(EXCLUDE_INBOUND_PORTS);
    match init {
        Some(_) => exclude.extend(ranges(OPEN_PORTS)),
        None => exclude.extend([STATUS_PORT, HEALTH_PORT, METRICS_PORT].map(|port| port..=port)),
    }
    let sources = |name: &str| list(name).map(cidrs).unwrap_or_default();
    Redirection {
        include_ports: ranges(INCLUDE_INBOUND_PORTS),
        exclude_ports: exclude,
        include_sources: sources(INCLUDE_INBOUND_CIDRS),
        exclude_sources: sources(EXCLUDE_INBOUND_CIDRS),
        ipv6: list(if init.is_some() { IPV6 } else { REDIRECT_IPV6 }) != Some("false"),
    }
}

/// Parses a list such as `80,8000-8099`. Invalid entries are skipped: the pod's init container
/// fails on them.
fn port_ranges(list: &str) -> Vec<RangeInclusive<u16>> {
    let range = |one: &str| {
        let (first, last) = one.split_once('-').unwrap_or((one, one));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).collect()
}

/// Parses a list such as `10.0.0.0/8,fd00::1`. Invalid entries are skipped, as of ports.
fn cidrs(list: &str) -> Vec<Cidr> {
    let all = list.split(',').map(str::trim);
    all.filter_map(|one| one.parse().ok()).collect()
}

/// TCP ports by name. Their protocols are those that Services declare: names of container ports are
/// not read as protocols.
fn ports(pod: &Pod) -> Vec<WorkloadPort> {
    let native = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
    let native = pod.spec.init_containers.iter().filter(native);
    let containers = pod.spec.containers.iter().chain(native);
    let containers = containers.filter(|it| it.name != SIDECAR);
    let mut ports: Vec<WorkloadPort> = Vec::new();
    for port in containers.flat_map(|it| &it.ports) {
        let tcp = port.protocol.as_deref().is_none_or(|it| it == "TCP");
        let known = ports.iter().any(|it| it.number == port.container_port);
        if tcp && !known && port.container_port != 0 {
            ports.push(WorkloadPort {
                name: port.name.clone(),
                number: port.container_port,
                protocol: AppProtocol::Undeclared,
            });
        }
    }
    ports
}

/// The locality of a node, by its well-known labels.
pub fn locality(labels: &std::collections::BTreeMap<String, String>) -> Option<Locality> {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let locality = Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        sub_zone: String::new(),
    };
    (locality != Locality::default()).then_some(locality)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject;

    fn pod(spec: &str, status: &str) -> Option<Workload> {
        let text = format!(
            r#"{{"metadata": {{"name": "web-0", "namespace": "shop", "labels": {{"app": "web"}},
                "creationTimestamp": "2026-01-01T00:00:00Z", "uid": "u"}}, "spec": {spec}, "status": {status}}}"#
        );
        let pod = serde_json::from_str(&text).unwrap();
        workload(("shop", "web-0"), pod)
    }

    const RUNNING: &str = r#"{"phase": "Running", "podIP": "10.1.0.1",
        "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}], "conditions": [{"type": "Ready", "status": "True"}]}"#;

    #[test]
    fn a_pod_is_a_workload() {
        let spec = r#"{"nodeName": "n1", "serviceAccountName": "web", "hostname": "h", "subdomain": "web",
            "containers": [
              {"name": "app", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]},
              {"name": "metrics", "ports": [{"name": "again", "containerPort": 8080}]}],
            "initContainers": [
              {"name": "anyam-proxy", "restartPolicy": "Always", "ports": [{"containerPort": 15090}]},
              {"name": "log", "restartPolicy": "Always", "ports": [{"name": "log", "containerPort": 514}]},
              {"name": "setup", "ports": [{"containerPort": 1}]}]}"#;
        let it = pod(spec, RUNNING).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(it.addresses, [ip("10.1.0.1"), ip("fd00::1")]);
        assert!(it.sidecar && it.ready && !it.host_network);
        let ports: Vec<_> = it.ports.iter().map(|it| (&*it.name, it.number)).collect();
        assert_eq!(ports, [("http", 8080), ("log", 514)]);
        assert_eq!((&*it.service_account, &*it.node), ("web", "n1"));
        let key = it.hostname_in_service().unwrap();
        assert_eq!((key.0.to_string(), &*key.1), ("shop/web".into(), "h"));
    }

    #[test]
    fn a_pod_that_is_deleted_terminates() {
        let text = r#"{"metadata": {"name": "web-0", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"phase": "Running", "podIP": "10.1.0.1"}}"#;
        let deleted = workload(("shop", "web-0"), serde_json::from_str(text).unwrap());
        assert!(deleted.unwrap().terminating);
        assert!(!pod("{}", RUNNING).unwrap().terminating);
    }

    #[test]
    fn a_pod_that_has_ended_or_has_no_address_is_no_workload() {
        assert!(pod("{}", RUNNING).is_some());
        assert_eq!(pod("{}", r#"{"phase": "Pending"}"#), None);
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(pod("{}", &RUNNING.replace("Running", phase)), None);
        }
        let waits = RUNNING.replace("\"True\"", "\"False\"");
        assert!(!pod("{}", &waits).unwrap().ready);
    }

    #[test]
    fn a_sidecar_runs_beside_the_app() {
        let has = |spec: &str| pod(spec, RUNNING).unwrap().sidecar;
        let own = r#"{"containers": [{"name": "anyam-proxy"}]}"#;
        assert!(has(own));
        assert!(!has(r#"{"containers": [{"name": "proxy"}]}"#));
        assert!(!has(r#"{"initContainers": [{"name": "anyam-proxy"}]}"#));
        let host = r#"{"hostNetwork": true, "containers": [{"name": "anyam-proxy"}]}"#;
        assert!(!has(host), "it cannot intercept a node's traffic");
    }

    fn injected(annotations: &str, spec: &str) -> Workload {
        let text = format!(
            r#"{{"metadata": {{"name": "web-0", "namespace": "shop", "annotations": {annotations}}}, "spec": {spec}}}"#
        );
        let pod = serde_json::from_str(&text).unwrap();
        let namespace = inject::NamespaceFacts {
            name: "shop",
            enabled: true,
        };
        let settings = inject::settings::MeshSettings::default();
        let token = inject::hook_token::HookTokens::Random.token("").unwrap();
        let found = inject::inject(&pod, namespace, &settings, &token);
        let Ok(inject::Injection::Injected { mut pod, .. }) = found else {
            panic!("{found:?}")
        };
        pod["status"] = serde_json::from_str(RUNNING).unwrap();
        workload(("shop", "web-0"), serde_json::from_value(pod).unwrap()).unwrap()
    }

    #[test]
    fn what_injection_made_is_a_sidecar_with_the_ports_that_it_is_given() {
        let app = r#"{"containers": [{"name": "app", "image": "a"}]}"#;
        for kind in ["native", "classic"] {
            let annotations = format!(
                r#"{{"mesh.anyam.dev/sidecar": "{kind}", "mesh.anyam.dev/exclude-inbound-ports": "25,8000-8099"}}"#
            );
            let it = injected(&annotations, app);
            assert!(it.sidecar && it.pod && it.redirected.ipv6);
            let ports = [24, 25, 26, 7999, 8000, 8099, 8100, 15020, 15021, 15090];
            let reached: Vec<_> = ports.map(|port| it.redirected.has_port(port)).into();
            let expected = [
                true, false, true, true, false, false, true, false, false, false,
            ];
            assert_eq!(reached, expected, "{kind}");
        }
        let it = injected(r#"{"mesh.anyam.dev/redirect-ipv6": "false"}"#, app);
        let reached = ["10.1.0.1:80", "[fd00::1]:80"]
            .map(|at| it.redirected.has_address(at.parse().unwrap()));
        assert_eq!(reached, [true, false]);
        let sources = r#"{"mesh.anyam.dev/include-inbound-cidrs": "10.0.0.0/8,192.0.2.1",
            "mesh.anyam.dev/exclude-inbound-cidrs": "10.9.0.0/16"}"#;
        let it = injected(sources, app);
        assert!(it.redirected.is_by_source());
        let sources = ["10.1.0.1", "10.9.0.1", "192.0.2.1", "192.0.2.2", "fd00::1"];
        let reached = sources.map(|ip| it.redirected.has_source(ip.parse().unwrap()));
        assert_eq!(reached, [true, false, true, false, false]);
        let include = r#"{"mesh.anyam.dev/include-inbound-ports": "80"}"#;
        let it = injected(include, app);
        assert!(it.redirected.has_port(80) && !it.redirected.has_port(81));
    }

    #[test]
    fn without_the_init_container_annotations_say_which_ports_reach_the_sidecar() {
        let text = format!(
            r#"{{"metadata": {{"name": "w", "annotations": {{"a/b": "c",
                "mesh.anyam.dev/status": "{{}}", "mesh.anyam.dev/exclude-inbound-ports": "25",
                "mesh.anyam.dev/redirect-ipv6": "false"}}}},
                "spec": {{}}, "status": {RUNNING}}}"#
        );
        let it = workload(("n", "w"), serde_json::from_str(&text).unwrap()).unwrap();
        assert!(it.sidecar, "by its status");
        let reached = [25, 26, 15090].map(|port| it.redirected.has_port(port));
        assert_eq!(reached, [false, true, false]);
        assert!(!it.redirected.ipv6);
    }

    #[test]
    fn a_node_s_labels_are_its_pods_locality() {
        let labels = [("topology.kubernetes.io/zone".to_owned(), "z1".to_owned())];
        let found = locality(&labels.into()).unwrap();
        assert_eq!((&*found.region, &*found.zone), ("", "z1"));
        assert_eq!(locality(&Default::default()), None);
    }
}
