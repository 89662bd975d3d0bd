//! A cluster's EndpointSlices: they alone determine a service's endpoints, and a pod is called only
//! with its own identity.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use anyam_control::ads::resources::{Scope, View};
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::change::{Delta, Origin};
use anyam_control::model::mesh::endpoints::EndpointsBy;
use anyam_control::model::mesh::vip::Vips;
use anyam_control::model::{MeshOptions, Object, ObjectId};
use anyam_control::source::{Observed, yaml};
use anyam_control::translate::Translator;
use xds_proto::type_url;

struct Mesh(Translator);

impl Mesh {
    fn new() -> Self {
        let options = MeshOptions {
            endpoints: EndpointsBy::Slices,
            ..MeshOptions::default()
        };
        Mesh(Translator::new(Builder::new(options, Vips::new())))
    }

    fn apply(&self, delta: Delta) {
        let errors = None;
        self.0.apply(Observed { delta, errors });
    }

    fn set(&self, text: &str) -> Vec<ObjectId> {
        let origin = Origin::Cluster { kind: "Pod" };
        let read = yaml::parse("mesh.yaml", text).unwrap().into_iter();
        let set: Vec<(Object, Origin)> = read.map(|it| (it.object, origin.clone())).collect();
        let ids = set.iter().map(|(object, _)| object.id()).collect();
        let removed = Vec::new();
        self.apply(Delta { set, removed });
        ids
    }

    fn remove(&self, removed: Vec<ObjectId>) {
        let set = Vec::new();
        self.apply(Delta { set, removed });
    }

    /// Addresses that calls to the Service go to, with the service account that is expected at
    /// each.
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
