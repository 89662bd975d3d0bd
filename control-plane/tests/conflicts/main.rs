//! Manifests that contradict each other: which stays in service, and that it is reported.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::net::IpAddr;

use anyam_control::ads::resources::{Scope, Touched, View};
use anyam_control::api::Declared;
use anyam_control::model::manifest::service::AppProtocol;
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::vip::Vips;
use anyam_control::model::{Key, MeshOptions};
use anyam_control::source::files::Folder;
use anyam_control::translate::Translator;
use anyam_control::types::Severity;
use xds_proto::type_url;

mod fields;
mod selectors;

struct Mesh {
    root: tempfile::TempDir,
    folder: Folder,
    translator: Translator,
}

impl Mesh {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let vips = Vips::load(&root.path().join("vips")).unwrap();
        Mesh {
            folder: Folder::new(root.path()),
            translator: Translator::new(Builder::new(MeshOptions::default(), vips)),
            root,
        }
    }

    fn write(&mut self, file: &str, text: &str) {
        std::fs::write(self.root.path().join(file), text).unwrap();
        self.translator.apply(self.folder.changes());
    }

    /// `Service shop/a: ProtocolsAgree: …` of everything that is not as it should be.
    fn not_met(&self) -> Vec<String> {
        let objects = self.translator.objects();
        let mut not_met = Vec::new();
        for object in &objects.objects {
            for condition in object.conditions.iter().filter(|it| !it.status) {
                not_met.push(format!(
                    "{} {}/{}: {} {}: {}",
                    object.kind,
                    object.namespace,
                    object.name,
                    condition.kind,
                    condition.reason,
                    condition.message
                ));
            }
        }
        not_met
    }

    fn owner(&self, ip: &str) -> String {
        let state = self.translator.state();
        let held = state.mesh.by_vip.get(&ip.parse::<IpAddr>().unwrap());
        held.unwrap().to_string()
    }

    fn port(&self, workload: &str, port: u16) -> AppProtocol {
        let state = self.translator.state();
        state.mesh.workload("shop", workload).unwrap().ports[&port]
    }
}

fn service(name: &str, extra: &str, ports: &str) -> String {
    let (meta, spec) = extra.split_once('|').unwrap_or((extra, ""));
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop{meta} }}\nspec: {{ selector: {{ app: db }}{spec}, ports: [{ports}] }}\n"
    )
}

fn workload(name: &str, address: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: mesh.anyam.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: {name}, namespace: shop, labels: {{ app: db }} }}\nspec: {{ addresses: [{address}], ports: [{ports}] }}\n"
    )
}

const OLD: &str = ", creationTimestamp: '2020-01-01T00:00:00Z'";
const NEW: &str = ", creationTimestamp: '2024-01-01T00:00:00Z'";

#[test]
fn an_address_stays_with_the_older_service_and_with_the_one_that_has_it() {
    let ip = "|, clusterIP: 10.1.0.1";
    let port = "{ port: 80 }";
    let mut mesh = Mesh::new();
    mesh.write("m.yaml", &service("zebra", ip, port));
    assert_eq!(mesh.owner("10.1.0.1"), "shop/zebra");
    // A service whose name comes first is added later: live traffic goes on.
    mesh.write("a.yaml", &service("ant", ip, port));
    assert_eq!(mesh.owner("10.1.0.1"), "shop/zebra");
    let not_met = mesh.not_met();
    assert_eq!(
        not_met,
        [
            "Service shop/ant: Accepted AddressConflict: 10.1.0.1 is already the address of Service shop/zebra"
        ]
    );
    // The oldest holds the address, whatever its name.
    mesh.write("a.yaml", &service("ant", &format!("{OLD}{ip}"), port));
    assert_eq!(mesh.owner("10.1.0.1"), "shop/ant");
    mesh.write("m.yaml", &service("zebra", &format!("{NEW}{ip}"), port));
    assert_eq!(mesh.owner("10.1.0.1"), "shop/ant");
    std::fs::remove_file(mesh.root.path().join("a.yaml")).unwrap();
    let before = mesh.translator.state().generation;
    mesh.write("n.yaml", "# nothing\n");
    assert_eq!(mesh.owner("10.1.0.1"), "shop/zebra");
    // Service ant changed, and the address is zebra's again: its DNS name is announced.
    match mesh.translator.state().touched_since(before) {
        Touched::Some(marks) => {
            let zebra = "zebra.shop.svc.cluster.local";
            assert!(marks.names.contains(type_url::NAME, zebra));
        }
        Touched::All => panic!("more than the two services was announced"),
    }
    assert!(mesh.not_met().is_empty());
}

