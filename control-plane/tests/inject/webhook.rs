//! The webhook over TLS, as an API server calls it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyam_control::ca::Authority;
use anyam_control::ca::authority::Lifetimes;
use anyam_control::inject::manifest::inject_object;
use anyam_control::inject::settings::MeshSettings;
use anyam_control::inject::start::{RunningWebhook, WebhookOptions, start};
use anyam_control::metrics::Metrics;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{tokens, yaml};

pub const NAME: &str = "anyam-control.anyam-system.svc";

pub struct Server {
    pub running: RunningWebhook,
    authority: Arc<Authority>,
    pub metrics: Arc<Metrics>,
    _state: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Lifetimes::default()).await
    }

    async fn with(lifetimes: Lifetimes) -> Self {
        let state = tempfile::tempdir().unwrap();
        let ca = state.path().join("ca");
        let authority = Authority::open(&ca, "anyam.local", lifetimes).unwrap();
        let authority = Arc::new(authority);
        let metrics = Arc::new(Metrics::new().unwrap());
        let options = WebhookOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            names: vec![NAME.into()],
            settings: MeshSettings::default(),
        };
        let running = start(options, Arc::clone(&authority), Arc::clone(&metrics))
            .await
            .unwrap();
        Server {
            running,
            authority,
            metrics,
            _state: state,
        }
    }

    /// Verified by the CA, for the name of the webhook's Service, as `caBundle` has it.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.root().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(self.running.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, tcp).await.unwrap()
    }

    /// Status and body.
    pub async fn post(&self, path: &str, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A body that is too large is answered before it was read to its end.
        let _ = stream.write_all(body).await;
        response(&mut stream).await
    }

    pub async fn review(&self, path: &str, pod: &Value, edit: impl Fn(&mut Value)) -> Value {
        let mut review = review(pod);
        edit(&mut review);
        let (status, body) = self.post(path, review.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }
}

pub async fn response(stream: &mut TlsStream<TcpStream>) -> (u16, String) {
    let mut text = Vec::new();
    // A server that closes without close_notify may still have sent its whole response.
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (
        head.get(9..12).unwrap_or("0").parse().unwrap(),
        body.to_owned(),
    )
}

/// What an API server of Kubernetes 1.34 sends for a pod of a Deployment.
pub fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

