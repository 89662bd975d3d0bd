//! The kubelet's probes of an app under strict mTLS: the sidecar performs them at its status port,
//! and does not use its inbound listener for them.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::harness::Mesh;
use crate::manifests::{STRICT, service, workload};
use crate::traffic::get;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const STATUS: &str = "10.77.2.2:15020";
const APP: &str = "10.77.2.2:8080";

#[test]
fn an_app_under_strict_mtls_is_probed_by_its_sidecar() {
    let manifests = [
        STRICT,
        &service("cart", "cart", "240.240.9.1"),
        &workload("server", "cart", SERVER),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let server = mesh.host_with("server", SERVER, &["--open-ports", "15020,15021,15090"]);
    let probes = json!([
        {"name": "cart/livez", "httpGet": {"port": 8080, "path": "/"}, "timeoutSeconds": 5},
        {"name": "cart/readyz", "tcpSocket": {"port": 8080}, "timeoutSeconds": 5},
    ]);
    let probes = probes.to_string();
    let metrics = json!({"port": 8080}).to_string();
    let arguments = [
        "--status-port",
        "15020",
        "--app-probes",
        &probes,
        "--app-metrics",
        &metrics,
    ];
    let _sidecar = mesh.sidecar_with("server", SERVER.into(), &server, &arguments);
    // Called as by the kubelet: from outside of the mesh, without a certificate.
    let probe = |name: &str| {
        get(
            &mesh.control_host,
            STATUS,
            &format!("/app-health/cart/{name}"),
        )
    };
    for name in ["livez", "readyz"] {
        let (status, said) = probe(name).unwrap();
        assert_eq!(status, 503, "{said}");
        assert!(said.contains("refused"), "{said}");
    }
    let _cart = mesh.cart("v1", SERVER, &server);
    for name in ["livez", "readyz"] {
        mesh.wait(name, || probe(name).is_ok_and(|(status, _)| status == 200));
    }
    // The app itself cannot be reached without mTLS.
    assert!(get(&mesh.control_host, APP, "/").is_err());
    let (status, metrics) = get(&mesh.control_host, STATUS, "/stats/prometheus").unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("anyam_app_probes_total{probe=\"cart/livez\",result=\"success\"}"));
}