#[test]
fn a_second_declaration_of_a_service_takes_nothing_over() {
    let mut mesh = Mesh::new();
    mesh.write(
        "m.yaml",
        &service("web", "|, clusterIP: 10.1.0.1", "{ port: 80 }"),
    );
    mesh.write(
        "a.yaml",
        &service("web", "|, clusterIP: 10.1.0.2", "{ port: 81 }"),
    );
    assert_eq!(mesh.owner("10.1.0.1"), "shop/web");
    assert_eq!(
        mesh.not_met(),
        ["Service shop/web: Unique Duplicate: a.yaml:2 declares it too and is not used"]
    );
    let errors = mesh.translator.objects().file_errors;
    assert_eq!((errors.len(), errors[0].file.as_str()), (1, "a.yaml"));
    assert!(
        errors[0]
            .message
            .contains("in m.yaml:2 too, which is in service"),
        "{errors:?}"
    );
}

#[test]
fn services_that_contradict_each_other_do_not_break_one_another() {
    let mut mesh = Mesh::new();
    let db = workload("db", "10.0.0.1", "");
    let mysql = service("orders", "", "{ name: mysql, port: 3306 }");
    mesh.write("m.yaml", &format!("{db}{mysql}"));
    assert_eq!(mesh.port("db", 3306), AppProtocol::Tcp);
    for (name, says) in [("admin", "http-db"), ("zoo", "grpc-db")] {
        let wrong = service(name, "", &format!("{{ name: {says}, port: 3306 }}"));
        mesh.write("m.yaml", &format!("{db}{mysql}{wrong}"));
        assert_eq!(
            mesh.port("db", 3306),
            AppProtocol::Undeclared,
            "found out per connection"
        );
        let not_met = mesh.not_met();
        assert_eq!(not_met.len(), 2, "{not_met:?}");
        let by = |of: &str| not_met.iter().find(|it| it.starts_with(of)).unwrap();
        let other = by(&format!(
            "Service shop/{name}: ProtocolsAgree ProtocolConflict"
        ));
        assert!(
            other.contains(&format!("port `{says}` (3306) says")),
            "{other}"
        );
        assert!(
            other.contains("Service shop/orders says TCP by its port `mysql` (3306)"),
            "{other}"
        );
        by("Service shop/orders: ProtocolsAgree");
    }
    // A Service that declares no protocol contradicts no other, in either order.
    for name in ["admin", "zoo"] {
        let silent = service(name, "", "{ name: db, port: 3306 }");
        mesh.write("m.yaml", &format!("{db}{silent}{mysql}"));
        assert_eq!(
            (mesh.port("db", 3306), mesh.not_met()),
            (AppProtocol::Tcp, vec![])
        );
    }
    // The workload's own declaration has precedence.
    let own = workload(
        "db",
        "10.0.0.1",
        "{ name: mysql, port: 3306, appProtocol: mysql }",
    );
    let wrong = service("admin", "", "{ name: http-db, port: 3306 }");
    mesh.write("m.yaml", &format!("{own}{mysql}{wrong}"));
    assert_eq!(mesh.port("db", 3306), AppProtocol::Tcp);
    let not_met = mesh.not_met();
    assert_eq!(not_met.len(), 1, "{not_met:?}");
    assert!(not_met[0].contains("Workload shop/db says TCP of its port 3306, and that holds"));
}

#[test]
fn tls_and_tcp_agree_and_443_in_plaintext_is_reported() {
    let mut mesh = Mesh::new();
    let db = workload("db", "10.0.0.1", "");
    let tls = service("secure", "", "{ name: https, port: 443, targetPort: 8443 }");
    let bytes = service("bytes", "", "{ name: tcp, port: 8443 }");
    mesh.write("m.yaml", &format!("{db}{tls}"));
    assert_eq!(mesh.port("db", 8443), AppProtocol::Tls);
    mesh.write("m.yaml", &format!("{db}{bytes}{tls}"));
    assert!(mesh.port("db", 8443).is_opaque());
    assert!(mesh.not_met().is_empty(), "{:?}", mesh.not_met());
    for (name, says) in [
        ("http", "HTTP/1.1"),
        ("grpc-web", "HTTP/1.1"),
        ("h2c", "HTTP/2"),
    ] {
        let plain = service("plain", "", &format!("{{ name: {name}, port: 443 }}"));
        mesh.write("m.yaml", &format!("{db}{plain}"));
        let not_met = mesh.not_met();
        let expected = format!(
            "Service shop/plain: ProtocolsAgree PlaintextOn443: port `{name}` (443) says {says}, but"
        );
        assert!(
            not_met.len() == 1 && not_met[0].starts_with(&expected),
            "{not_met:?}"
        );
    }
}

