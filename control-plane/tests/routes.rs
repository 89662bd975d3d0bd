//! Attachment of routes, their precedence, and their conditions at each of their parents (Gateway
//! API for service meshes).

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
fn matches_of_all_routes_are_in_one_order() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    let rule = |name: &str, matches: &str| {
        format!(
            "{{ name: {name}, matches: [{{ {matches} }}], backendRefs: [{{ name: web, port: 80 }}] }}"
        )
    };
    let young = [
        rule("all", "path: { value: / }"),
        rule("longer", "path: { value: /shop/cart }"),
        rule("method", "path: { value: /shop }, method: GET"),
        rule(
            "two-headers",
            "path: { value: /shop }, headers: [{ name: a, value: b }, { name: c, value: d }]",
        ),
        rule(
            "one-header",
            "path: { value: /shop }, headers: [{ name: a, value: b }]",
        ),
        rule(
            "query",
            "path: { value: /shop }, queryParams: [{ name: q, value: v }]",
        ),
        rule("shop", "path: { value: /shop }"),
        rule("again", "path: { value: /shop }"),
    ];
    let old = [
        rule("exact", "path: { type: Exact, value: /a }"),
        rule("old-shop", "path: { value: /shop/ }"),
    ];
    mesh.set(&route(
        "HTTPRoute",
        "b",
        ", creationTimestamp: '2026-01-02T00:00:00Z'",
        &young.join(", "),
    ));
    mesh.set(&route(
        "HTTPRoute",
        "old",
        ", creationTimestamp: '2026-01-01T00:00:00Z'",
        &old.join(", "),
    ));
    // As old as `b`, before it by name.
    let last = rule("a-shop", "path: { value: /shop }");
    mesh.set(&route(
        "HTTPRoute",
        "a",
        ", creationTimestamp: '2026-01-02T00:00:00Z'",
        &last,
    ));
    let names: Vec<_> = mesh.rules("80|", "web", "shop");
    let names: Vec<_> = names
        .iter()
        .map(|it| it.rsplit('/').next().unwrap())
        .collect();
    let expected = [
        "exact",
        "longer",
        "method",
        "two-headers",
        "one-header",
        "query",
        "old-shop",
        "a-shop",
        "shop",
        "again",
        "all",
    ];
    assert_eq!(names, expected);
}

#[test]
fn calls_of_grpc_are_matched_by_service_then_method_then_headers() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    let rule = |name: &str, matches: &str| {
        format!(
            "{{ name: {name}, matches: [{{ {matches} }}], backendRefs: [{{ name: web, port: 9000 }}] }}"
        )
    };
    let rules = [
        rule("any", ""),
        rule("method", "method: { method: List }"),
        rule(
            "expression",
            "method: { type: RegularExpression, service: 'shop[.].*' }",
        ),
        rule("service", "method: { service: shop.Cart }"),
        rule("both", "method: { service: shop.Cart, method: List }"),
        rule(
            "headers",
            "method: { service: shop.Cart, method: List }, headers: [{ name: a, value: b }]",
        ),
    ];
    mesh.set(&route("GRPCRoute", "r", "", &rules.join(", ")));
    let names: Vec<_> = mesh.rules("9000|", "web", "shop");
    let names: Vec<_> = names
        .iter()
        .map(|it| it.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        names,
        ["headers", "both", "service", "method", "expression", "any"]
    );
}

#[test]
fn a_namespace_with_routes_of_its_own_has_those_and_changes_nothing_for_others() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    let to = |name: &str, namespace: &str, parent: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  parentRefs: [{{ group: '', kind: Service, namespace: shop, {parent} }}]
  rules: [{{ backendRefs: [{{ name: plain, namespace: shop, port: 80 }}] }}]
