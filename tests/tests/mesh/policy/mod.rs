//! What a policy was evaluated on is what the app receives, in a mesh as the control plane
//! configures it: however a request is spelled, and by whichever way it comes.
//!
//! - `caller`: calls by every way in, with `frames`; `mirror`: the app, which shows what it got; `corpus`: the
//!   fuzzer's inputs; `allowed`: an ALLOW policy

mod allowed;
mod caller;
mod corpus;
mod frames;
mod mirror;

use std::io::Read;
use std::net::Ipv4Addr;

use self::caller::{Ask, Caller, Version, Way, app};
use self::mirror::Mirror;
use crate::harness::Mesh;
use crate::manifests::{STRICT, service, workload};
use crate::process::Process;

const FRONT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const APP: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 2);

const DENY: &str = "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRefs: [{ group: mesh.anyam.dev, kind: Workload, name: app }]
  action: Deny
  rules:
    - to:
        - { paths: [/admin, /admin/*] }
        - { hosts: [admin.shop] }
        - { methods: [GET], paths: [/ws] }
        - { headers: [{ name: x-role, values: [guest] }] }
";

const WAYS: [Way; 6] = [
    Way::Plain,
    Way::Mtls,
    Way::Sidecar,
    Way::Tunnel(None),
    Way::Tunnel(Some("anyam-http%2F1.1")),
    Way::Tunnel(Some("foo, h2")),
];

/// Spellings of what the policy denies.
const DENIED: [&str; 23] = [
    "/admin",
    "/admin/x",
    "/admin?x=/y",
    "//admin",
    "///admin//x",
    "/./admin",
    "/x/../admin",
    "/%2e/admin",
    "/x/%2e%2E/admin",
    "/\\admin",
    "/x\\..\\admin",
    "/%61dmin",
    "/%61%64%6d%69%6E/x",
    "/admin;a",
    "/admin;/x",
    "/;a/admin",
    "/foo/..;/admin",
    "/foo/..;x=1/admin",
    "/x;y=1/%2e%2e/admin;z",
    "/admin%3bx",
    "/x/%2e%2e;y/admin",
    "/x/..%3b/admin",
    "/x/y/../../admin",
];
/// What could be read in two ways.
const REFUSED: [&str; 6] = [
    "/admin%2fx",
    "/x%2f..%2Fadmin",
    "/x%5c..%5Cadmin",
    "/public%2Fx",
    "/a%00b",
    "/a%2F;x",
];
/// What the app gets, and how.
const ALLOWED: [(&str, &str); 10] = [
    ("/public", "/public"),
    ("//public//a/./b", "/public/a/b"),
    ("/pub%6Cic?a=//b%2Fc", "/public?a=//b%2Fc"),
    ("/x;admin", "/x;admin"),
    ("/adminx", "/adminx"),
    ("/a%20b", "/a%20b"),
    ("/%2561dmin", "/%2561dmin"),
    ("/%%361dmin", "/%%361dmin"),
    ("/%c0%af/admin", "/%c0%af/admin"),
    ("/x?/admin", "/x?/admin"),
];

/// Dropped in this order: the app ends within its namespace, which goes with the mesh.
struct Stage {
    app: Mirror,
    caller: Caller,
    _sidecars: [Process; 2],
    mesh: Mesh,
}

fn stage() -> Stage {
    let manifests = [
        DENY,
        &service("app", "app", "240.240.9.1"),
        &workload("front", "front", FRONT),
        &workload("app", "app", APP),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let (front, host) = (mesh.host("front", FRONT), mesh.host("app", APP));
    let outside = mesh.network.add_host("outside", OUTSIDE).unwrap();
    let sidecars = [
        mesh.sidecar("front", FRONT, &front),
        mesh.sidecar("app", APP, &host),
    ];
    let mirror = Mirror::start(&host);
    let caller = Caller::new(outside, front, app(APP), &mesh.folder.join("front"));
    mesh.wait("an answer by every way", || {
        let asked = WAYS.iter().map(|way| caller.ask(*way, &Ask::default()).0);
        asked.collect::<Vec<_>>() == [200; WAYS.len()]
    });
    Stage {
        mesh,
        caller,
        app: mirror,
        _sidecars: sidecars,
    }
}

/// Every way in both versions; what goes through a tunnel is HTTP/1 here.
fn ways() -> impl Iterator<Item = (Way, Version)> {
    WAYS.into_iter().flat_map(|way| {
        let tunnel = matches!(way, Way::Tunnel(_));
        let versions = [Version::Http1, Version::Http2];
        let versions = versions
            .into_iter()
            .filter(move |it| !tunnel || *it == Version::Http1);
        versions.map(move |version| (way, version))
    })
}

#[test]
fn policy_is_evaluated_on_what_the_app_receives() {
    let Stage {
        mesh,
        caller,
        app: mirror,
        ..
    } = &stage();
    for (way, version) in ways() {
        let ask = |path| {
            caller.ask(
                way,
                &Ask {
                    version,
                    path,
                    ..Ask::default()
                },
            )
        };
        let what = |path: &str| format!("{way:?} {version:?} {path}\n{}", mesh.logs());
        for path in DENIED {
            assert_eq!(ask(path).0, 403, "{}", what(path));
        }
        for path in REFUSED {
            assert_eq!(ask(path).0, 400, "{}", what(path));
        }
        for (path, received) in ALLOWED {
            let (status, body) = ask(path);
            let line = format!("GET {received} HTTP/1.1\r\n");
            assert!(
                status == 200 && body.starts_with(&line),
                "{body} {}",
                what(path)
            );
        }
        for (host, status) in [
            ("admin.shop", 403),
            ("ADMIN.shop", 403),
            ("admin.shop.", 403),
            ("admin.shop:8080", 403),
            ("admin.shop.:80", 403),
            ("admin.shop..", 400),
            ("admin..shop", 400),
            (".admin.shop", 400),
        ] {
            let got = caller.ask(
                way,
                &Ask {
                    version,
                    host,
                    ..Ask::default()
                },
            );
            assert_eq!(got.0, status, "{}", what(host));
        }
    }
    // An absolute target, which only HTTP/1 has.
    for target in [
        "http://app.shop//admin",
        "http://app.shop/%61dmin",
        "http://admin.shop/",
    ] {
        for way in WAYS {
            let got = caller.ask(
                way,
                &Ask {
                    path: target,
                    ..Ask::default()
                },
            );
            assert_eq!(got.0, 403, "{way:?} {target}");
        }
    }
    every_value_of_a_repeated_header_is_evaluated(caller);
    corpus::no_input_bypasses_policy(mesh, caller, mirror);
    upgrades_are_gets(caller);
    forged_identities_are_removed(caller);
    escaped_slashes_are_as_the_mesh_wants(mesh, caller);
    strict_mode_cuts_plaintext(mesh, caller);
    allowed::only_in_every_reading(mesh, caller);
}

fn every_value_of_a_repeated_header_is_evaluated(caller: &Caller) {
    const GUEST: (&str, &str) = ("x-role", "guest");
    const ADMIN: (&str, &str) = ("x-role", "admin");
    let rows: [(&[(&str, &str)], u16); 6] = [
        (&[GUEST], 403),
        (&[ADMIN, GUEST], 403),
        (&[GUEST, ADMIN], 403),
        (&[ADMIN, GUEST, ADMIN], 403),
        (&[ADMIN, ADMIN], 200),
        (&[("x-role", "guests"), ("x-rolex", "guest")], 200),
    ];
    for (way, version) in ways() {
        for (fields, status) in rows {
            let asked = Ask {
                version,
                fields,
                ..Ask::default()
            };
            let got = caller.ask(way, &asked).0;
            assert_eq!(got, status, "{way:?} {version:?} {fields:?}");
        }
    }
}

fn upgrades_are_gets(caller: &Caller) {
    for way in [Way::Plain, Way::Mtls, Way::Sidecar] {
        let upgrade = Ask {
            version: Version::Http2,
            method: "CONNECT",
            path: "/%77s",
            ..Ask::default()
        };
        assert_eq!(caller.ask(way, &upgrade).0, 403, "{way:?}");
        let upgrade = Ask {
            fields: &[("Upgrade", "websocket"), ("Connection", "Upgrade")],
            path: "/ws",
            ..Ask::default()
        };
        assert_eq!(caller.ask(way, &upgrade).0, 403, "{way:?}");
    }
}

/// The caller's identity in an app's headers is the one that TLS verified.
fn forged_identities_are_removed(caller: &Caller) {
    const FORGED: &str = "By=x;URI=spiffe://anyam.local/ns/shop/sa/forged";
    for (way, version) in ways() {
        let (status, body) = caller.ask(
            way,
            &Ask {
                version,
                fields: &[
                    ("x-forwarded-client-cert", FORGED),
                    ("x_forwarded_client_cert", FORGED),
                    ("x-forwarded_client-cert", FORGED),
                    ("x-envoy-original-path", "/forged"),
                    ("x_envoy_original_path", "/forged"),
                    ("my_own", "kept"),
                ],
                ..Ask::default()
            },
        );
        assert_eq!(status, 200, "{way:?} {version:?}");
        assert!(!body.contains("forged"), "{way:?} {version:?}: {body}");
        assert!(body.contains("my_own: kept"), "{way:?} {version:?}: {body}");
        let proved = usize::from(way != Way::Plain);
        let front = "URI=spiffe://anyam.local/ns/shop/sa/front";
        assert_eq!(body.matches(front).count(), proved, "{way:?}: {body}");
    }
    // A port that is declared HTTP takes nothing else, whatever a header declares.
    let bytes = Way::Tunnel(Some("anyam-tcp"));
    assert_eq!(caller.ask(bytes, &Ask::default()).0, 404);
}

fn escaped_slashes_are_as_the_mesh_wants(mesh: &Mesh, caller: &Caller) {
    for (action, path, status) in [
        ("Keep", "/public%2Fx", 200),
        ("Keep", "/x%2f..%2fadmin", 403),
        ("Keep", "/x%2f%2f..%2fadmin", 403),
        ("Keep", "/admin%2f..;", 403),
        ("Unescape", "/x%2f..%2fadmin", 403),
        ("Unescape", "/public%2Fx", 200),
    ] {
        let policy = format!(
            "
apiVersion: mesh.anyam.dev/v1alpha1
kind: MeshPolicy
metadata: {{ name: paths, namespace: anyam-system }}
spec:
  pathNormalization: {{ escapedSlashes: {action} }}
"
        );
        mesh.configure("paths.yaml", &policy);
        let received = match action {
            "Keep" => "GET /public%2Fx ",
            _ => "GET /public/x ",
        };
        for way in WAYS {
            mesh.wait(&format!("{action} {path} by {way:?}"), || {
                let asked = Ask {
                    path,
                    ..Ask::default()
                };
                let (got, body) = caller.ask(way, &asked);
                got == status && (status != 200 || body.starts_with(received))
            });
        }
    }
}

fn strict_mode_cuts_plaintext(mesh: &Mesh, caller: &Caller) {
    let mut open = caller.keep_open();
    mesh.configure("strict.yaml", STRICT);
    let mut rest = Vec::new();
    // Its end or its reset; a time-out would be neither.
    if let Err(error) = open.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(caller.ask(Way::Mtls, &Ask::default()).0, 200);
}
