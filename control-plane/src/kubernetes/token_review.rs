//! The pod that a service-account token belongs to: by a TokenReview, and the Pod itself.
//!
//! [`TokenReviews`] sends both requests to the API server. Its answers are checked by [`subject`] and [`is_pod_of`], without I/O. Nothing
//! is cached: a pod presents its token once, unless something fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http::header::CONTENT_TYPE;
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::call::{CallError, FailureLog, Right, call};
use super::from_now;
use crate::ca::pod_token::{PodTokenError, PodTokens, TokenPod};
use crate::metrics::Metrics;
use crate::text::bounded;

const REVIEW: Right = Right::new("create", "tokenreviews.authentication.k8s.io");
const GET_POD: Right = Right::new("get", "pods");

/// From a token's arrival to the answer; sidecars wait somewhat longer.
const DEADLINE: Duration = Duration::from_secs(15);
/// Tokens under examination, and those that wait for that beside them.
const MAX_REVIEWS: usize = 32;
const MAX_WAITING: usize = 1024;
/// Such a token has some 1,500 bytes.
const MAX_TOKEN: usize = 8 << 10;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// `status` of a TokenReview, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    authenticated: bool,
    error: String,
    audiences: Vec<String>,
    user: ReviewedUser,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewedUser {
    username: String,
    extra: HashMap<String, Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewAnswer {
    status: ReviewStatus,
}

/// A Pod, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodAnswer {
    metadata: PodMetadata,
    spec: PodAccount,
    status: PodPhase,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodMetadata {
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodAccount {
    service_account_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodPhase {
    phase: String,
}

/// Asks the API server about tokens.
pub struct TokenReviews {
    client: Client,
    audience: String,
    reviews: Semaphore,
    waiting: Semaphore,
    metrics: Arc<Metrics>,
    failures: Mutex<FailureLog>,
}

#[tonic::async_trait]
impl PodTokens for TokenReviews {
    fn audience(&self) -> &str {
        &self.audience
    }

    async fn pod(&self, token: &str) -> Result<TokenPod, PodTokenError> {
        let outcome = self.review(token).await;
        let label = match &outcome {
            Ok(_) => "good",
            Err(PodTokenError::Invalid(_)) => "invalid",
            Err(PodTokenError::Pod(_)) => "pod",
            Err(PodTokenError::Unavailable(_)) => "unavailable",
        };
        self.metrics.token_reviews.with_label_values(&[label]).inc();
        outcome
    }
}

impl TokenReviews {
    /// Of tokens for `audience`.
    pub fn new(client: Client, audience: String, metrics: Arc<Metrics>) -> Self {
        TokenReviews {
            client,
            audience,
            reviews: Semaphore::new(MAX_REVIEWS),
            waiting: Semaphore::new(MAX_WAITING),
            metrics,
            failures: Mutex::new(FailureLog::new("examining pods' tokens")),
        }
    }

    async fn review(&self, token: &str) -> Result<TokenPod, PodTokenError> {
        glance(token, &self.audience).map_err(PodTokenError::Invalid)?;
        let busy = || {
            let why = "too many tokens are under examination; show it again later";
            PodTokenError::Unavailable(why.to_owned())
        };
        let deadline = from_now(DEADLINE);
        let _place = self.waiting.try_acquire().map_err(|_| busy())?;
        let _review = match timeout_at(deadline, self.reviews.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) | Err(_) => return Err(busy()),
        };
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.audience]},
        });
        let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
            .header(CONTENT_TYPE, "application/json")
            .body(review.to_string().into_bytes());
        let answer: ReviewAnswer = self.ask(REVIEW, request, deadline).await?;
        let (pod, uid) = subject(&answer.status, &self.audience)?;
        let TokenPod {
            namespace, name, ..
        } = &pod;
        let request = Request::get(format!("/api/v1/namespaces/{namespace}/pods/{name}"));
        let found = self.ask(GET_POD, request.body(Vec::new()), deadline).await;
        let found: PodAnswer = match found {
            Err(error) if error.is_not_found() => {
                let why = format!(
                    "Pod {namespace}/{name}, of which the token is, does not exist any more"
                );
                return Err(PodTokenError::Pod(why));
            }
            other => other?,
        };
        is_pod_of(&found, &pod, &uid)?;
        Ok(pod)
    }

    /// The answer is decoded here: kube would log one that it cannot decode, with the token in it.
    async fn ask<T: DeserializeOwned>(
        &self,
        right: Right,
        request: http::Result<Request<Vec<u8>>>,
        deadline: Instant,
    ) -> Result<T, AskFailed> {
        let asked = async {
            let request = request.map_err(kube::Error::HttpError)?;
            let text = self.client.request_text(request).await?;
            serde_json::from_str(&text).map_err(kube::Error::SerdeError)
        };
        let within = deadline.saturating_duration_since(Instant::now());
        let outcome = call(right, within, asked).await;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Err(error) if !error.is_not_found() => failures.failed(error),
            _ => failures.succeeded(),
        }
        outcome.map_err(AskFailed)
    }
}

