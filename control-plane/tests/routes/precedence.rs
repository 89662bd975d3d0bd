//! The rules that govern a caller, and their order.

use anyam_control::model::Kind;
use anyam_control::model::mesh::endpoints::EndpointsBy;

use super::{Mesh, route};

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
fn a_namespace_has_its_own_routes_of_grpc_too() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    let of = |kind: &str, name: &str, namespace: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  parentRefs: [{{ group: '', kind: Service, namespace: shop, name: web, port: 9000 }}]
  rules: [{{ backendRefs: [{{ name: web, namespace: shop, port: 9000 }}] }}]
"
        )
    };
    mesh.set(&of("GRPCRoute", "mine", "far"));
    let rules = |namespace: &str| mesh.rules("9000|", "web", namespace);
    assert_eq!(rules("far"), ["GRPCRoute/far/mine/0"]);
    assert_eq!(rules("shop"), ["default"]);
    assert_eq!(rules("elsewhere"), ["default"]);

    // A GRPCRoute governs the port for the namespace, whatever HTTPRoutes the namespace has.
    mesh.set(&of("HTTPRoute", "web", "far"));
    assert_eq!(rules("far"), ["GRPCRoute/far/mine/0"]);
    let conditions = |kind: Kind, name: &str| {
        let status = mesh.status(kind, "far", name);
        let found = status.parents[0].conditions.iter();
        let found = found.filter(|it| it.kind == "Accepted");
        found.map(|it| it.reason.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(conditions(Kind::GrpcRoute, "mine"), ["Accepted"]);
    assert_eq!(conditions(Kind::HttpRoute, "web"), ["Conflicted"]);

    // A route of the Service's own namespace is for all others, and is not merged.
    mesh.set(&of("GRPCRoute", "all", "shop"));
    assert_eq!(rules("elsewhere"), ["GRPCRoute/shop/all/0"]);
    assert_eq!(rules("far"), ["GRPCRoute/far/mine/0"]);
}
