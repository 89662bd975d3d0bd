//! AdmissionReview (admission.k8s.io/v1): a pod that is to be created, and the patch that injects
//! it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::hook_token::HookTokens;
use super::settings::MeshSettings;
use super::{Injection, NamespaceFacts, inject};

const API_VERSION: &str = "admission.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<ReviewRequest>,
}

#[derive(Deserialize)]
struct ReviewRequest {
    uid: String,
    kind: ReviewedKind,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
struct ReviewedKind {
    group: String,
    version: String,
    kind: String,
}

/// Why there is no answer to a body.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("the body is no AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "the body is a {kind} of {api_version}; this webhook takes an AdmissionReview of \
         {API_VERSION}: set admissionReviewVersions to [v1]"
    )]
    Version { api_version: String, kind: String },
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// What became of a pod, for metrics and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewOutcome {
    Injected,
    Skipped,
    Denied,
    /// No pod, or not about to be created.
    OtherKind,
}

impl ReviewOutcome {
    pub fn label(self) -> &'static str {
        match self {
            ReviewOutcome::Injected => "injected",
            ReviewOutcome::Skipped => "skipped",
            ReviewOutcome::Denied => "denied",
            ReviewOutcome::OtherKind => "other",
        }
    }
}

/// Answers a body. `enabled`: the pod's namespace has the label, as the API server found by the
/// webhook's selector.
///
/// # Errors
/// The body is no review that can be answered.
pub fn answer(
    body: &[u8],
    enabled: bool,
    settings: &MeshSettings,
) -> Result<(Value, ReviewOutcome), ReviewError> {
    let review: Review = serde_json::from_slice(body)?;
    if review.api_version != API_VERSION || review.kind != "AdmissionReview" {
        return Err(ReviewError::Version {
            api_version: review.api_version,
            kind: review.kind,
        });
    }
    let request = review.request.ok_or(ReviewError::NoRequest)?;
    let (mut response, outcome) = respond(&request, enabled, settings);
    response["uid"] = request.uid.into();
    let review = json!({
        "apiVersion": API_VERSION,
        "kind": "AdmissionReview",
        "response": response,
    });
    Ok((review, outcome))
}

fn respond(
    request: &ReviewRequest,
    enabled: bool,
    settings: &MeshSettings,
) -> (Value, ReviewOutcome) {
    let ReviewedKind {
        group,
        version,
        kind,
    } = &request.kind;
    if (&**group, &**version, &**kind) != ("", "v1", "Pod") || request.operation != "CREATE" {
        let warning = format!(
            "anyam: {} of {kind} is not injection's business; the webhook's rules should have \
             CREATE of pods only",
            request.operation
        );
        return (allowed(&[warning]), ReviewOutcome::OtherKind);
    }
    let namespace = NamespaceFacts {
        name: &request.namespace,
        enabled,
    };
    let token = HookTokens::Random.token(&request.uid);
    let injected = token.and_then(|token| inject(&request.object, namespace, settings, &token));
    match injected {
        Ok(Injection::Injected { pod, warnings }) => {
            let mut response = allowed(&warnings);
            let patch = json_patch::diff(&request.object, &pod);
            // It is made of JSON values: writing it does not fail.
            let patch = serde_json::to_vec(&patch).unwrap_or_default();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch).into();
            (response, ReviewOutcome::Injected)
        }
        Ok(Injection::Skipped(skip)) => {
            let warning = skip.is_surprising().then(|| format!("no sidecar: {skip}"));
            let mut response = allowed(warning.as_slice());
            response["auditAnnotations"] = json!({"skipped": skip.to_string()});
            (response, ReviewOutcome::Skipped)
        }
        Err(error) => {
            let denied = json!({
                "allowed": false,
                "status": {
                    "status": "Failure",
                    "message": error.to_string(),
                    "reason": "Invalid",
                    "code": 422,
                },
            });
            (denied, ReviewOutcome::Denied)
        }
    }
}

fn allowed(warnings: &[String]) -> Value {
    match warnings.is_empty() {
        true => json!({"allowed": true}),
        false => {
            let warnings: Vec<String> = warnings.iter().map(|w| bounded(w)).collect();
            json!({"allowed": true, "warnings": warnings})
        }
    }
}

/// The API server cuts warnings off, at 256 characters each where there are many.
fn bounded(warning: &str) -> String {
    warning.chars().take(256).collect()
}
