//! AdmissionReview (admission.k8s.io/v1): a pod that is to be created, and the patch that injects
//! it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::hook_token::HookTokens;
use super::settings::MeshSettings;
use super::{Injection, NamespaceFacts, inject, set};

const API_VERSION: &str = "admission.k8s.io/v1";
/// A value takes some hundred bytes of memory, however short its text is.
const MAX_VALUES: usize = 50_000;

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
    #[error("the body has more than {MAX_VALUES} JSON values, which no pod needs")]
    TooManyValues,
}

/// What was done with a pod, for metrics and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewOutcome {
    Injected,
    Skipped,
    Denied,
    /// The object is no pod, or the operation is not CREATE.
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

/// Answers a body. `enabled`: the pod's namespace has the label, which the API server decided by
/// the webhook's selector.
///
/// # Errors
/// The body is no review that can be answered.
pub fn answer(
    body: &[u8],
    enabled: bool,
    settings: &MeshSettings,
) -> Result<(Value, ReviewOutcome), ReviewError> {
    if values(body) > MAX_VALUES {
        return Err(ReviewError::TooManyValues);
    }
    let review: Review = serde_json::from_slice(body)?;
    if review.api_version != API_VERSION || review.kind != "AdmissionReview" {
        return Err(ReviewError::Version {
            api_version: review.api_version,
            kind: review.kind,
        });
    }
    let request = review.request.ok_or(ReviewError::NoRequest)?;
    let (mut response, outcome) = respond(&request, enabled, settings);
    set(&mut response, "uid", request.uid.into());
    let review = json!({
        "apiVersion": API_VERSION,
        "kind": "AdmissionReview",
        "response": response,
    });
    Ok((review, outcome))
}

/// How many JSON values are in a text, at most: each is the first of a list or object, or follows a
/// comma.
fn values(text: &[u8]) -> usize {
    let mut count = 1usize;
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' if !in_string => count = count.saturating_add(1),
            _ => {}
        }
    }
    count
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
            // The patch consists of JSON values, so serialising it does not fail.
            let patch = serde_json::to_vec(&patch).unwrap_or_default();
            set(&mut response, "patchType", "JSONPatch".into());
            set(&mut response, "patch", STANDARD.encode(patch).into());
            (response, ReviewOutcome::Injected)
        }
        Ok(Injection::Skipped(skip)) => {
            let warning = skip.is_surprising().then(|| format!("no sidecar: {skip}"));
            let mut response = allowed(warning.as_slice());
            let skipped = json!({"skipped": skip.to_string()});
            set(&mut response, "auditAnnotations", skipped);
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

/// The API server truncates warnings to 256 characters where there are many.
fn bounded(warning: &str) -> String {
    warning.chars().take(256).collect()
}