"
        )
    };
    let all = ["", "h2", "tcp"];
    assert_eq!(mesh.clusters(3306, "plain"), all);
    mesh.set(&to("mine", "far", "name: plain"));
    assert_eq!(
        mesh.clusters(3306, "plain"),
        all,
        "another namespace's route declares nothing"
    );
    assert_eq!(
        mesh.rules("3306|", "plain", "far"),
        ["HTTPRoute/far/mine/0"]
    );
    assert_eq!(
        mesh.rules("3306|h2", "plain", "far"),
        ["HTTPRoute/far/mine/0"]
    );
    assert_eq!(mesh.rules("3306|", "plain", "shop"), ["default"]);

    mesh.set(&to("all-ports", "shop", "name: plain"));
    assert_eq!(
        mesh.clusters(3306, "plain"),
        all,
        "it is about no port in particular"
    );
    assert_eq!(
        mesh.rules("3306|", "plain", "shop"),
        ["HTTPRoute/shop/all-ports/0"]
    );
    mesh.set(&to("one-port", "shop", "name: plain, port: 80"));
    assert_eq!(
        mesh.clusters(80, "plain"),
        [""],
        "declared by the route that names it"
    );
    assert_eq!(mesh.clusters(3306, "plain"), all);
    let merged = ["HTTPRoute/shop/all-ports/0", "HTTPRoute/shop/one-port/0"];
    assert_eq!(mesh.rules("80|", "plain", "elsewhere"), merged);
    assert_eq!(
        mesh.rules("80|", "plain", "far"),
        ["HTTPRoute/far/mine/0"],
        "not merged"
    );
}

#[test]
fn each_parent_says_how_it_takes_the_route() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    mesh.set(&route(
        "GRPCRoute",
        "rpc",
        "",
        "{ backendRefs: [{ name: web, port: 9000 }] }",
    ));
    let parent = |name: &str| json!({"group": "", "kind": "Service", "name": name});
    let at = |name: &str, port: u16| json!({"group": "", "kind": "Service", "name": name, "namespace": "shop", "port": port});
    let parents = json!([
        {"name": "gateway"}, parent("gone"), parent("pods"),
        at("web", 80), at("web", 9000), at("web", 5432), at("web", 1),
        {"group": "", "kind": "Service", "name": "plain", "sectionName": "db", "port": 3306},
    ]);
    let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
    mesh.lenient(
        "r",
        json!({"parentRefs": parents, "rules": rules, "hostnames": ["a.example"]}),
    );
    let expected = [
        (
            "gone",
            "false NoMatchingParent: there is no Service shop/gone",
        ),
        (
            "pods",
            "false NoMatchingParent: Service shop/pods is headless",
        ),
        ("web:80", "true Accepted: hostnames have no effect"),
        (
            "web:9000",
            "false Conflicted: GRPCRoute shop/rpc governs port 9000 of Service shop/web",
        ),
        (
            "web:5432",
            "false UnsupportedProtocol: port 5432 of Service shop/web is declared",
        ),
        (
            "web:1",
            "false NoMatchingParent: Service shop/web has no port 1",
        ),
        ("plain:3306", "true Accepted: hostnames"),
    ];
    let found = mesh.parents("r");
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((name, conditions), (parent, accepted)) in found.iter().zip(expected) {
        assert_eq!(name, parent);
        assert!(
            conditions["Accepted"].starts_with(accepted),
            "{name}: {conditions:#?}"
        );
        assert_eq!(conditions["ResolvedRefs"], "true ResolvedRefs: ");
        assert_eq!(conditions.len(), 2, "{conditions:#?}");
    }
    // A service that is not headless any more takes it.
    mesh.set(
        "
apiVersion: v1
kind: Service
metadata: { name: pods, namespace: shop }
spec: { clusterIP: 10.0.0.3, ports: [{ name: http, port: 80 }] }
",
    );
    assert!(mesh.parents("r")[1].1["Accepted"].starts_with("true Accepted"));
}

