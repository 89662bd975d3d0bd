//! `internalTrafficPolicy: Local`: callers reach the endpoints on their own node, as an agent of each
//! node's pods.

use std::collections::BTreeSet;

use anyam_control::ads::resources::{Scope, View};
use xds_proto::type_url;

use super::{Mesh, WEB, of, pod, slice};

fn on(name: &str, ip: &str, node: &str) -> String {
    let place = format!("[{ip}], node: {node} }}");
    pod(name, ip).replace(&format!("[{ip}] }}"), &place)
}

#[test]
fn callers_reach_endpoints_on_their_own_node_only() {
    let mesh = Mesh::new();
    let local = WEB.replace("ports:", "internalTrafficPolicy: Local, ports:");
    mesh.set(&local);
    for (name, ip, node) in [
        ("web-1", "10.0.0.1", "n1"),
        ("web-2", "10.0.0.2", "n2"),
        ("near", "10.0.0.3", "n1"),
        ("far", "10.0.0.4", "n2"),
        ("lonely", "10.0.0.5", "n3"),
    ] {
        mesh.set(&on(name, ip, node));
    }
    let endpoints = |caller: &str| {
        let scope = Scope {
            namespace: "shop".into(),
            workload: caller.into(),
            anyam: true,
            ..Scope::default()
        };
        let name = "outbound|80|tcp|web.shop.svc.cluster.local";
        let made = mesh
            .0
            .state()
            .get(type_url::ENDPOINT, name, &scope)
            .unwrap();
        let text = String::from_utf8_lossy(&made.body).into_owned();
        let known = ["10.0.0.1", "10.0.0.2"].into_iter();
        known
            .filter(|ip| text.contains(ip))
            .collect::<BTreeSet<_>>()
    };
    let expect = |caller: &str, expected: &[&str]| {
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        assert_eq!(endpoints(caller), expected, "{caller}");
    };
    mesh.set(&slice(
        &[of("web-1", "10.0.0.1"), of("web-2", "10.0.0.2")].join(", "),
    ));
    expect("near", &["10.0.0.1"]);
    expect("far", &["10.0.0.2"]);
    expect("lonely", &[]);
    // One whose node is not known has no node of its own.
    expect("unknown", &[]);
    // A pod that runs elsewhere now.
    mesh.set(&on("lonely", "10.0.0.5", "n2"));
    expect("lonely", &["10.0.0.2"]);
    // The node in the slice counts first.
    let moved = of("web-2", "10.0.0.2").replace("addresses:", "nodeName: n1, addresses:");
    mesh.set(&slice(&[of("web-1", "10.0.0.1"), moved].join(", ")));
    expect("near", &["10.0.0.1", "10.0.0.2"]);
    expect("far", &[]);
    mesh.set(WEB);
    expect("far", &["10.0.0.1", "10.0.0.2"]);
}
