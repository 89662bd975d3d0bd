use std::process::{Command, Stdio};

use anyam_tests_kube::{Kubectl, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::harness::{Bench, NAMESPACE, TIMEOUT};

fn decode(data: &Value, key: &str) -> String {
    let text = data[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} in {data}"));
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

/// Whether the server at this address has a certificate below this root.
fn serves(bench: &Bench, address: std::net::SocketAddr, root: &str) -> bool {
    let file = bench.path("trusted.crt");
    std::fs::write(&file, root).unwrap();
    let verified = Command::new("openssl")
        .args(["s_client", "-brief", "-verify_return_error", "-alpn", "h2"])
        .args([
            "-verify_hostname",
            "anyam-control",
            "-connect",
            &address.to_string(),
            "-CAfile",
        ])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    verified.status.success()
}

#[tokio::test]
async fn control_planes_that_start_together_make_one_root() {
    let bench = Bench::start();
    let all = ["control-0", "control-1", "control-2"].map(|name| bench.begin_control(name, &[]));
    let secret = {
        for control in &all {
            control.xds().await;
        }
        bench.secret()
    };
    let root = decode(&secret, "ca.crt");
    assert_eq!(root, decode(&secret, "tls.crt"));
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    for control in &all {
        let address = control.xds().await;
        assert!(serves(&bench, address, &root), "{}", control.log());
        assert!(!serves(&bench, address, &other.cert.pem()));
        control.assert_rights();
    }
    let made = all
        .iter()
        .filter(|it| it.log().contains("made the mesh's root"));
    assert_eq!(made.count(), 1);
    assert_eq!(bench.root("default").await, root);

    // A replica that starts later, without a state folder, uses it too.
    drop(all);
    let later = bench.control("control-3", &[]).await;
    assert!(serves(&bench, later.xds().await, &root));
    assert!(!later.log().contains("made the mesh's root"));
}

#[tokio::test]
async fn the_root_config_map_is_restored_in_every_namespace() {
    let bench = Bench::start();
    bench.namespace("before", &[]);
    let control = bench.control("control-0", &[]).await;
    let root = decode(&bench.secret(), "ca.crt");
    assert_eq!(bench.root("before").await, root);
    bench.namespace("later", &[]);
    assert_eq!(bench.root("later").await, root);

    let map = |verb: &str| {
        [verb, "configmap", "anyam-ca-root-cert", "--namespace=later"].map(str::to_owned)
    };
    let uid = || {
        let mut get = map("get").to_vec();
        get.push("--output=jsonpath={.metadata.uid}".to_owned());
        let get: Vec<_> = get.iter().map(String::as_str).collect();
        bench.server.try_kubectl(&get).stdout
    };
    let before = uid();
    let delete = map("delete");
    bench.server.kubectl(&delete.each_ref().map(String::as_str));
    until("another ConfigMap", TIMEOUT, async || match uid() {
        now if now.is_empty() || now == before => Err(now),
        _ => Ok(()),
    })
    .await;
    assert_eq!(bench.root("later").await, root);

    let patch = map("patch");
    let patch = patch.each_ref().map(String::as_str);
    let change = [
        "--type=merge",
        "--patch",
        r#"{"data": {"ca.crt": "BEGIN CERTIFICATE of another", "more": "x"}}"#,
    ];
    bench.server.kubectl(&[&patch[..], &change].concat());
    until("the root again", TIMEOUT, async || {
        let now = bench.root("later").await;
        if now == root { Ok(()) } else { Err(now) }
    })
    .await;

    let all = [
        "get",
        "configmaps",
        "--all-namespaces",
        "--field-selector=metadata.name=anyam-ca-root-cert",
    ];
    let all = bench.server.kubectl(
        &[
            &all[..],
            &["--output=jsonpath={.items[*].metadata.namespace}"],
        ]
        .concat(),
    );
    let mut all: Vec<_> = all.split(' ').collect();
    all.sort_unstable();
    assert_eq!(
        all,
        ["before", "default", "later"],
        "and none of the system's"
    );
    control.assert_rights();
}

#[tokio::test]
async fn a_deleted_root_secret_is_restored_with_the_root_in_use() {
    let bench = Bench::start();
    let control = bench.control("control-0", &[]).await;
    bench.root("default").await;
    let before = bench.secret();
    bench
        .server
        .kubectl(&["delete", "secret", "anyam-ca", "--namespace", NAMESPACE]);
    control.logs("it is there again").await;
    assert_eq!(bench.secret(), before);
    control.assert_rights();
}

/// The CA of an organisation, and intermediates that it issues.
struct OwnCa {
    key: KeyPair,
    params: CertificateParams,
}

impl OwnCa {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca("Corp root");
        OwnCa { key, params }
    }

    fn root(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    /// The Secret's data.
    fn intermediate(&self, root: &str) -> Value {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let key = KeyPair::generate().unwrap();
        let certificate = ca("Mesh").signed_by(&key, &issuer).unwrap();
        json!({"tls.key": key.serialize_pem(), "tls.crt": certificate.pem(), "ca.crt": root})
    }
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn put(bench: &Bench, data: &Value) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "anyam-ca", "namespace": NAMESPACE}, "stringData": data,
    });
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    bench.server.kubectl_with(&secret.to_string(), &apply);
}

#[tokio::test]
async fn a_custom_intermediate_signs_and_can_be_renewed() {
    let bench = Bench::start();
    bench.namespace("shop", &["web"]);
    let own = OwnCa::new();
    let root = own.root();
    let first = own.intermediate(&root);
    put(&bench, &first);
    let control = bench.control("control-0", &[]).await;
    assert_eq!(bench.root("shop").await.trim(), root.trim());
    bench.pod("web-0", "web");
    let token = bench.token("web-0", "web", "anyam-ca");
    let xds = control.xds().await;
    let join = || bench.sidecar("web-0", "web", xds, &[]).start(&token, &root);
    let issued_by = async || {
        let sidecar = join();
        sidecar.certificate().await;
        sidecar.ready().await;
        let identity = sidecar.identity().unwrap();
        assert_eq!(
            identity["trust_bundle"].as_str().unwrap().replace('\r', ""),
            root
        );
        identity["certificate_chain"]
            .as_str()
            .unwrap()
            .replace('\r', "")
    };
    let text = |data: &Value| data["tls.crt"].as_str().unwrap().to_owned();
    assert!(issued_by().await.ends_with(&text(&first)));

    let second = own.intermediate(&root);
    put(&bench, &second);
    control.logs("its key signs from now on").await;
    assert!(issued_by().await.ends_with(&text(&second)));

    // Another root is not accepted as a renewal.
    let other = OwnCa::new();
    put(&bench, &other.intermediate(&other.root()));
    control.logs("restart the control plane").await;
    assert!(issued_by().await.ends_with(&text(&second)));
    control.assert_rights();
}

#[tokio::test]
async fn an_invalid_ca_secret_fails_the_start_with_advice() {
    let bench = Bench::start();
    let (own, other) = (OwnCa::new(), OwnCa::new());
    put(&bench, &own.intermediate(&other.root()));
    let log = bench.begin_control("control-0", &[]).fails();
    let named =
        log.contains("Secret anyam-system/anyam-ca, key tls.crt") && log.contains("do not lead");
    assert!(named, "{log}");
}