#[test]
fn a_target_that_no_workload_has_is_reported() {
    let mut mesh = Mesh::new();
    let db = workload("db", "10.0.0.1", "{ name: sql, port: 3306 }");
    let port = |target: &str| format!("{{ name: tcp, port: 80, targetPort: {target} }}");
    for (target, expected) in [
        ("sql", None),
        ("3306", None),
        (
            "web",
            Some(
                "port `tcp` (80): no workload has a port named `web`, so calls answer 503; shop/db has sql 3306",
            ),
        ),
        (
            "8080",
            Some("port `tcp` (80): no workload declares a port 8080; shop/db has sql 3306"),
        ),
    ] {
        mesh.write(
            "m.yaml",
            &format!("{db}{}", service("a", "", &port(target))),
        );
        let expected =
            expected.map(|it| format!("Service shop/a: TargetPortsFound NoSuchPort: {it}"));
        assert_eq!(mesh.not_met(), Vec::from_iter(expected), "{target}");
    }
    // One of several has it; a workload that declares nothing may listen on any number.
    let more = workload("db2", "10.0.0.2", "{ name: web, port: 80 }");
    mesh.write(
        "m.yaml",
        &format!("{db}{more}{}", service("a", "", &port("web"))),
    );
    assert!(mesh.not_met().is_empty());
    let silent = workload("db", "10.0.0.1", "");
    mesh.write(
        "m.yaml",
        &format!("{silent}{}", service("a", "", &port("8080"))),
    );
    assert!(mesh.not_met().is_empty());
}

#[test]
fn an_allow_for_a_service_says_which_ports_it_leaves_open() {
    let mut mesh = Mesh::new();
    let db = workload(
        "db",
        "10.0.0.1",
        "{ name: a, port: 80 }, { name: b, port: 9090 }",
    );
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: mesh.anyam.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ {spec} }}\n"
        )
    };
    let of_service = |action: &str| {
        policy(
            "only",
            &format!(
                "targetRefs: [{{ group: '', kind: Service, name: a }}], action: {action}, rules: [{{}}]"
            ),
        )
    };
    let ports = "{ name: http, port: 80 }";
    let findings = |mesh: &Mesh, severity: Severity| {
        let all = mesh.translator.findings().into_iter();
        let about = all.filter(|it| it.what.contains("AuthorizationPolicy"));
        let about = about.filter(|it| it.severity == severity);
        about.map(|it| it.what).collect::<Vec<_>>()
    };
    let undeclared = "AuthorizationPolicy shop/only covers the ports that its Service lists; undeclared ports stay open to every caller, should the app listen on any: shop/db";
    let text = |policies: &str, ports: &str| format!("{db}{}{policies}", service("a", "", ports));
    mesh.write("m.yaml", &text(&of_service("Allow"), ports));
    assert_eq!(
        findings(&mesh, Severity::Warning),
        [
            "AuthorizationPolicy shop/only covers the ports that its Service lists; other ports of the same workloads stay open to every caller: shop/db (9090)"
        ]
    );
    assert_eq!(findings(&mesh, Severity::Info), [undeclared]);
    let at = |port| {
        mesh.translator
            .uncovered(([10, 0, 0, 1], port).into())
            .len()
    };
    assert_eq!((at(80), at(9090), at(1234)), (0, 1, 1));

    // All declared ports are covered, and others can't be.
    let both = "{ name: http, port: 80 }, { name: more, port: 9090 }";
    mesh.write("m.yaml", &text(&of_service("Allow"), both));
    assert_eq!(findings(&mesh, Severity::Warning), Vec::<String>::new());
    assert_eq!(findings(&mesh, Severity::Info), [undeclared]);

    for closed in [
        text(&of_service("Deny"), ports),
        text(
            &format!("{}{}", of_service("Allow"), policy("all", "rules: [{}]")),
            ports,
        ),
        text(
            &format!(
                "{}{}",
                of_service("Allow"),
                policy(
                    "all",
                    "targetRefs: [{ kind: Workload, group: mesh.anyam.dev, name: db }]"
                )
            ),
            ports,
        ),
    ] {
        mesh.write("m.yaml", &closed);
        for severity in [Severity::Warning, Severity::Info] {
            assert_eq!(findings(&mesh, severity), Vec::<String>::new(), "{closed}");
        }
    }
}
