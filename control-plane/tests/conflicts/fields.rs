//! Fields of Services that mean nothing inside a mesh, and those that are not supported.

use super::*;

#[test]
fn an_external_name_and_all_fields_of_a_service_are_accepted() {
    let mut mesh = Mesh::new();
    let outside = "apiVersion: v1\nkind: Service\nmetadata: { name: mail, namespace: shop }\nspec: { type: ExternalName, externalName: Mail.Example.com., ports: [{ port: 25 }], sessionAffinity: None }\n";
    let full = "---\napiVersion: v1\nkind: Service\nmetadata: { name: full, namespace: shop, deletionTimestamp: null }\nspec:\n  allocateLoadBalancerNodePorts: true\n  clusterIP: 10.1.0.9\n  clusterIPs: [10.1.0.9]\n  externalIPs: [203.0.113.1]\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 30123\n  internalTrafficPolicy: Cluster\n  ipFamilies: [IPv4]\n  ipFamilyPolicy: SingleStack\n  loadBalancerClass: example.com/lb\n  loadBalancerIP: 203.0.113.2\n  loadBalancerSourceRanges: [0.0.0.0/0]\n  ports: [{ appProtocol: http, name: web, nodePort: 30080, port: 80, protocol: TCP, targetPort: 8080 }]\n  publishNotReadyAddresses: false\n  selector: { app: db }\n  sessionAffinity: None\n  sessionAffinityConfig: null\n  type: LoadBalancer\nstatus: { loadBalancer: { ingress: [{ ip: 203.0.113.2 }] } }\n";
    mesh.write(
        "m.yaml",
        &format!("{outside}{full}{}", workload("db", "10.0.0.1", "")),
    );
    assert_eq!(mesh.translator.objects().file_errors, vec![]);
    assert_eq!(
        (mesh.not_met(), mesh.translator.findings()),
        (vec![], vec![])
    );
    let state = mesh.translator.state();
    let mail = state.mesh.service(&Key::new("shop", "mail")).unwrap();
    assert_eq!(
        mail.service.external_name.as_deref(),
        Some("mail.example.com")
    );
    assert!(mail.vips.is_empty() && mail.ports.is_empty());
    let name = |host: &str| state.get(type_url::NAME, host, &Scope::default());
    assert!(name("full.shop.svc.cluster.local").is_some());
    assert!(
        name("mail.shop.svc.cluster.local").is_none(),
        "asked outside"
    );

    for (bad, expected) in [
        (
            "type: ExternalName",
            "spec.externalName: is required for type ExternalName",
        ),
        (
            "type: ExternalName, externalName: 'a b'",
            "spec.externalName: `a b` is no name",
        ),
    ] {
        mesh.write(
            "m.yaml",
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: mail }}\nspec: {{ {bad} }}\n"
            ),
        );
        let errors = mesh.translator.objects().file_errors;
        let not_met = format!("{}: {}", errors[0].field, errors[0].message);
        assert!(not_met.starts_with(expected), "{not_met}");
    }
}

#[test]
fn a_service_with_fields_that_are_not_supported_is_served_and_names_them() {
    let mut mesh = Mesh::new();
    let ip = "|, clusterIP: 10.1.0.1, sessionAffinity: ClientIP, sessionAffinityConfig: { clientIP: { timeoutSeconds: 9 } }, trafficDistribution: PreferClose";
    let outside = "---\napiVersion: v1\nkind: Service\nmetadata: { name: mail, namespace: shop }\nspec: { type: ExternalName, externalName: mail.example.com, sessionAffinity: ClientIP }\n";
    let db = workload("db", "10.0.0.1", "");
    let text = format!("{}{outside}{db}", service("web", ip, "{ port: 80 }"));
    mesh.write("m.yaml", &text);
    assert_eq!(mesh.translator.objects().file_errors, vec![]);
    assert_eq!(mesh.owner("10.1.0.1"), "shop/web");
    let affinity = "spec.sessionAffinity: `ClientIP` is not supported by the mesh, and not used; supported: None";
    let timeout = "spec.sessionAffinityConfig.clientIP.timeoutSeconds: `9` is not used by the mesh: an address keeps its endpoint while the endpoints are the same";
    let distribution = "spec.trafficDistribution: `PreferClose` has no effect: it works by hints of EndpointSlices, and the Service has none";
    assert_eq!(
        mesh.not_met(),
        [
            format!("Service shop/mail: AllFields FieldLeftOut: {affinity}"),
            format!("Service shop/web: AllFields FieldLeftOut: {timeout}; {distribution}"),
        ]
    );
    // What it says is taken back with the fields.
    let text = format!(
        "{}{db}",
        service("web", "|, clusterIP: 10.1.0.1", "{ port: 80 }")
    );
    mesh.write("m.yaml", &text);
    assert_eq!(mesh.not_met(), Vec::<String>::new());
}

#[test]
fn a_traffic_policy_that_kubernetes_does_not_have_is_refused() {
    let mut mesh = Mesh::new();
    let text = |policy: &str| service("web", &format!("|, {policy}"), "{ port: 80 }");
    mesh.write("m.yaml", &text("internalTrafficPolicy: Near"));
    let errors = mesh.translator.objects().file_errors;
    assert_eq!(errors[0].field, "spec.internalTrafficPolicy", "{errors:?}");
    for good in ["Local", "Cluster"] {
        mesh.write("m.yaml", &text(&format!("internalTrafficPolicy: {good}")));
        assert_eq!(mesh.translator.objects().file_errors, vec![]);
        assert_eq!(mesh.not_met(), Vec::<String>::new());
    }
}
