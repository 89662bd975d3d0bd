//! A validating webhook of the test's own, called by the API server over TLS.

use std::sync::Arc;
use std::time::Duration;

use anyam_tests_kube::{ApiServer, Kubectl, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Denies objects with the label `refuse`; the message has the user.
async fn review(request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let asked = &review["request"];
    let refuse = asked["object"]["metadata"]["labels"]["refuse"].is_string();
    let caller = asked["userInfo"]["username"].as_str().unwrap();
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": asked["uid"],
            "allowed": !refuse,
            "status": {"message": format!("refused for {caller}")},
        },
    });
    Ok(Response::new(Full::from(answer.to_string())))
}

/// Serves reviews on loopback under a host name; returns the port and the certificate as PEM.
async fn serve(host: &str) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A failed connection shows in the API server's response.
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(review);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (port, made.cert.pem())
}

fn configuration(mut client: Value, certificate: &str) -> String {
    client["caBundle"] = STANDARD.encode(certificate).into();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "label"},
        "webhooks": [{
            "name": "label.anyam.dev",
            "clientConfig": client,
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }],
    })
    .to_string()
}

async fn denies_labelled_objects(server: ApiServer, configuration: String) {
    // kubectl blocks this thread; the runtime's other one serves the webhook meanwhile.
    server.kubectl_with(&configuration, &["apply", "-f", "-"]);
    let map = |name: &str, labels: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
            .to_string()
    };
    // The API server sees a new webhook by a watch, some time later.
    until("the webhook to be called", TIMEOUT, async || {
        let dry = ["create", "--dry-run=server", "-f", "-"];
        let output = server.try_kubectl_with(&map("m", json!({"refuse": "yes"})), &dry);
        let refused = "admission webhook \"label.anyam.dev\" denied the request: refused for admin";
        if output.stderr.contains(refused) {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    })
    .await;
    server.kubectl_with(&map("kept", json!({})), &["create", "-f", "-"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_reached_by_its_url() {
    let (port, certificate) = serve("127.0.0.1").await;
    let client = json!({"url": format!("https://127.0.0.1:{port}/label")});
    let configuration = configuration(client, &certificate);
    denies_labelled_objects(ApiServer::start(), configuration).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_reached_by_an_external_name_service() {
    let (port, certificate) = serve("label.default.svc").await;
    let server = ApiServer::start();
    server.kubectl(&[
        "create",
        "service",
        "externalname",
        "label",
        "--external-name=localhost",
    ]);
    let client = json!({"service": {"name": "label", "namespace": "default", "port": port}});
    let configuration = configuration(client, &certificate);
    denies_labelled_objects(server, configuration).await;
}
