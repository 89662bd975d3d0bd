//! Policies for workloads by labels: which holds, and what the others' status says.

use anyam_control::model::manifest::policy::{LogFormat, MtlsMode};

use super::*;

fn policy(kind: &str, name: &str, created: u16, spec: &str) -> String {
    format!(
        "---\napiVersion: mesh.anyam.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name}, namespace: shop, creationTimestamp: '{created}-01-01T00:00:00Z' }}\nspec: {{ {spec} }}\n"
    )
}

fn labelled(name: &str, host: u8, labels: &str) -> String {
    let declared = workload(name, &format!("10.0.0.{host}"), "");
    declared.replace("{ app: db }", labels)
}

fn mode(mesh: &Mesh, workload: &str) -> MtlsMode {
    mesh.translator.state().mesh.mtls("shop", workload, 80)
}

const DB: &str = "selector: { matchLabels: { app: db } }, mtls: { mode: Strict }";

#[test]
fn a_policy_by_labels_comes_between_one_by_name_and_its_namespaces() {
    let mut mesh = Mesh::new();
    let workloads = [
        labelled("db-1", 1, "{ app: db }"),
        labelled("db-2", 2, "{ app: db, tier: back }"),
        labelled("web", 3, "{ app: web }"),
    ];
    let namespace = policy(
        "MeshPolicy",
        "all",
        2020,
        "mtls: { mode: Disabled }, accessLog: { format: Off }",
    );
    let by_labels = policy("MeshPolicy", "db", 2021, DB);
    mesh.write("w.yaml", &workloads.join(""));
    mesh.write("p.yaml", &format!("{namespace}{by_labels}"));
    let modes = |mesh: &Mesh| ["db-1", "db-2", "web"].map(|name| mode(mesh, name));
    use MtlsMode::{Disabled, Permissive, Strict};
    assert_eq!(modes(&mesh), [Strict, Strict, Disabled]);
    // Field by field: it sets no access log.
    let state = mesh.translator.state();
    assert_eq!(state.mesh.access_log("shop", "db-1"), LogFormat::Off);
    assert_eq!(mesh.not_met(), [""; 0]);

    // By name and by labels are equals: the oldest holds, for what both are for.
    let name = "targetRefs: [{ kind: Workload, name: db-2 }], mtls: { mode: Permissive }";
    for (created, mode, loser) in [
        (
            2022,
            Strict,
            "MeshPolicy shop/one: Accepted Conflicted: MeshPolicy shop/db holds already",
        ),
        (
            2019,
            Permissive,
            "MeshPolicy shop/db: Accepted Conflicted: MeshPolicy shop/one holds for Workload shop/db-2 already",
        ),
    ] {
        let by_name = policy("MeshPolicy", "one", created, name);
        mesh.write("p.yaml", &format!("{namespace}{by_labels}{by_name}"));
        assert_eq!(modes(&mesh), [Strict, mode, Disabled], "{created}");
        assert_eq!(mesh.not_met(), [loser]);
    }
    // Two selectors meet where a workload has the labels of both.
    let back = "selector: { matchLabels: { tier: back } }, mtls: { mode: Permissive }";
    let back = policy("MeshPolicy", "back", 2019, back);
    mesh.write("p.yaml", &format!("{namespace}{by_labels}{back}"));
    assert_eq!(modes(&mesh), [Strict, Permissive, Disabled]);
    let conflict = "MeshPolicy shop/db: Accepted Conflicted: MeshPolicy shop/back holds for Workload shop/db-2 already";
    assert_eq!(mesh.not_met(), [conflict]);

    // A workload whose labels change comes under the other policies.
    let changed = workloads.join("").replace("{ app: web }", "{ app: db }");
    let changed = changed.replace(", tier: back", "");
    mesh.write("w.yaml", &changed);
    assert_eq!(modes(&mesh), [Strict, Strict, Strict]);
    assert_eq!(mesh.not_met(), [""; 0]);
    mesh.write("p.yaml", &namespace);
    assert_eq!(modes(&mesh), [Disabled; 3]);
}

#[test]
fn a_selector_that_no_workload_has_is_accepted_and_says_so() {
    let mut mesh = Mesh::new();
    mesh.write("p.yaml", &policy("MeshPolicy", "db", 2020, DB));
    let accepted = |mesh: &Mesh| {
        let objects = mesh.translator.objects().objects;
        let policy = objects.iter().find(|it| it.kind == "MeshPolicy").unwrap();
        let condition = &policy.conditions[0];
        assert!(condition.status, "{condition:?}");
        condition.message.clone()
    };
    assert!(accepted(&mesh).contains("no workload has the labels"));
    mesh.write("w.yaml", &labelled("db-1", 1, "{ app: db }"));
    assert_eq!(accepted(&mesh), "");
}

#[test]
fn authorization_by_labels_closes_all_ports_of_the_workloads_that_have_them() {
    let mut mesh = Mesh::new();
    let allow =
        "selector: { matchLabels: { app: db } }, rules: [{ from: [{ namespaces: [shop] }] }]";
    mesh.write("p.yaml", &policy("AuthorizationPolicy", "db", 2020, allow));
    let policies = |mesh: &Mesh, workload: &str| {
        let state = mesh.translator.state();
        let entry = state.mesh.workload("shop", workload).unwrap();
        let ports = [Some(80), None];
        ports.map(|port| state.mesh.authorization_for(entry, port).len())
    };
    mesh.write("w.yaml", &labelled("db-1", 1, "{ app: db }"));
    mesh.write("v.yaml", &labelled("web", 2, "{ app: web }"));
    assert_eq!(policies(&mesh, "db-1"), [1, 1]);
    assert_eq!(policies(&mesh, "web"), [0, 0]);
    // Its proxy's listener, and no other's, changes with the labels.
    let before = mesh.translator.state().generation;
    mesh.write("v.yaml", &labelled("web", 2, "{ app: db }"));
    assert_eq!(policies(&mesh, "web"), [1, 1]);
    let Touched::Some(marks) = mesh.translator.state().touched_since(before) else {
        panic!("one workload changed");
    };
    let nodes: Vec<String> = marks.nodes.keys().map(ToString::to_string).collect();
    assert_eq!(nodes, ["shop/web"]);
    assert!(mesh.not_met().is_empty());
}
