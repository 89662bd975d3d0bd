//! A control plane's own port: plaintext HTTP with a token.

use std::net::SocketAddr;
use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::call::{Call, Scope, Subject};
use super::{ApiError, Body, MAX_ANSWER, types};
use crate::url::{encode, encode_page, target};

/// A control plane that is reached by its address.
#[derive(Clone)]
pub struct ControlPlane {
    address: SocketAddr,
    token: String,
    http: Http<HttpConnector, Full<Bytes>>,
}

impl ControlPlane {
    /// # Errors
    /// When the token cannot be read.
    pub fn from_token_file(address: SocketAddr, path: &Path) -> Result<Self, ApiError> {
        let token = std::fs::read_to_string(path).map_err(|error| ApiError::Token {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self::new(address, &token))
    }

    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self {
            address,
            token: token.trim().to_owned(),
            http: Http::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// The dashboard with the token in the fragment, which browsers do not send anywhere.
    pub fn dashboard_url(&self) -> String {
        format!("http://{}/#token={}", self.address, self.token)
    }

    pub(super) async fn send(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let path = path(&call);
        let method = match call.body {
            Some(_) => Method::POST,
            None => Method::GET,
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(call.body.unwrap_or_default())))
            .map_err(|error| self.unreachable(error))?;
        let answer = self.http.request(request).await;
        let response = answer.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = body.await.map(|body| body.to_bytes()).unwrap_or_default();
        Err(match serde_json::from_slice::<types::ApiError>(&body) {
            Ok(error) => ApiError::Refused {
                status: status.as_u16(),
                what: error.what,
                location: error.location,
                todo: error.todo,
            },
            Err(_) => ApiError::Refused {
                status: status.as_u16(),
                what: format!("the API answered {status}"),
                location: path,
                todo: String::from_utf8_lossy(&body).into_owned(),
            },
        })
    }

    fn unreachable(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
        ApiError::Unreachable {
            address: self.address,
            error: error.into(),
        }
    }
}

fn path(call: &Call<'_>) -> String {
    let query = &call.query;
    match call.subject {
        Subject::All(scope, what) => {
            let namespace = match scope {
                Scope::All => String::new(),
                Scope::Namespace(name) => format!("namespace={}", encode(name)),
            };
            target(format!("/api/v1/{what}"), &both(&namespace, query))
        }
        Subject::Tap(workload) => {
            let workload = format!("workload={}", encode(&workload.to_string()));
            target("/api/v1/tap".to_owned(), &both(&workload, query))
        }
        Subject::Explain(_) => "/api/v1/explain".to_owned(),
        Subject::Dump(workload, page) => format!(
            "/api/v1/dump/{}/{}/{}",
            encode(&workload.namespace),
            encode(&workload.name),
            encode_page(page)
        ),
    }
}

fn both(first: &str, second: &str) -> String {
    match (first, second) {
        ("", one) | (one, "") => one.to_owned(),
        (first, second) => format!("{first}&{second}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::WorkloadName;
    use super::*;

    #[test]
    fn each_subject_has_its_path() {
        let (all, shop) = (Scope::All, Scope::Namespace("shop".into()));
        let web = WorkloadName {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let mut tap = Call::get(Subject::Tap(&web));
        assert_eq!(path(&tap), "/api/v1/tap?workload=shop%2Fweb");
        tap.query = "status=503".into();
        assert_eq!(path(&tap), "/api/v1/tap?workload=shop%2Fweb&status=503");
        for (subject, expected) in [
            (Subject::All(&all, "edges"), "/api/v1/edges"),
            (Subject::All(&shop, "edges"), "/api/v1/edges?namespace=shop"),
            (Subject::All(&shop, "check"), "/api/v1/check?namespace=shop"),
            (Subject::Explain(&web), "/api/v1/explain"),
            (
                Subject::Dump(&web, "stats/prometheus"),
                "/api/v1/dump/shop/web/stats/prometheus",
            ),
        ] {
            assert_eq!(path(&Call::get(subject)), expected);
        }
    }
}
