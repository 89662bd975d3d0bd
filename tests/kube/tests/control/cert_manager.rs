//! A root of one's own by cert-manager: its real controllers issue the intermediate that signs, into
//! the Secret that the control plane reads, and renew it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use anyam_tests_kube::{Bench, Kubectl, PodHost, PodNetwork, component, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::harness::{NAMESPACE, TIMEOUT};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const PORT: u16 = 8080;
/// Seconds; certificates are renewed in that time, several times in a test.
const TTL: [&str; 2] = ["--certificate-ttl-s", "12"];

/// cert-manager's controllers, ended on drop.
struct CertManager {
    child: Child,
}

impl CertManager {
    fn start(bench: &Bench) -> Self {
        let crds = component("cert-manager", "crds");
        let crds = crds.to_string_lossy();
        bench
            .server
            .kubectl(&["apply", "--server-side", "-f", &crds]);
        let established = "--for=condition=Established";
        bench
            .server
            .kubectl(&["wait", established, "--timeout=30s", "-f", &crds]);
        bench
            .server
            .kubectl(&["create", "namespace", "cert-manager"]);
        let log = File::create(bench.path("cert-manager.log")).unwrap();
        let child = Command::new(component("cert-manager", "cert-manager"))
            .arg(bench.server.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        CertManager { child }
    }
}

impl Drop for CertManager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Certificate that is a CA, in a Secret of this name.
fn authority(namespace: &str, name: &str, secret: &str, issuer: &str) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "isCA": true, "commonName": name, "secretName": secret, "duration": "24h",
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"kind": "ClusterIssuer", "name": issuer},
        },
    })
}

fn issuer(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
        "metadata": {"name": name}, "spec": spec,
    })
}

fn apply(bench: &Bench, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    bench
        .server
        .kubectl_with(&list.to_string(), &["apply", "-f", "-"]);
}

/// A key of the Secret `anyam-ca`, once it is another than `before`.
async fn secret(bench: &Bench, key: &str, before: &str) -> String {
    until(&format!("{key} of cert-manager"), TIMEOUT, async || {
        let get = ["get", "secret", "anyam-ca", "--namespace", NAMESPACE];
        let found = bench
            .server
            .try_kubectl(&[&get[..], &["--output=json"]].concat());
        let log = || std::fs::read_to_string(bench.path("cert-manager.log")).unwrap();
        let secret: Value = serde_json::from_str(&found.stdout).map_err(|_| log())?;
        let value = secret["data"][key].as_str().ok_or_else(log)?;
        let value = String::from_utf8(STANDARD.decode(value).unwrap()).unwrap();
        match value.is_empty() || value == before {
            true => Err(log()),
            false => Ok(value),
        }
    })
    .await
}

/// As `cmctl renew` does it.
async fn renew(bench: &Bench) {
    until("the renewal to be asked for", TIMEOUT, async || {
        let get = ["get", "certificate", "mesh", "--namespace", NAMESPACE];
        let certificate = bench
            .server
            .kubectl(&[&get[..], &["--output=json"]].concat());
        let mut certificate: Value = serde_json::from_str(&certificate).unwrap();
        let conditions = certificate["status"]["conditions"].as_array_mut().unwrap();
        conditions.retain(|condition| condition["type"] != "Issuing");
        conditions.push(json!({
            "type": "Issuing", "status": "True", "reason": "ManuallyTriggered",
            "message": "Certificate re-issuance manually triggered",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }));
        let replace = ["replace", "--subresource=status", "-f", "-"];
        let certificate = certificate.to_string();
        // It conflicts with what a controller writes at the same time.
        let replaced = bench.server.try_kubectl_with(&certificate, &replace);
        match replaced.status {
            Some(0) => Ok(()),
            _ => Err(replaced.stderr),
        }
    })
    .await;
}

/// Waits until a pod's certificate is issued below this one.
async fn is_below(pod: &PodHost, intermediate: &str) {
    until("a certificate of the new key", TIMEOUT, async || match pod
        .certificate_chain()
        .ends_with(intermediate)
    {
        true => Ok(()),
        false => Err(pod.log()),
    })
    .await;
}

#[tokio::test]
async fn an_intermediate_of_cert_manager_signs_and_is_renewed_without_loss() {
    let mut network = PodNetwork::enter();
    let bench = Bench::start_at(PodNetwork::CONTROL);
    bench.namespace("shop", &["web", "cart"]);
    let _manager = CertManager::start(&bench);
    apply(
        &bench,
        &[
            issuer("self", json!({"selfSigned": {}})),
            authority("cert-manager", "root", "root-ca", "self"),
            issuer("root", json!({"ca": {"secretName": "root-ca"}})),
            authority(NAMESPACE, "mesh", "anyam-ca", "root"),
        ],
    );
    let first = secret(&bench, "tls.crt", "").await;
    let root = secret(&bench, "ca.crt", "").await;
    assert_ne!(first, root);

    let control = bench.control("control-0", &[]).await;
    assert!(!control.log().contains("made the mesh's root"));
    assert_eq!(bench.root("shop").await, root);
    let joins = (control.xds().await, &*root);
    let client = network
        .pod(&bench, ("web-0", "web"), CLIENT, joins, &TTL)
        .await;
    let server = network
        .pod(&bench, ("cart-0", "cart"), SERVER, joins, &TTL)
        .await;
    server.serve(PORT);
    let cart = bench.service("cart", ("cart-0", SERVER), PORT);
    for pod in [&client, &server] {
        is_below(pod, &first).await;
    }

    let load = client.load(SocketAddr::from((cart, 80)));
    load.goes_on(50).await;
    renew(&bench).await;
    let second = secret(&bench, "tls.crt", &first).await;
    assert_eq!(secret(&bench, "ca.crt", "").await, root, "of the same root");
    control.logs("its key signs from now on").await;
    // One after the other: meanwhile, certificates of both keys call each other.
    is_below(&client, &second).await;
    is_below(&server, &second).await;
    load.goes_on(50).await;

    // A control plane that starts now begins with it.
    let later = bench.control("control-1", &[]).await;
    assert_eq!(bench.root("shop").await, root);
    for control in [&control, &later] {
        control.assert_rights();
    }
}
