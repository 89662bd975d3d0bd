//! Apps that speak TLS themselves, to callers that do not: a BackendTLSPolicy.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyam_cli::demo::netns::Namespace;

use crate::certificates::Authority;
use crate::harness::Mesh;
use crate::traffic::{get, within};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 2);

/// Port 80 leads to an app that speaks TLS, 443 declares that, 81 leads to one that reads everything.
fn service(name: &str, vip: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  clusterIP: {vip}
  selector: {{ app: {name} }}
  ports:
    - {{ name: http, port: 80, targetPort: 8443 }}
    - {{ name: https, port: 443, targetPort: 8443 }}
    - {{ name: http-open, port: 81, targetPort: 9090 }}
"
    )
}

/// Callers use the addresses of its pods.
const HEADLESS: &str = "---
apiVersion: v1
kind: Service
metadata: { name: pods, namespace: shop }
spec: { clusterIP: None, selector: { app: outside }, ports: [{ name: http, port: 8443 }] }
";

fn workload(name: &str, address: Ipv4Addr, sidecar: bool) -> String {
    format!(
        "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: {name} }} }}
spec: {{ addresses: [{address}], serviceAccount: {name}, sidecar: {sidecar} }}
"
    )
}

fn policy(target: &str, hostname: &str, trust: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{ name: {target}, namespace: shop }}
spec:
  targetRefs: [{{ group: '', kind: Service, name: {target} }}]
  validation: {{ hostname: {hostname}, {trust} }}
"
    )
}

const BY_CONFIG_MAP: &str = "caCertificateRefs: [{ group: '', kind: ConfigMap, name: apps }]";
const BY_SYSTEM: &str = "wellKnownCACertificates: System";

const STRICT_INSIDE: &str = "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: MeshPolicy
metadata: { name: inside, namespace: shop }
spec:
  targetRefs: [{ kind: Workload, name: inside }]
  mtls: { mode: Strict }
";

fn config_map(root: &str) -> String {
    let indented: Vec<String> = root.lines().map(|line| format!("    {line}")).collect();
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: apps, namespace: shop }}\ndata:\n  ca.crt: |\n{}\n",
        indented.join("\n")
    )
}

fn status(host: &Namespace, to: &str) -> Option<u16> {
    get(host, to, "/").ok().map(|(status, _)| status)
}

#[test]
fn tls_to_the_app_is_verified_or_nothing_is_sent() {
    let authority = Authority::new("apps");
    let manifests = [
        service("outside", "240.240.9.1"),
        service("inside", "240.240.9.2"),
        HEADLESS.to_owned(),
        workload("client", CLIENT, true),
        workload("outside", OUTSIDE, false),
        workload("inside", INSIDE, true),
    ];
    let mut mesh = Mesh::start(&manifests.concat());
    let client = mesh.host("client", CLIENT);
    let outside = mesh.network.add_host("outside", OUTSIDE).unwrap();
    let inside = mesh.host("inside", INSIDE);
    let _processes = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("inside", INSIDE, &inside),
        authority.serve(&mesh, "outside", OUTSIDE, &outside),
        authority.serve(&mesh, "inside", INSIDE, &inside),
    ];
    let open = within(&outside, || TcpListener::bind((OUTSIDE, 9090)).unwrap());
    open.set_nonblocking(true).unwrap();
    let configure = |policies: &[String], maps: &str| {
        mesh.configure("tls.yaml", &format!("{}{maps}", policies.concat()));
    };
    let map = config_map(&authority.root);
    let good = [
        policy("outside", "outside.example", BY_CONFIG_MAP),
        policy("inside", "inside.example", BY_CONFIG_MAP),
        policy("pods", "outside.example", BY_CONFIG_MAP),
    ];

    // Without its CA: nothing is sent, and the error names the policy.
    configure(&good, "");
    let said = "BackendTLSPolicy shop/outside has no valid CA certificate";
    let refused = |to: &str| {
        let answer = get(&client, to, "/");
        answer.is_ok_and(|(status, body)| status == 503 && body.contains(said))
    };
    mesh.wait(said, || refused("240.240.9.1:80"));
    assert!(refused("240.240.9.1:81"));
    let nothing = open.accept().map(|_| ()).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    let check = mesh.cli(&["check"]);
    assert!(check.contains("there is no ConfigMap shop/apps"), "{check}");

    configure(&good, &map);
    // The endpoint with a sidecar gets the app's TLS too: it passes it on unopened.
    let pod = format!("{OUTSIDE}:8443");
    for to in ["240.240.9.1:80", "240.240.9.2:80", "240.240.9.1:443", &pod] {
        mesh.wait(to, || status(&client, to) == Some(200));
    }
    callers_tls_passes(&mesh, &client);

    for (what, hostname, trust) in [
        ("another name", "other.example", BY_CONFIG_MAP),
        ("another root", "outside.example", BY_SYSTEM),
    ] {
        configure(&[policy("outside", hostname, trust)], &map);
        mesh.wait(what, || status(&client, "240.240.9.1:80") == Some(503));
        configure(&good, &map);
        mesh.wait("the good one", || {
            status(&client, "240.240.9.1:80") == Some(200)
        });
    }

    // A sidecar that accepts mTLS alone refuses the app's TLS.
    configure(&good, &format!("{map}{STRICT_INSIDE}"));
    mesh.wait("mTLS alone", || {
        status(&client, "240.240.9.2:80") == Some(503)
    });
    let check = mesh.cli(&["check"]);
    assert!(
        check.contains("these sidecars refuse it: shop/inside port 8443"),
        "{check}"
    );
    assert_eq!(status(&client, "240.240.9.1:80"), Some(200));
}

/// A caller that speaks TLS itself to the port that declares it.
fn callers_tls_passes(mesh: &Mesh, client: &Namespace) {
    let arguments = [
        "s_client",
        "-connect",
        "240.240.9.1:443",
        "-servername",
        "outside.example",
        "-brief",
    ];
    let output = mesh.output(client, Path::new("openssl"), &arguments);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        text.contains("Peer certificate: CN"),
        "{text}\n{}",
        mesh.logs()
    );
}