/// As the API server sends it: with defaults and a token's volume.
pub fn pod() -> Value {
    yaml(
        "
apiVersion: v1
kind: Pod
metadata:
  generateName: web-5d4f8c7b9-
  creationTimestamp: null
  labels: {app: web, pod-template-hash: 5d4f8c7b9}
  annotations: {prometheus.io/scrape: 'true', prometheus.io/port: '8080'}
spec:
  volumes: [{name: kube-api-access-x, projected: {sources: []}}]
  containers:
    - name: web
      image: web:1
      livenessProbe: {httpGet: {path: /, port: 8080, scheme: HTTP}, timeoutSeconds: 1}
      volumeMounts: [{name: kube-api-access-x, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]
  fieldOfALaterVersion: {kept: true}
",
    )
}

fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD
        .decode(response["patch"].as_str().unwrap())
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[tokio::test]
async fn the_patched_pod_is_what_anyam_inject_makes_of_it() {
    let server = Server::start().await;
    let pod = pod();
    let response = server.review("/inject", &pod, |_| {}).await;
    let webhooks = patched(&pod, &response);
    let settings = MeshSettings::default();
    let files = inject_object(pod.clone(), "shop", &settings, &tokens(), &mut Vec::new()).unwrap();
    assert_eq!(webhooks, files);
    assert_eq!(
        webhooks["spec"]["fieldOfALaterVersion"],
        json!({"kept": true})
    );
    assert_eq!(webhooks["spec"]["initContainers"][1]["name"], "anyam-proxy");

    // As on reinvocation, or for a pod of a file that was injected already.
    let again = server.review("/inject", &webhooks, |_| {}).await;
    assert_eq!(patched(&webhooks, &again), webhooks);
    // A dry run is answered in the same way, because the webhook has no side effects.
    let dry = server
        .review("/inject", &pod, |r| r["request"]["dryRun"] = true.into())
        .await;
    assert_eq!(dry, response);
    server.running.stop().await;
}

#[tokio::test]
async fn hooks_of_each_pod_have_a_token_of_their_own() {
    let server = Server::start().await;
    let mut pod = pod();
    pod["spec"]["containers"][0]["lifecycle"] =
        yaml("{preStop: {httpGet: {path: /drain, port: 8080, scheme: HTTP}}}");
    let path = |pod: &Value| {
        let path = &pod["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]["path"];
        let token = path
            .as_str()
            .unwrap()
            .strip_prefix("/app-health/web/prestop/");
        token.unwrap().to_owned()
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        let injected = patched(&pod, &server.review("/inject", &pod, |_| {}).await);
        let again = server.review("/inject", &injected, |_| {}).await;
        assert_eq!(patched(&injected, &again), injected);
        seen.push(path(&injected));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");
    server.running.stop().await;
}

#[tokio::test]
async fn in_other_namespaces_pods_opt_in() {
    let server = Server::start().await;
    let mut pod = pod();
    let response = server.review("/inject/opt-in", &pod, |_| {}).await;
    assert_eq!(
        (&response["allowed"], response.get("patch")),
        (&json!(true), None)
    );
    for field in ["labels", "annotations"] {
        let mut pod = pod.clone();
        pod["metadata"][field]["mesh.anyam.dev/inject"] = "enabled".into();
        let response = server.review("/inject/opt-in", &pod, |_| {}).await;
        assert!(response["patch"].is_string(), "{field}");
    }
    pod["metadata"]["labels"]["mesh.anyam.dev/inject"] = "disabled".into();
    let response = server.review("/inject", &pod, |_| {}).await;
    assert_eq!(response.get("patch"), None);
    assert!(
        response["auditAnnotations"]["skipped"]
            .as_str()
            .unwrap()
            .contains("disabled")
    );
    assert_eq!(response.get("warnings"), None);
}

#[tokio::test]
async fn denials_and_warnings_say_what_to_do() {
    let server = Server::start().await;
    let mut bad = pod();
    bad["metadata"]["annotations"]["mesh.anyam.dev/sidecar"] = "both".into();
    let response = server.review("/inject", &bad, |_| {}).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 422);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("mesh.anyam.dev/sidecar") && message.contains("native or classic"));

    let mut host = pod();
    host["spec"]["hostNetwork"] = true.into();
    let response = server.review("/inject", &host, |_| {}).await;
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .contains("hostNetwork")
    );

    // A webhook configuration that sends more than the creation of pods gets no denial, but a
    // warning.
    for edit in [
        (|r: &mut Value| r["request"]["operation"] = "UPDATE".into()) as fn(&mut Value),
        |r| r["request"]["kind"]["kind"] = "Service".into(),
    ] {
        let response = server.review("/inject", &pod(), edit).await;
        assert_eq!(
            (&response["allowed"], response.get("patch")),
            (&json!(true), None)
        );
        assert!(
            response["warnings"][0]
                .as_str()
                .unwrap()
                .contains("CREATE of pods")
        );
    }
    let text = String::from_utf8(server.metrics.render(0, 0, 0).unwrap()).unwrap();
    for (outcome, count) in [("denied", 1), ("skipped", 1), ("other", 2)] {
        let line = format!("anyam_control_injections_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let server = Server::start().await;
    let mut other = review(&pod());
    other["apiVersion"] = "admission.k8s.io/v1beta1".into();
    let mut empty = review(&pod());
    empty["request"] = Value::Null;
    let bodies: [(Vec<u8>, &str); 5] = [
        (b"".to_vec(), "no AdmissionReview"),
        (b"\xff\xfe".to_vec(), "no AdmissionReview"),
        (vec![b'['; 10_000], "no AdmissionReview"),
        (other.to_string().into(), "admissionReviewVersions"),
        (empty.to_string().into(), "no request"),
    ];
    for (body, part) in bodies {
        let (status, said) = server.post("/inject", &body).await;
        assert_eq!(status, 400, "{said}");
        assert!(said.contains(part), "{said}");
    }
    // An object that is no pod is denied with the place of the error.
    let response = server
        .review("/inject", &json!({"spec": {"containers": 7}}), |_| {})
        .await;
    assert!(
        response["status"]["message"]
            .as_str()
            .unwrap()
            .contains("spec.containers")
    );

    assert_eq!(server.post("/", b"{}").await.0, 404);
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /inject HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(response_status(&mut stream).await, 405);
}

async fn response_status(stream: &mut TlsStream<TcpStream>) -> u16 {
    response(stream).await.0
}

/// At half of its life the certificate is replaced, and new connections get the new one.
#[tokio::test]
async fn the_certificate_is_renewed_by_itself() {
    let life = Duration::from_secs(4);
    let server = Server::with(Lifetimes {
        default: life,
        max: life,
    })
    .await;
    let shown = || async {
        let stream = server.connect().await;
        let (_, tls) = stream.get_ref();
        tls.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    let renewed = async {
        while shown().await == first {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed)
        .await
        .unwrap();
}
