//! What an ALLOW policy lets through: only what it names in every way in which an app may read it.

use super::caller::{Ask, Caller, Way};
use super::ways;
use crate::harness::Mesh;

const ALLOW: &str = "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: public-alone, namespace: shop }
spec:
  targetRefs: [{ group: mesh.anyam.dev, kind: Workload, name: app }]
  action: Allow
  rules:
    - to: [{ paths: [/public/*] }]
    - to: [{ headers: [{ name: x-role, values: [admin] }] }]
";

pub fn only_in_every_reading(mesh: &Mesh, caller: &Caller) {
    mesh.configure("allow.yaml", ALLOW);
    let roles: [&[(&str, &str)]; 5] = [
        &[],
        &[("x-role", "admin")],
        &[("x-role", "admin"), ("x-role", "other")],
        &[("x-role", "other"), ("x-role", "admin")],
        &[("x-role", "adminx")],
    ];
    for (way, version) in ways().filter(|(way, _)| *way != Way::Plain) {
        let status = |path, fields| {
            let asked = Ask {
                version,
                path,
                fields,
                ..Ask::default()
            };
            caller.ask(way, &asked).0
        };
        mesh.wait(&format!("it is in force for {way:?}"), || {
            status("/", &[]) == 403
        });
        for (path, wanted) in [
            ("/public/x", 200),
            ("/public/x;a", 200),
            ("//public/%78", 200),
            ("/public", 403),
            ("/publicx/x", 403),
            ("/public;a/x", 403),
            ("/public/..;/x", 403),
            ("/public/../x", 403),
            ("/public/%2e%2e/x", 403),
            ("/public/..\\x", 403),
            ("/public/..%2fx", 403),
            ("/x?/public/x", 403),
        ] {
            assert_eq!(status(path, &[]), wanted, "{way:?} {version:?} {path}");
        }
        let by_role = roles.map(|fields| status("/", fields));
        assert_eq!(by_role, [403, 200, 403, 403, 403], "{way:?} {version:?}");
    }
}
