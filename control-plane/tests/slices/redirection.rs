//! Ports and callers that bypass a pod's sidecar are called in plaintext.

use anyam_control::ads::resources::{Scope, View};
use anyam_control::model::manifest::values::Cidr;
use xds_proto::type_url;

use super::{Mesh, WEB, of, pod, slice};

#[test]
fn a_port_that_is_not_redirected_to_the_sidecar_is_called_without_mtls() {
    let mesh = Mesh::new();
    mesh.set(WEB);
    mesh.set(&slice(&of("web-1", "10.0.0.1")));
    let offers_mtls = |kind: &str, name: &str| {
        let made = mesh.own(kind, name).unwrap();
        made.contains("envoy.transport_socket_match")
    };
    let service = "outbound|80|tcp|web.shop.svc.cluster.local";
    for (exclude, expected) in [
        (vec![], true),
        (vec![8080..=8080], false),
        (vec![1..=80], true),
    ] {
        mesh.set_as(&pod("web-1", "10.0.0.1"), |it| {
            it.pod = true;
            it.redirected.exclude_ports = exclude.clone();
        });
        assert_eq!(offers_mtls(type_url::ENDPOINT, service), expected);
    }
    // The sidecar's own ports, which are never redirected.
    mesh.set(&pod("web-1", "10.0.0.1"));
    let address = |port: u16| format!("outbound|{port}|tcp|10.0.0.1");
    assert!(offers_mtls(type_url::CLUSTER, &address(7000)));
    assert!(!offers_mtls(type_url::CLUSTER, &address(15090)));
}

/// A caller whose connections are not redirected there would send a ClientHello to the app.
#[test]
fn a_caller_whose_address_is_not_redirected_uses_no_mtls() {
    let mesh = Mesh::new();
    mesh.set(WEB);
    mesh.set(&slice(&of("web-1", "10.0.0.1")));
    mesh.set(&pod("near", "10.0.0.2"));
    mesh.set(&pod("far", "10.7.0.2"));
    let ranges = |list: &[&str]| -> Vec<Cidr> {
        let all = list.iter().map(|range| range.parse().unwrap());
        all.collect()
    };
    let offers_mtls = |caller: &str| {
        let scope = Scope {
            namespace: "shop".into(),
            workload: caller.into(),
            anyam: true,
            ..Scope::default()
        };
        let offered = [
            (
                type_url::ENDPOINT,
                "outbound|80|tcp|web.shop.svc.cluster.local",
            ),
            (type_url::CLUSTER, "outbound|7000|tcp|10.0.0.1"),
        ]
        .map(|(kind, name)| {
            let made = mesh.0.state().get(kind, name, &scope).unwrap();
            String::from_utf8_lossy(&made.body).contains("envoy.transport_socket_match")
        });
        assert_eq!(offered[0], offered[1], "by service and by address");
        offered[0]
    };
    // With the first declaration kept in between: a change must reach what was made before.
    for (include, exclude, near, far) in [
        (&[][..], &[][..], true, true),
        (&[], &["10.7.0.0/16"], true, false),
        (&["10.7.0.0/16"], &[], false, true),
        (&["10.0.0.0/8"], &["10.0.0.2"], false, true),
        (&[], &["fd00::/8"], true, true),
        // Of one family only: none of the other.
        (&["fd00::/8"], &[], false, false),
    ] {
        mesh.set_as(&pod("web-1", "10.0.0.1"), |it| {
            it.pod = true;
            it.redirected.include_sources = ranges(include);
            it.redirected.exclude_sources = ranges(exclude);
        });
        let found = (offers_mtls("near"), offers_mtls("far"));
        assert_eq!(found, (near, far), "{include:?} {exclude:?}");
    }
    // One that the mesh does not know is taken to be redirected.
    assert!(offers_mtls("unknown"));
}

#[test]
fn ipv6_that_is_not_redirected_is_called_without_mtls() {
    let mesh = Mesh::new();
    let pod = pod("web-1", "10.0.0.1, 'fd00::1'");
    let offers_mtls = |name: &str| {
        let made = mesh.own(type_url::CLUSTER, name).unwrap();
        made.contains("envoy.transport_socket_match")
    };
    for ipv6 in [true, false] {
        mesh.set_as(&pod, |it| {
            it.pod = true;
            it.redirected.ipv6 = ipv6;
        });
        assert!(offers_mtls("outbound|7000|tcp|10.0.0.1"));
        assert_eq!(offers_mtls("outbound|7000|tcp|fd00::1"), ipv6);
    }
}
