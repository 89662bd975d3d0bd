use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use anyam_tests_kube::{Helm, Kubectl, Output, Sidecar, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::harness::{Bench, Control, NAMESPACE, TIMEOUT, of_chart};

pub const NAME: &str = "anyam-control.anyam-system.svc";
const API_SERVICE: &str = "apiservice/v1alpha1.inspect.mesh.anyam.dev";
const BASE: &str = "/apis/inspect.mesh.anyam.dev/v1alpha1";

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Registers the API that a control plane serves at this port of loopback: as deployed, but for the
/// port, and a Service that resolves to loopback.
pub fn register(bench: &Bench, port: u16) {
    let external = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "anyam-control", "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let apply = ["apply", "-f", "-"];
    bench.server.kubectl_with(&external.to_string(), &apply);
    let manifest = of_chart(&["APIService"]);
    let manifest = manifest.replace("\"port\":6443", &format!("\"port\":{port}"));
    bench.server.kubectl_with(&manifest, &apply);
}

pub async fn available(bench: &Bench) {
    let path = "--output=jsonpath={.status.conditions[?(@.type=='Available')]}";
    until("the API to be available", TIMEOUT, async || {
        let found = bench.server.kubectl(&["get", API_SERVICE, path]);
        match found.contains("\"status\":\"True\"") {
            true => Ok(()),
            false => Err(found),
        }
    })
    .await;
}

/// A request of a user, through the API server.
pub fn ask(bench: &Bench, user: &str, path: &str) -> Output {
    let who = format!("--as={user}");
    let group = "--as-group=system:authenticated";
    let path = format!("{BASE}{path}");
    bench
        .server
        .try_kubectl(&[&who, group, "get", "--raw", &path])
}

/// The same of a member of `system:masters`.
pub fn ask_as_admin(bench: &Bench, path: &str) -> Output {
    let path = format!("{BASE}{path}");
    bench.server.try_kubectl(&["get", "--raw", &path])
}

pub fn post(bench: &Bench, user: &str, path: &str, body: &Value) -> Output {
    let who = format!("--as={user}");
    let group = "--as-group=system:authenticated";
    let path = format!("{BASE}{path}");
    let create = [&who, group, "create", "--raw", &path, "-f", "-"];
    bench.server.try_kubectl_with(&body.to_string(), &create)
}

pub fn json_of(output: &Output) -> Value {
    assert_eq!(output.status, Some(0), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

fn refused(output: &Output, words: &[&str]) {
    assert_ne!(output.status, Some(0), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word}: {output:?}");
    }
}

pub fn bind(bench: &Bench, name: &str, role: &str, user: &str) {
    let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
    let create = ["create", "rolebinding", name, "--namespace=shop"];
    bench
        .server
        .kubectl(&[&create[..], &[&role, &user]].concat());
}

/// A control plane with the API, namespaces, and the sidecar of pod shop/web-0.
async fn bench() -> (Bench, Control, Sidecar, u16) {
    let bench = Bench::start();
    bench.namespace("shop", &["web"]);
    bench.namespace("bank", &[]);
    let definitions = Helm::chart().join("files/crds");
    let definitions = definitions.to_string_lossy();
    bench
        .server
        .kubectl(&["apply", "--server-side", "-f", &definitions]);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let more = ["--aggregated-listen", &listen, "--name", NAME];
    let control = bench.control("control-0", &more).await;
    register(&bench, port);
    bench.pod("web-0", "web");
    let (token, root) = (
        bench.token("web-0", "web", "anyam-ca"),
        bench.root("shop").await,
    );
    let xds = control.xds().await;
    let sidecar = bench.sidecar("web-0", "web", xds, &[]).start(&token, &root);
    sidecar.ready().await;
    available(&bench).await;
    (bench, control, sidecar, port)
}

fn workloads(answer: &Value) -> Vec<String> {
    let all = answer["proxies"].as_array().unwrap().iter();
    all.map(|it| format!("{}/{}", it["namespace"], it["workload"]).replace('"', ""))
        .collect()
}

#[tokio::test]
async fn a_viewer_of_a_namespace_sees_that_namespace_only() {
    let (bench, control, _sidecar, _) = bench().await;
    bind(&bench, "viewers", "anyam-viewer", "jane");
    let of_shop = "/namespaces/shop/workloads/-";
    until("the proxy to be shown", TIMEOUT, async || {
        // Roles are in force a moment after they are made.
        let output = ask(&bench, "jane", &format!("{of_shop}/proxies"));
        let answer: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        if answer["proxies"][0]["inspectable"] != true {
            return Err(format!("{output:?}"));
        }
        assert_eq!(workloads(&answer), ["shop/web-0"]);
        Ok(())
    })
    .await;
    for what in ["edges", "stat", "routes", "objects", "check"] {
        json_of(&ask(&bench, "jane", &format!("{of_shop}/{what}")));
    }
    let elsewhere = format!("{of_shop}/proxies?namespace=bank");
    refused(&ask(&bench, "jane", &elsewhere), &["namespace shop only"]);
    for path in [
        "/workloads/-/proxies",
        "/namespaces/bank/workloads/-/proxies",
    ] {
        refused(&ask(&bench, "jane", path), &["Forbidden"]);
        refused(&ask(&bench, "joe", path), &["Forbidden"]);
    }
    let dump = "/namespaces/shop/workloads/web-0/dump/certs";
    let tap = "/watch/namespaces/shop/workloads/web-0/tap?seconds=1";
    for path in [dump, tap] {
        refused(&ask(&bench, "jane", path), &["Forbidden"]);
    }
    bind(&bench, "operators", "anyam-operator", "olga");
    let certs = until("a dump", TIMEOUT, async || {
        let certs = ask(&bench, "olga", dump);
        if certs.status == Some(0) {
            Ok(certs.stdout)
        } else {
            Err(certs.stderr)
        }
    })
    .await;
    assert!(
        certs.contains("spiffe://anyam.local/ns/shop/sa/web"),
        "{certs}"
    );
    let tapped = ask(&bench, "olga", tap);
    assert_eq!(
        (tapped.status, &*tapped.stdout),
        (Some(0), ""),
        "{tapped:?}"
    );

    let all = json_of(&ask_as_admin(&bench, "/workloads/-/proxies"));
    assert_eq!(workloads(&all), ["shop/web-0"]);
    let none = json_of(&ask_as_admin(
        &bench,
        "/namespaces/bank/workloads/-/proxies",
    ));
    assert_eq!(workloads(&none), [""; 0]);
    control.assert_rights();
}

/// The API server authorises by the subresource, the control plane by the verb.
#[tokio::test]
async fn a_right_that_the_control_plane_asks_for_is_named() {
    let (bench, control, _sidecar, port) = bench().await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "half", "namespace": "shop"},
        "rules": [{"apiGroups": ["inspect.mesh.anyam.dev"], "resources": ["workloads/proxies"], "verbs": ["get"]}],
    });
    bench
        .server
        .kubectl_with(&role.to_string(), &["create", "-f", "-"]);
    let bind = [
        "create",
        "rolebinding",
        "half",
        "--role=half",
        "--user=jane",
    ];
    bench
        .server
        .kubectl(&[&bind[..], &["--namespace=shop"]].concat());
    let path = "/namespaces/shop/workloads/-/proxies";
    until("the role to be in force", TIMEOUT, async || {
        let refusal = ask(&bench, "jane", path).stderr;
        let right = "may not get workloads.inspect.mesh.anyam.dev in namespace shop";
        let grant = "kubectl create rolebinding NAME --namespace=shop --clusterrole=anyam-viewer --user='jane'";
        match refusal.contains(right) && refusal.contains(grant) {
            true => Ok(()),
            false => Err(refusal),
        }
    })
    .await;
    // `workloads` stays the mesh's own kind, and the group's resources are found.
    let group = bench.server.kubectl(&["get", "--raw", BASE]);
    assert!(group.contains("workloads/explain"), "{group}");
    let kinds = bench
        .server
        .kubectl(&["get", "workloads", "--namespace=shop", "--output=name"]);
    assert_eq!(kinds, "");
    // The caBundle is kept.
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let other = json!({"spec": {"caBundle": STANDARD.encode(other.cert.pem())}}).to_string();
    bench
        .server
        .kubectl(&["patch", API_SERVICE, "--type=merge", "--patch", &other]);
    let root = STANDARD.encode(bench.root("shop").await);
    until("the root as caBundle", TIMEOUT, async || {
        let path = "--output=jsonpath={.spec.caBundle}";
        let found = bench.server.kubectl(&["get", API_SERVICE, path]);
        if found == root { Ok(()) } else { Err(found) }
    })
    .await;
    register(&bench, port);
    control.assert_rights();
}