#[test]
fn what_another_controller_handles_is_left_to_it() {
    let foreign = json!({"parentRefs": [{"name": "gateway"}], "rules": []});
    let mesh = Mesh::new(EndpointsBy::Slices);
    mesh.lenient("r", foreign.clone());
    let status = mesh.status(Kind::HttpRoute, "shop", "r");
    assert!(
        status.conditions.is_empty() && status.parents.is_empty(),
        "{status:?}"
    );
    // In a folder there is no other controller: it may be a mistake.
    let folder = Mesh::new(EndpointsBy::SlicesOrSelector);
    folder.lenient("r", foreign);
    let status = folder.status(Kind::HttpRoute, "shop", "r");
    assert!(
        !status.conditions[0].status && status.parents.is_empty(),
        "{status:?}"
    );
    assert_eq!(status.conditions[0].reason, "NoMatchingParent");
}

#[test]
fn rules_that_cannot_be_read_are_named_and_others_hold() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    let parents = json!([{"group": "", "kind": "Service", "name": "web"}]);
    let good = json!({"name": "good", "backendRefs": [{"name": "web", "port": 80}]});
    let odd = json!({"matches": [{"path": {"type": "Fuzzy", "value": "/a"}}], "backendRefs": [{"name": "web", "port": 80}]});
    let failing = json!({"name": "failing", "filters": [{"type": "ExternalAuth"}], "backendRefs": [{"name": "web", "port": 80}]});
    let sticky = json!({"name": "sticky", "sessionPersistence": {}, "retry": {"attempts": 50}, "backendRefs": [{"name": "web", "port": 80}]});

    mesh.lenient(
        "r",
        json!({"parentRefs": parents, "rules": [good, odd, failing, sticky]}),
    );
    let conditions = mesh.parents("r").remove(0).1;
    assert!(
        conditions["Accepted"].starts_with("true Accepted"),
        "{conditions:#?}"
    );
    let partially = &conditions["PartiallyInvalid"];
    let dropped = "true UnsupportedValue: Dropped Rule: spec.rules[1].matches[0].path.type: ";
    assert!(partially.starts_with(dropped), "{partially}");
    assert!(
        partially.contains("Dropped Rule: spec.rules[2].filters[0].type: "),
        "{partially}"
    );
    assert!(!partially.contains("sessionPersistence"), "{partially}");
    let fields = &conditions["AllFields"];
    assert!(fields.starts_with("false FieldLeftOut: "), "{fields}");
    for field in [
        "spec.rules[1].matches[0]",
        "spec.rules[3].sessionPersistence",
        "spec.rules[3].retry.attempts",
    ] {
        assert!(fields.contains(field), "{field}: {fields}");
    }
    let rules = mesh.rules("80|", "web", "shop");
    let names = ["good", "failing", "sticky"].map(|name| format!("HTTPRoute/shop/r/{name}"));
    assert_eq!(rules, names);
    assert_eq!(
        mesh.status(Kind::HttpRoute, "shop", "r")
            .origin
            .generation(),
        Some(4)
    );

    mesh.lenient("r", json!({"parentRefs": parents, "rules": [odd, failing]}));
    let conditions = mesh.parents("r").remove(0).1;
    let accepted = &conditions["Accepted"];
    assert!(
        accepted.starts_with("false UnsupportedValue: Dropped Rule: spec.rules[0]"),
        "{accepted}"
    );
    assert!(
        !conditions.contains_key("PartiallyInvalid"),
        "{conditions:#?}"
    );
    // What the rule would have let through is still answered with an error.
    assert_eq!(
        mesh.rules("80|", "web", "shop"),
        ["HTTPRoute/shop/r/failing"]
    );
}

#[test]
fn the_cors_filter_is_where_a_route_uses_it() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    let has_filter = |namespace: &str| {
        let listener = mesh.resource(type_url::LISTENER, "outbound/10.0.0.1:80", namespace);
        let listener = listener.unwrap();
        let name = b"envoy.filters.http.cors";
        listener.windows(name.len()).any(|bytes| bytes == name)
    };
    assert!(!has_filter("shop"));
    let cors = "{ filters: [{ type: CORS, cors: { allowOrigins: ['*'] } }], backendRefs: [{ name: web, port: 80 }] }";
    mesh.set(&route("HTTPRoute", "r", "", cors));
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
