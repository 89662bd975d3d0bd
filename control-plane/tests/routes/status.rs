//! Conditions of a route at each of its parents.

use anyam_control::model::Kind;
use anyam_control::model::mesh::endpoints::EndpointsBy;
use serde_json::json;

use super::{Mesh, route};

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
    let sticky = json!({"name": "sticky", "sessionPersistence": {"idleTimeout": "1h"}, "retry": {"attempts": 50}, "backendRefs": [{"name": "web", "port": 80}]});

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
        "spec.rules[3].sessionPersistence.idleTimeout",
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

/// It has neither addresses nor endpoints in the mesh, whatever ports it declares (GEP-1294: such a
/// Service should be neither parent nor backend).
#[test]
fn an_external_name_is_neither_parent_nor_backend() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    mesh.set(
        "
apiVersion: v1
kind: Service
metadata: { name: far, namespace: shop }
spec: { type: ExternalName, externalName: api.example, ports: [{ name: http, port: 80 }] }
",
    );
    let parents = json!([
        {"group": "", "kind": "Service", "name": "far"},
        {"group": "", "kind": "Service", "name": "web", "port": 80},
    ]);
    let rules = json!([{"backendRefs": [{"name": "far", "port": 80}]}]);
    mesh.lenient("r", json!({"parentRefs": parents, "rules": rules}));
    let found = mesh.parents("r");
    let external = "Service shop/far is of type ExternalName (api.example)";
    let accepted = &found[0].1["Accepted"];
    let refused = format!("false NoMatchingParent: {external}");
    assert!(accepted.starts_with(&refused), "{accepted}");
    assert!(found[1].1["Accepted"].starts_with("true Accepted"));
    let resolved = &found[1].1["ResolvedRefs"];
    let missing = "false BackendNotFound: ";
    assert!(
        resolved.starts_with(missing) && resolved.contains(external),
        "{resolved}"
    );
}

/// Otherwise a tenant's route could forward callers of the tenant's own Service, with paths and headers
/// of its choice, to a Service in a namespace without a ReferenceGrant.
#[test]
fn a_route_with_other_parents_needs_a_grant_for_each_backend() {
    let mesh = Mesh::new(EndpointsBy::Slices);
    mesh.set(
        "
apiVersion: v1
kind: Service
metadata: { name: theirs, namespace: bank }
spec: { clusterIP: 10.0.0.9, ports: [{ name: http, port: 80 }] }
",
    );
    let theirs = json!({"group": "", "kind": "Service", "name": "theirs", "namespace": "bank"});
    let own = json!({"group": "", "kind": "Service", "name": "web"});
    let rules = json!([{"backendRefs": [{"name": "theirs", "namespace": "bank", "port": 80}]}]);
    mesh.lenient("r", json!({"parentRefs": [theirs], "rules": rules}));
    assert_eq!(
        mesh.parents("r")[0].1["ResolvedRefs"],
        "true ResolvedRefs: "
    );
    mesh.lenient("r", json!({"parentRefs": [own, theirs], "rules": rules}));
    for (name, conditions) in mesh.parents("r") {
        let resolved = &conditions["ResolvedRefs"];
        assert!(
            resolved.starts_with("false RefNotPermitted"),
            "{name}: {resolved}"
        );
    }
}