#[tokio::test]
async fn a_login_for_the_dashboard_is_as_good_as_the_users_rights() {
    let (bench, control, _sidecar, _) = bench().await;
    bind(&bench, "viewers", "anyam-viewer", "jane");
    let path = "/namespaces/shop/workloads/-/session";
    let login = until("a login", TIMEOUT, async || {
        let login = post(&bench, "jane", path, &json!({}));
        if login.status == Some(0) {
            Ok(json_of(&login))
        } else {
            Err(login.stderr)
        }
    })
    .await;
    refused(
        &post(&bench, "jane", "/workloads/-/session", &json!({})),
        &["Forbidden"],
    );
    assert_eq!(
        (&login["pod"], &login["namespace"]),
        (&json!("control-0"), &json!("shop"))
    );
    let port = login["port"].as_u64().unwrap();
    let call = async |method: &str, path: &str, header: &str| {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))
            .await
            .unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let token = login["token"].as_str().unwrap();
    let bearer = format!("authorization: Bearer {token}");
    let direct = call("GET", "/api/v1/proxies", &bearer).await;
    assert!(direct.starts_with("HTTP/1.1 401"), "{direct}");
    let session = call("POST", "/api/v1/session", &bearer).await;
    assert!(session.starts_with("HTTP/1.1 204"), "{session}");
    let again = call("POST", "/api/v1/session", &bearer).await;
    assert!(again.starts_with("HTTP/1.1 401"), "{again}");
    let cookie = session.split("set-cookie: ").nth(1).unwrap();
    let cookie = format!("cookie: {}", cookie.split(';').next().unwrap());
    for (path, status) in [
        ("/api/v1/proxies", 200),
        ("/api/v1/check", 200),
        ("/api/v1/proxies?namespace=bank", 403),
        ("/api/v1/tap?workload=shop/web-0&seconds=1", 403),
        ("/api/v1/dump/shop/web-0/certs", 403),
        ("/api/v1/dump/bank/web-0/certs", 403),
    ] {
        let answer = call("GET", path, &cookie).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
    }
    // Rights that are withdrawn end what an open session shows.
    let delete = ["delete", "rolebinding", "viewers", "--namespace=shop"];
    bench.server.kubectl(&delete);
    until("the session to show nothing", TIMEOUT, async || {
        let answer = call("GET", "/api/v1/proxies", &cookie).await;
        match answer.starts_with("HTTP/1.1 403") {
            true => Ok(()),
            false => Err(answer),
        }
    })
    .await;
    control.assert_rights();
}

