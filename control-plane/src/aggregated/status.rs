//! Errors as Kubernetes' clients expect them: a `Status` object.

use http::StatusCode;
use serde_json::json;

use crate::api::reply::{self, Problem, Reply};
use crate::kubernetes::access_review::{GROUP, RESOURCE};

/// `details.causes` has what happened and where, and what to do.
pub fn failure(problem: &Problem) -> Reply {
    let (status, error) = (problem.status(), problem.error());
    let place = match error.location.as_str() {
        "" => String::new(),
        location => format!(" ({location})"),
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{}{place}; {}", error.what, error.todo),
        "reason": reason(status),
        "details": {
            "group": GROUP, "kind": RESOURCE,
            "causes": [
                {"reason": "", "message": error.what, "field": error.location},
                {"reason": "todo", "message": error.todo},
            ],
        },
        "code": status.as_u16(),
    });
    reply::json_with(status, &body)
}

/// The word that Kubernetes has for a status.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::NOT_ACCEPTABLE => "NotAcceptable",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        _ => "InternalError",
    }
}