/// The API server did not say what was asked.
struct AskFailed(CallError);

impl AskFailed {
    fn is_not_found(&self) -> bool {
        self.0.is_not_found()
    }
}

impl From<AskFailed> for PodTokenError {
    /// The log has more than peers need to know.
    fn from(_: AskFailed) -> Self {
        PodTokenError::Unavailable(
            "the control plane cannot ask the API server whose the token is; its log says why. Show it again later"
                .to_owned(),
        )
    }
}

/// What a token says of itself.
#[derive(Deserialize)]
struct TokenClaims {
    #[serde(default)]
    aud: Audiences,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaims>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Audiences::Many(Vec::new())
    }
}

#[derive(Deserialize)]
struct KubernetesClaims {
    #[serde(default)]
    pod: Option<serde::de::IgnoredAny>,
}

/// Refuses what cannot be a token for us, by what it says of itself: that costs no call, and the
/// message can say what is wrong. Nothing is believed because of it.
fn glance(token: &str, audience: &str) -> Result<(), String> {
    let expected = format!(
        "show the projected service-account token of the pod, with audience `{audience}`, as injection mounts it"
    );
    let claims = (token.len() <= MAX_TOKEN)
        .then(|| token.split('.').collect::<Vec<_>>())
        .and_then(|parts| match parts[..] {
            [_, payload, _] => URL_SAFE_NO_PAD.decode(payload).ok(),
            _ => None,
        })
        .and_then(|payload| serde_json::from_slice::<TokenClaims>(&payload).ok());
    let Some(claims) = claims else {
        return Err(format!("this is no service-account token; {expected}"));
    };
    let audiences = match claims.aud {
        Audiences::One(one) => vec![one],
        Audiences::Many(many) => many,
    };
    if !audiences.iter().any(|it| it == audience) {
        let audiences = bounded(&audiences.join("`, `"));
        return Err(format!(
            "the token is for audience `{audiences}`, not for this control plane's; {expected}"
        ));
    }
    if claims.kubernetes.is_none_or(|it| it.pod.is_none()) {
        return Err(format!("the token is bound to no pod; {expected}"));
    }
    Ok(())
}

/// The pod that a token was made for, and its uid, if the API server says so.
fn subject(status: &ReviewStatus, audience: &str) -> Result<(TokenPod, String), PodTokenError> {
    let invalid = |why: String| Err(PodTokenError::Invalid(why));
    if !status.authenticated {
        return invalid(format!(
            "the API server does not accept the token ({}); the kubelet replaces one that has expired, \
             and one of a pod that was deleted is good no more",
            bounded(&status.error)
        ));
    }
    if !status.audiences.iter().any(|it| it == audience) {
        return invalid(format!("the token is not for audience `{audience}`"));
    }
    let user = &status.user;
    let account = user.username.strip_prefix("system:serviceaccount:");
    let Some((namespace, account)) = account.and_then(|it| it.split_once(':')) else {
        let username = bounded(&user.username);
        return invalid(format!(
            "the token is of `{username}`, not of a service account"
        ));
    };
    let extra = |key: &str| match user.extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    let (Some(name), Some(uid)) = (extra(POD_NAME), extra(POD_UID)) else {
        return invalid("the token is bound to no pod".to_owned());
    };
    // They become part of a path.
    if ![namespace, account, name.as_str()].into_iter().all(is_name) {
        return invalid("the token is of names that no Kubernetes object has".to_owned());
    }
    let pod = TokenPod {
        namespace: namespace.to_owned(),
        name,
        service_account: account.to_owned(),
    };
    Ok((pod, uid))
}

/// RFC 1123, roughly: no character that means something in a path.
fn is_name(name: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    !matches!(name, "" | "." | "..") && name.len() <= 253 && name.bytes().all(allowed)
}