/// One request to the port itself, past the API server.
async fn direct(
    port: u16,
    root: &str,
    client: Option<(&str, &str)>,
    headers: &str,
) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let request = format!(
        "GET {BASE}/workloads/-/proxies HTTP/1.1\r\nhost: {NAME}\r\n{headers}connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    match answer.is_empty() {
        true => read.map(|_| String::new()),
        false => Ok(String::from_utf8(answer).unwrap()),
    }
}

#[tokio::test]
async fn forged_headers_are_refused_without_the_front_proxys_certificate() {
    let (bench, control, _sidecar, port) = bench().await;
    let root = bench.root("shop").await;
    let forged = "x-remote-user: admin\r\nx-remote-group: system:masters\r\n";
    let answer = direct(port, &root, None, forged).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("\"kind\":\"Status\""), "{answer}");
    assert!(!answer.contains("web-0"), "{answer}");

    // A certificate of the cluster's other CA, even an administrator's, is not the front proxy's.
    let config = bench
        .server
        .kubectl(&["config", "view", "--raw", "--output=json"]);
    let config: Value = serde_json::from_str(&config).unwrap();
    let user = &config["users"][0]["user"];
    let decoded = |key: &str| {
        let decoded = STANDARD.decode(user[key].as_str().unwrap()).unwrap();
        String::from_utf8(decoded).unwrap()
    };
    let (certificate, key) = (
        decoded("client-certificate-data"),
        decoded("client-key-data"),
    );
    let own = Some((&*certificate, &*key));
    match direct(port, &root, own, forged).await {
        // The alert comes with the first read.
        Err(_) => {}
        Ok(answer) => assert_eq!(answer, ""),
    }
    control.assert_rights();
}
