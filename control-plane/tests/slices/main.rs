//! EndpointSlices of a cluster: they alone decide which pods are endpoints. Policies cover the pods
//! that a selector matches before a slice lists them, and a Pod's address belongs to no Workload.
//!
//! - `redirection`: ports and callers that bypass a pod's sidecar
//! - `local`: endpoints on the caller's node only
//! - `headless`: policies for calls to pods' own addresses

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::sync::Arc;

use anyam_control::ads::resources::{Scope, View};
use anyam_control::api::Declared;
use anyam_control::model::manifest::workload::Workload;
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::change::{ObjectDelta, Origin};
use anyam_control::model::mesh::endpoints::EndpointsBy;
use anyam_control::model::mesh::vip::Vips;
use anyam_control::model::{Key, Kind, MeshOptions, Object, ObjectId};
use anyam_control::source::{Observed, yaml};
use anyam_control::translate::Translator;
use xds_proto::type_url;

mod headless;
mod local;
mod redirection;

struct Mesh(Translator);

impl Mesh {
    fn new() -> Self {
        let options = MeshOptions {
            endpoints: EndpointsBy::Slices,
            machine_ranges: Some(vec!["192.0.2.0/24".parse().unwrap()]),
            ..MeshOptions::default()
        };
        Mesh(Translator::new(Builder::new(options, Vips::new())))
    }

    fn apply(&self, delta: ObjectDelta) {
        let errors = None;
        self.0.apply(Observed { delta, errors });
    }

    /// Workloads as pods.
    fn set(&self, text: &str) -> Vec<ObjectId> {
        self.set_as(text, |workload| workload.pod = true)
    }

    fn set_as(&self, text: &str, edit: impl Fn(&mut Workload)) -> Vec<ObjectId> {
        let origin = Origin::cluster("Pod");
        let read = yaml::parse("mesh.yaml", text).unwrap().into_iter();
        let mut set: Vec<(Object, Origin)> = read.map(|it| (it.object, origin.clone())).collect();
        for (object, _) in &mut set {
            if let Object::Workload(workload) = object {
                edit(Arc::make_mut(workload));
            }
        }
        let ids = set.iter().map(|(object, _)| object.id()).collect();
        let removed = Vec::new();
        self.apply(ObjectDelta { set, removed });
        ids
    }

    fn remove(&self, removed: Vec<ObjectId>) {
        let set = Vec::new();
        self.apply(ObjectDelta { set, removed });
    }

    /// A resource of the proxy of shop/web-1, as far as it is text.
    fn own(&self, kind: &str, name: &str) -> Option<String> {
        let scope = Scope {
            namespace: "shop".into(),
            workload: "web-1".into(),
            anyam: true,
            ..Scope::default()
        };
        let made = self.0.state().get(kind, name, &scope)?;
        Some(String::from_utf8_lossy(&made.body).into_owned())
    }

    fn holder(&self, ip: &str) -> Option<String> {
        let state = self.0.state();
        let held = state.mesh.by_ip.get(&ip.parse().unwrap());
        held.map(ToString::to_string)
    }

    /// The reason of the condition that is False in a Workload's status.
    fn refused(&self, namespace: &str, name: &str) -> Option<String> {
        let id = ObjectId {
            kind: Kind::Workload,
            key: Key::new(namespace, name),
        };
        let state = self.0.state();
        let mut conditions = state.mesh.statuses.get(&id).unwrap().conditions.iter();
        let refused = conditions.find(|it| !it.status)?;
        Some(refused.reason.to_owned())
    }

    /// Addresses of the Service's endpoints, with the service account that a caller expects there.
    fn endpoints(&self) -> Vec<String> {
        let name = "outbound|80|tcp|web.shop.svc.cluster.local";
        let state = self.0.state();
        let made = state
            .get(type_url::ENDPOINT, name, &Scope::default())
            .unwrap();
        let json =
            xds_proto::json::to_json("envoy.config.endpoint.v3.ClusterLoadAssignment", &made.body);
        let json = json.unwrap();
        let groups = json["endpoints"].as_array().into_iter().flatten();
        let all = groups.flat_map(|group| group["lb_endpoints"].as_array().into_iter().flatten());
        let all = all.map(|it| {
            let at = it["endpoint"]["address"]["socket_address"]["address"]
                .as_str()
                .unwrap();
            let who = &it["metadata"]["filter_metadata"]["istio"]["workload"];
            let who = who.as_str().unwrap_or("-").split(';').next().unwrap();
            format!("{at} {who}")
        });
        all.collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { clusterIP: 10.96.0.1, selector: { app: web }, ports: [{ port: 80 }] }
";

fn slice(endpoints: &str) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: web-1, namespace: shop, labels: {{ kubernetes.io/service-name: web }} }}
addressType: IPv4
ports: [{{ port: 8080 }}]
endpoints: [{endpoints}]
"
    )
}

fn pod(name: &str, ip: &str) -> String {
    format!(
        "
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: web }} }}
spec: {{ addresses: [{ip}] }}
"
    )
}

fn of(name: &str, ip: &str) -> String {
    format!("{{ addresses: [{ip}], targetRef: {{ kind: Pod, name: {name}, namespace: shop }} }}")
}

#[test]
fn selectors_are_not_used() {
    let mesh = Mesh::new();
    mesh.set(WEB);
    mesh.set(&pod("web-1", "10.0.0.1"));
    assert!(mesh.endpoints().is_empty());
    mesh.set(&slice(&of("web-1", "10.0.0.1")));
    assert_eq!(mesh.endpoints(), ["10.0.0.1 web-1"]);
    mesh.set(&slice(""));
    assert!(mesh.endpoints().is_empty());
}