/// Whether the pod that exists is the one of the token, and still has use for a certificate.
fn is_pod_of(found: &PodAnswer, pod: &TokenPod, uid: &str) -> Result<(), PodTokenError> {
    let TokenPod {
        namespace,
        name,
        service_account,
    } = pod;
    let runs_as = match &*found.spec.service_account_name {
        "" => "default",
        account => account,
    };
    let why = if found.metadata.uid != uid {
        format!("the token is of an earlier Pod {namespace}/{name}")
    } else if runs_as != service_account {
        format!(
            "Pod {namespace}/{name} runs as service account `{runs_as}`, not `{service_account}`"
        )
    } else if matches!(&*found.status.phase, "Succeeded" | "Failed") {
        format!("Pod {namespace}/{name} has ended")
    } else {
        return Ok(());
    };
    Err(PodTokenError::Pod(why))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn good() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["anyam-ca"],
            "user": {
                "username": "system:serviceaccount:shop:web",
                "extra": {POD_NAME: ["web-0"], POD_UID: ["u1"], "other": ["x", "y"]},
            },
        })
    }

    fn reviewed(status: Value) -> Result<(TokenPod, String), PodTokenError> {
        subject(&serde_json::from_value(status).unwrap(), "anyam-ca")
    }

    fn web() -> TokenPod {
        TokenPod {
            namespace: "shop".into(),
            name: "web-0".into(),
            service_account: "web".into(),
        }
    }

    #[test]
    fn the_pod_is_what_the_api_server_says() {
        assert_eq!(reviewed(good()).unwrap(), (web(), "u1".to_owned()));
    }

    #[test]
    fn whatever_is_missing_from_the_answer_refuses_the_token() {
        let changes: [(&str, Value); 13] = [
            ("/authenticated", json!(false)),
            ("/audiences", json!([])),
            ("/audiences", json!(["https://kubernetes.default.svc"])),
            ("/user/username", json!("admin")),
            ("/user/username", json!("system:node:n1")),
            ("/user/username", json!("system:serviceaccount:shop")),
            ("/user/username", json!("system:serviceaccount:shop:a:b")),
            ("/user/username", json!("system:serviceaccount:../x:web")),
            ("/user/extra", json!({})),
            ("/user/extra", json!({POD_NAME: ["web-0"]})),
            ("/user/extra", json!({POD_NAME: ["a", "b"], POD_UID: ["u"]})),
            (
                "/user/extra",
                json!({POD_NAME: ["../../secrets/x"], POD_UID: ["u"]}),
            ),
            ("/user/extra", json!({POD_NAME: [""], POD_UID: ["u"]})),
        ];
        for (pointer, value) in changes {
            let mut status = good();
            *status.pointer_mut(pointer).unwrap() = value.clone();
            let error = reviewed(status).unwrap_err();
            assert!(
                matches!(error, PodTokenError::Invalid(_)),
                "{pointer} {value}: {error}"
            );
        }
        assert!(reviewed(json!({})).is_err());
    }

    #[test]
    fn the_pod_must_be_the_one_and_alive() {
        let checked = |uid: &str, account: &str, phase: &str| {
            let found = json!({
                "metadata": {"uid": uid}, "spec": {"serviceAccountName": account}, "status": {"phase": phase},
            });
            is_pod_of(&serde_json::from_value(found).unwrap(), &web(), "u1")
        };
        for phase in ["Pending", "Running", "Unknown", ""] {
            assert_eq!(checked("u1", "web", phase), Ok(()));
        }
        for (uid, account, phase, word) in [
            ("u2", "web", "Running", "earlier"),
            ("u1", "other", "Running", "`other`"),
            ("u1", "", "Running", "`default`"),
            ("u1", "web", "Failed", "ended"),
            ("u1", "web", "Succeeded", "ended"),
        ] {
            let error = checked(uid, account, phase).unwrap_err();
            assert!(
                matches!(&error, PodTokenError::Pod(why) if why.contains(word)),
                "{error}"
            );
        }
    }

    fn token(claims: &Value) -> String {
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        format!("e30.{payload}.c2ln")
    }

    #[test]
    fn errors_name_the_token_that_is_expected() {
        let pod = json!({"pod": {"name": "web-0", "uid": "u1"}});
        for aud in [json!("anyam-ca"), json!(["x", "anyam-ca"])] {
            let good = token(&json!({"aud": aud, "kubernetes.io": pod}));
            assert_eq!(glance(&good, "anyam-ca"), Ok(()));
        }
        let other =
            token(&json!({"aud": ["https://kubernetes.default.svc"], "kubernetes.io": pod}));
        let unbound = token(&json!({"aud": ["anyam-ca"], "kubernetes.io": {"namespace": "shop"}}));
        let bare = token(&json!({"aud": ["anyam-ca"]}));
        let long = "x".repeat(MAX_TOKEN + 1);
        for (token, word) in [
            ("", "no service-account token"),
            ("a.b", "no service-account token"),
            ("a.!.c", "no service-account token"),
            (&long, "no service-account token"),
            (&other, "https://kubernetes.default.svc"),
            (&unbound, "bound to no pod"),
            (&bare, "bound to no pod"),
        ] {
            let error = glance(token, "anyam-ca").unwrap_err();
            assert!(
                error.contains(word) && error.contains("`anyam-ca`"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(token in ".{0,200}", tail in "[A-Za-z0-9_.-]{0,200}") {
            let _ = glance(&token, "anyam-ca");
            let _ = glance(&tail, "anyam-ca");
        }
    }
}
