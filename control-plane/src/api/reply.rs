//! Responses of the API.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::inspect::{AskError, ProxyPage};
use crate::load::{HeldAnswer, Overload, RunningRead};
use crate::types::ApiError;

pub type Body = UnsyncBoxBody<Bytes, BrokenBody>;
pub type Reply = Response<Body>;

/// Why a body ends too early. The connection is closed then: an end in order would say that it is whole.
#[derive(Clone, Debug, thiserror::Error)]
#[error("it broke off: {0}")]
pub struct BrokenBody(pub String);

pub fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never| match never {});
    with_body(status, content_type, body.boxed_unsync())
}

pub fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    let fixed = HeaderValue::from_static;
    headers.insert(CONTENT_TYPE, fixed(content_type));
    headers.insert(CACHE_CONTROL, fixed("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    headers.insert(REFERRER_POLICY, fixed("no-referrer"));
    reply
}

/// The answer of a read, which counts until it is read.
///
/// # Errors
/// When it can't be encoded, or has too many bytes.
pub fn of_read(read: RunningRead, value: &impl Serialize) -> Result<Reply, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an API response can't be encoded");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let todo = "see the control plane's log";
        Problem::new(status, "the answer can't be encoded", "", todo)
    })?;
    Ok(held("application/json", read.answer(body)?))
}

pub fn page(content_type: &'static str, page: ProxyPage) -> Reply {
    held(content_type, page.into_answer())
}

fn held(content_type: &'static str, answer: HeldAnswer) -> Reply {
    let body = answer.map_err(|unread| BrokenBody(unread.to_string()));
    with_body(StatusCode::OK, content_type, body.boxed_unsync())
}

pub fn json(value: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, value)
}

pub fn json_with(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut reply = bytes(status, "application/json", body);
            if status == StatusCode::TOO_MANY_REQUESTS {
                let headers = reply.headers_mut();
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            reply
        }
        Err(error) => {
            tracing::error!(%error, "an API response can't be encoded");
            bytes(
                StatusCode::INTERNAL_SERVER_ERROR,
                "application/json",
                Bytes::new(),
            )
        }
    }
}

/// An error a person can act on: what, where, what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    error: ApiError,
}

impl Problem {
    pub fn new(
        status: StatusCode,
        what: impl Into<String>,
        location: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Problem {
            status,
            error: ApiError {
                what: what.into(),
                location: location.into(),
                todo: todo.into(),
            },
        }
    }

    pub fn bad(
        what: impl Into<String>,
        location: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, what, location, todo)
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn error(&self) -> &ApiError {
        &self.error
    }

    /// A question that a proxy did not answer.
    pub fn asking(error: &AskError, workload: &str) -> Self {
        let (status, todo) = match error {
            AskError::Absent(_) => (
                StatusCode::NOT_FOUND,
                "see `anyam proxies` for those that are; start the workload's sidecar",
            ),
            AskError::Busy => (StatusCode::TOO_MANY_REQUESTS, "wait, or end other taps"),
            AskError::Overload(overload) => return (*overload).into(),
            AskError::Deadline(_) => (
                StatusCode::GATEWAY_TIMEOUT,
                "see whether the proxy is overloaded; its log and its metrics on port 15090 show it",
            ),
            AskError::Left => (StatusCode::BAD_GATEWAY, "try again when it is connected"),
            AskError::Failed(_) | AskError::Large => (
                StatusCode::BAD_GATEWAY,
                "ask for something else, or look at the proxy's log",
            ),
        };
        Problem::new(
            status,
            error.to_string(),
            format!("proxy of {workload}"),
            todo,
        )
    }
}

impl From<Overload> for Problem {
    fn from(overload: Overload) -> Problem {
        let todo = match overload {
            Overload::OfHolder => "try again when some are answered; ask for less at once",
            Overload::OfAll => "try again in a second",
        };
        let status = StatusCode::TOO_MANY_REQUESTS;
        Problem::new(status, overload.to_string(), "open requests", todo)
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Reply {
        json_with(problem.status, &problem.error)
    }
}