#[test]
fn an_unknown_pod_is_not_called_nor_is_another_at_its_address() {
    let mesh = Mesh::new();
    mesh.set(WEB);
    // The slice arrives before the pod.
    mesh.set(&slice(&of("web-1", "10.0.0.1")));
    assert!(
        mesh.endpoints().is_empty(),
        "it would be called in plaintext"
    );
    let first = mesh.set(&pod("web-1", "10.0.0.1"));
    assert_eq!(mesh.endpoints(), ["10.0.0.1 web-1"]);
    // The pod is removed before its slice, and another gets its address.
    mesh.remove(first);
    assert!(mesh.endpoints().is_empty());
    mesh.set(&pod("other", "10.0.0.1"));
    assert!(mesh.endpoints().is_empty(), "it is not the one that serves");
    // An endpoint that names no pod, and one outside of the mesh.
    mesh.set(&slice(
        "{ addresses: [10.0.0.1] }, { addresses: [192.0.2.1] }",
    ));
    assert_eq!(mesh.endpoints(), ["10.0.0.1 other", "192.0.2.1 -"]);
}

const ONLY: &str = "
apiVersion: mesh.anyam.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: only, namespace: shop }
spec: { targetRefs: [{ group: '', kind: Service, name: web }], action: Deny, rules: [{}] }
";

/// Between a pod's start and the slice that lists it, it can be called by its address.
#[test]
fn a_policy_for_a_service_holds_for_a_pod_that_no_slice_lists_yet() {
    let service =
        |target: u16| WEB.replace("port: 80 ", &format!("port: 80, targetPort: {target} "));
    let mesh = Mesh::new();
    let is_guarded = |port: u16| {
        let listener = mesh.own(type_url::LISTENER, "inbound").unwrap();
        let chain = format!("inbound|{port}|");
        listener.contains("policy[only]") && listener.contains(&chain)
    };
    let pod = mesh.set(&pod("web-1", "10.0.0.1"));
    mesh.set(&service(8080));
    assert!(!is_guarded(8080));
    let policy = mesh.set(ONLY);
    assert!(is_guarded(8080));
    assert!(mesh.own(type_url::CLUSTER, "inbound|8080||").is_some());
    assert!(mesh.endpoints().is_empty(), "nothing is called yet");
    // In any order, and whatever changes in between.
    mesh.set(&service(9090));
    assert!(is_guarded(9090) && !is_guarded(8080));
    mesh.remove(policy);
    assert!(!is_guarded(9090));
    mesh.set(ONLY);
    mesh.remove(pod);
    mesh.set(&self::pod("web-1", "10.0.0.1"));
    assert!(is_guarded(9090));
    mesh.set(&service(9090).replace("app: web", "app: api"));
    assert!(!is_guarded(9090), "it selects others");
    mesh.set(&slice(&of("web-1", "10.0.0.1")));
    assert!(is_guarded(8080), "a slice lists it");
    mesh.set(&service(9090));
    assert!(is_guarded(8080) && is_guarded(9090), "it is selected, too");
}

/// A Workload has neither the address of a pod nor one outside `--workload-cidr`.
#[test]
fn a_workload_has_only_addresses_of_ranges_for_machines_and_none_that_a_pod_has() {
    let machine = |namespace: &str, ip: &str| {
        format!(
            "
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: m, namespace: {namespace}, creationTimestamp: '2020-01-01T00:00:00Z' }}
spec: {{ addresses: [{ip}], sidecar: false }}
"
        )
    };
    let mesh = Mesh::new();
    let set = |text: &str| mesh.set_as(text, |_| {});
    for ip in ["10.0.0.1", "203.0.113.7", "'::ffff:10.0.0.1'"] {
        set(&machine("evil", ip));
        let ip = ip.trim_matches('\'');
        assert_eq!(mesh.holder(ip), None, "{ip}");
        let refused = mesh.refused("evil", "m");
        assert_eq!(refused.as_deref(), Some("AddressNotAllowed"), "{ip}");
    }
    // Where machines are, the older one of two has it, and a pod before both.
    set(&machine("vms", "192.0.2.1"));
    assert_eq!(mesh.holder("192.0.2.1").as_deref(), Some("vms/m"));
    assert_eq!(mesh.refused("vms", "m"), None);
    let pod = mesh.set(&pod("web-1", "192.0.2.1"));
    assert_eq!(mesh.holder("192.0.2.1").as_deref(), Some("shop/web-1"));
    let refused = mesh.refused("vms", "m");
    assert_eq!(refused.as_deref(), Some("AddressConflict"));
    mesh.remove(pod);
    assert_eq!(mesh.holder("192.0.2.1").as_deref(), Some("vms/m"));
}

/// It does not hold there, so it leaves nothing open either.
#[test]
fn a_policy_for_a_service_of_another_namespace_is_no_finding_of_a_pod_that_this_lists() {
    let mesh = Mesh::new();
    mesh.set(&pod("web-1", "10.0.0.1").replace("10.0.0.1]", "10.0.0.1], ports: [{ port: 9999 }]"));
    for namespace in ["other", "shop"] {
        let within = |text: &str| {
            let own = format!("namespace: {namespace} }}");
            let own = text.replace("namespace: shop }", &own);
            own.replace(
                "namespace: shop, labels: { kube",
                &format!("namespace: {namespace}, labels: {{ kube"),
            )
        };
        let named =
            "{ addresses: [10.0.0.1], targetRef: { kind: Pod, name: web-1, namespace: 'shop' } }";
        mesh.set(&within(WEB));
        mesh.set(&within(&slice(named)));
        mesh.set(&within(&ONLY.replace("Deny", "Allow")));
        // Of the declared port, and of undeclared ones.
        let found = mesh.0.findings().len();
        assert_eq!(found, 2 * usize::from(namespace == "shop"), "{namespace}");
    }
}
