//! Attachment of routes, their precedence, and their conditions at each of their parents (Gateway
//! API for service meshes).
//!
//! `precedence`: which rules a caller has, in which order; `status`: conditions of a route's parents

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::collections::BTreeMap;
use std::sync::Arc;

use anyam_control::ads::resources::{Scope, View};
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::change::{ClusterDetails, ObjectDelta, Origin};
use anyam_control::model::mesh::endpoints::EndpointsBy;
use anyam_control::model::mesh::status::{Condition, ObjectStatus};
use anyam_control::model::mesh::vip::Vips;
use anyam_control::model::{Key, Kind, MeshOptions, Object, ObjectId};
use anyam_control::source::kubernetes::decode::Manifest;
use anyam_control::source::kubernetes::lenient;
use anyam_control::source::{Observed, yaml};
use anyam_control::translate::Translator;
use prost::Message;
use serde_json::{Value, json};
use xds_proto::envoy::config::route::v3::RouteConfiguration;
use xds_proto::type_url;

mod precedence;
mod status;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { clusterIP: 10.0.0.1, ports: [{ name: http, port: 80 }, { name: grpc, port: 9000 }, { name: tcp, port: 5432 }] }
---
apiVersion: v1
kind: Service
metadata: { name: pods, namespace: shop }
spec: { clusterIP: None, ports: [{ name: http, port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: plain, namespace: shop }
spec: { clusterIP: 10.0.0.2, ports: [{ name: main, port: 80 }, { name: db, port: 3306 }] }
";

struct Mesh(Translator);

impl Mesh {
    fn new(endpoints: EndpointsBy) -> Self {
        let options = MeshOptions {
            endpoints,
            ..MeshOptions::default()
        };
        let mesh = Mesh(Translator::new(Builder::new(options, Vips::new())));
        mesh.set(SERVICES);
        mesh
    }

    fn set(&self, text: &str) {
        let origin = Origin::cluster("Service");
        let read = yaml::parse("mesh.yaml", text).unwrap().into_iter();
        self.apply(read.map(|it| (it.object, origin.clone())).collect());
    }

    fn apply(&self, set: Vec<(Object, Origin)>) {
        let delta = ObjectDelta {
            set,
            removed: Vec::new(),
        };
        self.0.apply(Observed {
            delta,
            errors: None,
        });
    }

    /// An HTTPRoute of `shop`, as a cluster has it.
    fn lenient(&self, name: &str, spec: Value) {
        let manifest =
            json!({"metadata": {"name": name, "namespace": "shop", "generation": 4}, "spec": spec});
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        let generation = manifest.generation;
        let (object, left_out) = lenient::read(Kind::HttpRoute, manifest.node);
        let details = ClusterDetails {
            generation,
            left_out,
        };
        let origin = Origin::Cluster {
            kind: "HTTPRoute",
            details: Some(Arc::new(details)),
        };
        self.apply(vec![(object.unwrap(), origin)]);
    }

    fn status(&self, kind: Kind, namespace: &str, name: &str) -> Arc<ObjectStatus> {
        let id = ObjectId {
            kind,
            key: Key::new(namespace, name),
        };
        self.0.state().mesh.statuses.get(&id).unwrap().clone()
    }

    /// Conditions at each parent, by its name and port.
    fn parents(&self, name: &str) -> Vec<(String, BTreeMap<&'static str, String>)> {
        let status = self.status(Kind::HttpRoute, "shop", name);
        let text = |it: &Condition| format!("{} {}: {}", it.status, it.reason, it.message);
        let of = |conditions: &[Condition]| {
            let all = conditions.iter().map(|it| (it.kind, text(it)));
            all.collect::<BTreeMap<_, _>>()
        };
        let parents = status.parents.iter();
        let one = parents.map(|it| {
            let port = it.parent.port.map(|port| format!(":{port}"));
            let name = format!("{}{}", it.parent.name, port.unwrap_or_default());
            (name, of(&it.conditions))
        });
        one.collect()
    }

    fn resource(&self, kind: &str, name: &str, namespace: &str) -> Option<Vec<u8>> {
        let scope = Scope {
            namespace: namespace.to_owned(),
            workload: "x".to_owned(),
            anyam: true,
            ..Scope::default()
        };
        let resource = self.0.state().get(kind, name, &scope)?;
        Some(resource.body.to_vec())
    }

    /// Names of the rules that govern calls to a port of `shop/web`, or of another Service, by a
    /// caller, in order.
    fn rules(&self, port: &str, service: &str, namespace: &str) -> Vec<String> {
        let name = format!("outbound|{port}|{service}.shop.svc.cluster.local");
        let body = self.resource(type_url::ROUTE, &name, namespace).unwrap();
        let decoded = RouteConfiguration::decode(&*body).unwrap();
        let routes = decoded.virtual_hosts.into_iter().flat_map(|it| it.routes);
        routes.map(|route| route.name).collect()
    }

    fn clusters(&self, port: u16, service: &str) -> Vec<&'static str> {
        let there = |subset: &&'static str| {
            let name = format!("outbound|{port}|{subset}|{service}.shop.svc.cluster.local");
            self.resource(type_url::CLUSTER, &name, "shop").is_some()
        };
        ["", "h2", "tcp"].into_iter().filter(there).collect()
    }
}

/// A route to `web`; `rules`: in flow style.
fn route(kind: &str, name: &str, more: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: {name}, namespace: shop{more} }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: web }}]
  rules: [{rules}]
"
    )
}

#[test]
fn filters_of_routes_are_where_a_route_uses_them() {
    let backend = "backendRefs: [{ name: web, port: 80 }] }";
    let cors = "{ filters: [{ type: CORS, cors: { allowOrigins: ['*'] } }], ";
    filter_is_where_it_is_used(b"envoy.filters.http.cors", &format!("{cors}{backend}"));
    let session = "{ sessionPersistence: { sessionName: s }, ";
    filter_is_where_it_is_used(
        b"envoy.filters.http.stateful_session",
        &format!("{session}{backend}"),
    );
}

/// `using`: a rule.
fn filter_is_where_it_is_used(name: &[u8], using: &str) {
    let mesh = Mesh::new(EndpointsBy::Slices);
    let has_filter = |namespace: &str| {
        let listener = mesh.resource(type_url::LISTENER, "outbound/10.0.0.1:80", namespace);
        let listener = listener.unwrap();
        listener.windows(name.len()).any(|bytes| bytes == name)
    };
    assert!(!has_filter("shop"));
    mesh.set(&route("HTTPRoute", "r", "", using));
    assert!(has_filter("shop") && has_filter("far"));
    let own = route(
        "HTTPRoute",
        "r",
        "",
        "{ backendRefs: [{ name: web, port: 80, namespace: shop }] }",
    );
    let own = own.replace("namespace: shop }\nspec", "namespace: far }\nspec");
    mesh.set(&own.replace("name: web }]\n", "name: web, namespace: shop }]\n"));
    assert!(has_filter("shop") && !has_filter("far"));
    mesh.set(&route(
        "HTTPRoute",
        "r",
        "",
        "{ backendRefs: [{ name: web, port: 80 }] }",
    ));
    assert!(!has_filter("shop"));
}
