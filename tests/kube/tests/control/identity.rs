use std::path::Path;

use anyam_tests_kube::{Kubectl, until};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::harness::{Bench, Control, TIMEOUT, openssl};

const AUDIENCE: &str = "anyam-ca";

/// A control plane, and a pod with its root.
async fn bench() -> (Bench, Control, String) {
    let bench = Bench::start();
    bench.namespace("shop", &["web", "cart"]);
    let control = bench.control("control-0", &[]).await;
    bench.pod("web-0", "web");
    let root = bench.root("shop").await;
    (bench, control, root)
}

#[tokio::test]
async fn a_pod_with_its_token_gets_a_certificate_and_configuration() {
    let (bench, control, root) = bench().await;
    let xds = control.xds().await;
    let token = bench.token("web-0", "web", AUDIENCE);
    // A short one, to see it renewed.
    let ttl = ["--certificate-ttl-s", "12"];
    let sidecar = bench
        .sidecar("web-0", "web", xds, &ttl)
        .start(&token, &root);
    let first = sidecar.certificate().await;
    assert!(
        first.contains("CN = web-0") || first.contains("CN=web-0"),
        "{first}"
    );
    let uri = "URI:spiffe://anyam.local/ns/shop/sa/web";
    assert!(first.contains(uri), "{first}");
    sidecar.ready().await;
    // Renewal is authenticated by the present certificate.
    sidecar.set_token("used up");
    until("a renewed certificate", TIMEOUT, async || {
        let now = sidecar.certificate().await;
        if now == first {
            Err(sidecar.log())
        } else {
            Ok(())
        }
    })
    .await;
    control.assert_rights();
}

#[tokio::test]
async fn invalid_tokens_are_refused_and_a_rotated_token_is_read() {
    let (bench, control, root) = bench().await;
    let xds = control.xds().await;
    let plan = |account: &str| bench.sidecar("web-0", account, xds, &[]);
    let good = bench.token("web-0", "web", AUDIENCE);

    let garbage = plan("web").start("garbage", &root);
    garbage.refused("no service-account token").await;

    let foreign = bench.token("web-0", "web", "https://kubernetes.default.svc");
    let foreign = plan("web").start(&foreign, &root);
    foreign
        .refused("is for audience `https://kubernetes.default.svc`")
        .await;

    let create = [
        "create",
        "token",
        "web",
        "--namespace=shop",
        "--audience=anyam-ca",
    ];
    let unbound = plan("web").start(bench.server.kubectl(&create).trim(), &root);
    unbound.refused("bound to no pod").await;

    let changed = forged(&good, |_| {}, &other_key());
    let changed = plan("web").start(&changed, &root);
    changed
        .refused("the API server does not accept the token")
        .await;

    let over = |claims: &mut Value| {
        let now = claims["iat"].as_i64().unwrap();
        for (claim, age) in [("iat", 7200), ("nbf", 7200), ("exp", 3600)] {
            claims[claim] = (now - age).into();
        }
    };
    let expired = forged(&good, over, &own_key(&bench));
    let expired = plan("web").start(&expired, &root);
    expired.refused("token has expired").await;
    // With its old times the token is valid: its signature is correct.
    let same = forged(&good, |_| {}, &own_key(&bench));
    plan("web").start(&same, &root).certificate().await;

    let other_account = plan("cart").start(&good, &root);
    let asked = "asks for `spiffe://anyam.local/ns/shop/sa/cart`, but the credential is for `spiffe://anyam.local/ns/shop/sa/web`";
    other_account.refused(asked).await;

    // The kubelet replaces the file: the sidecar that was refused reads it again.
    foreign.set_token(&good);
    foreign.certificate().await;
    control.assert_rights();
}

#[tokio::test]
async fn a_token_is_invalid_once_its_pod_is_deleted() {
    let (bench, control, root) = bench().await;
    let xds = control.xds().await;
    let token = bench.token("web-0", "web", AUDIENCE);
    let start = || bench.sidecar("web-0", "web", xds, &[]).start(&token, &root);

    bench.set_status("web-0", &json!({"phase": "Succeeded"}));
    start().refused("Pod shop/web-0 has ended").await;
    bench.set_status("web-0", &json!({"phase": "Running"}));
    start().certificate().await;

    bench.delete_pod("web-0");
    start()
        .refused("the API server does not accept the token")
        .await;
    // A new pod of the same name has another uid.
    bench.pod("web-0", "web");
    start()
        .refused("the API server does not accept the token")
        .await;
    control.assert_rights();
}

#[tokio::test]
async fn tokens_are_refused_while_the_api_server_is_down_and_accepted_afterwards() {
    let (bench, control, root) = bench().await;
    let xds = control.xds().await;
    let token = bench.token("web-0", "web", AUDIENCE);
    bench.server.stop("apiserver");
    let sidecar = bench.sidecar("web-0", "web", xds, &[]).start(&token, &root);
    sidecar.refused("cannot ask the API server").await;
    control.logs("the API server cannot be reached").await;
    bench.server.resume("apiserver");
    sidecar.certificate().await;
    sidecar.ready().await;
}

/// A token with changed claims, signed again.
fn forged(token: &str, change: impl FnOnce(&mut Value), key: &EcdsaKeyPair) -> String {
    let mut parts = token.split('.');
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    change(&mut claims);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// The key with which the API server signs tokens.
fn own_key(bench: &Bench) -> EcdsaKeyPair {
    let folder = bench.server.kubeconfig().parent().and_then(Path::parent);
    let path = folder.unwrap().join("pki/service-accounts.key");
    let pem = std::fs::read_to_string(path).unwrap();
    let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt"], &pem);
    key(&pkcs8)
}

fn other_key() -> EcdsaKeyPair {
    key(&rcgen::KeyPair::generate().unwrap().serialize_pem())
}

fn key(pkcs8: &str) -> EcdsaKeyPair {
    let body: String = pkcs8
        .lines()
        .filter(|line| !line.starts_with("--"))
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap()
}
