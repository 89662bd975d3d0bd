//! The control plane's HTTP API, as a client. Types: [`anyam_control::types`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use anyam_control::types;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Http, Error as HttpError};
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An answer that takes longer is no answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer read whole.
const MAX_ANSWER: usize = 64 << 20;

/// Why a call of the API failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(
        "the API token {}: {error}; is a control plane running (`anyam context list`)? Choose one with --context, or give --token-file (ANYAM_TOKEN_FILE) the file `api-token` in its state folder",
        path.display()
    )]
    Token {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "the control plane's API at {address} does not answer: {error}; is anyam-control running, and is --api (or ANYAM_API) its address?"
    )]
    Unreachable {
        address: SocketAddr,
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the control plane's API at {0} did not answer within {TIMEOUT:?}")]
    Late(SocketAddr),
    #[error("{what} ({location}); {todo}")]
    Refused {
        status: u16,
        what: String,
        location: String,
        todo: String,
    },
    #[error(
        "the API answered {path} with something else than expected: {error}; are anyam and anyam-control of one version?"
    )]
    Unexpected {
        path: String,
        error: serde_json::Error,
    },
}

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    token: String,
    http: Http<HttpConnector, Full<Bytes>>,
}

impl Client {
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

    pub async fn proxies(&self) -> Result<types::Proxies, ApiError> {
        self.get("/api/v1/proxies").await
    }

    pub async fn edges(&self) -> Result<types::Edges, ApiError> {
        self.get("/api/v1/edges").await
    }

    pub async fn stats(&self) -> Result<types::Stats, ApiError> {
        self.get("/api/v1/stat").await
    }

    /// `service`: a name, `namespace/name` or host; empty for all.
    pub async fn routes(&self, service: &str) -> Result<types::Routes, ApiError> {
        self.get(&format!("/api/v1/routes?service={}", encode(service)))
            .await
    }

    pub async fn check(&self) -> Result<types::Check, ApiError> {
        self.get("/api/v1/check").await
    }

    pub async fn explain(
        &self,
        request: &types::ExplainRequest,
    ) -> Result<types::ExplainResponse, ApiError> {
        let path = "/api/v1/explain";
        let body = serde_json::to_vec(request).map_err(|error| ApiError::Unexpected {
            path: path.into(),
            error,
        })?;
        let body = self.whole(Method::POST, path, body).await?;
        parse(path, &body)
    }

    /// The proxy's own admin page: `config_dump`, `clusters`, `certs`, `stats`.
    pub async fn dump(
        &self,
        namespace: &str,
        workload: &str,
        what: &str,
    ) -> Result<Bytes, ApiError> {
        let path = format!(
            "/api/v1/dump/{}/{}/{}",
            encode(namespace),
            encode(workload),
            encode(what)
        );
        self.whole(Method::GET, &path, Vec::new()).await
    }

    /// Calls `each` with every live request until it returns false or the stream ends.
    pub async fn tap(
        &self,
        query: &types::TapQuery,
        mut each: impl FnMut(&types::Tap, &[u8]) -> bool,
    ) -> Result<(), ApiError> {
        let path = format!("/api/v1/tap?{}", query_string(query));
        let response = self.send(Method::GET, &path, Vec::new()).await?;
        let mut body = response.into_body();
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(error))?;
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let line = line.trim_ascii();
                if !line.is_empty() && !each(&parse(&path, line)?, line) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        parse(path, &self.whole(Method::GET, path, Vec::new()).await?)
    }

    async fn whole(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ApiError> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
            let collected = body.collect().await;
            collected
                .map(|body| body.to_bytes())
                .map_err(|error| self.unreachable(error))
        };
        tokio::time::timeout(TIMEOUT, answer)
            .await
            .map_err(|_| ApiError::Late(self.address))?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.unreachable(error))?;
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error: HttpError| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
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
                location: path.into(),
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

fn parse<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Unexpected {
        path: path.into(),
        error,
    })
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The fields of a flat struct as a query; empty ones are left out.
fn query_string(query: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query) else {
        return String::new();
    };
    let pairs = fields.iter().filter_map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(text) if !text.is_empty() => text.clone(),
            serde_json::Value::Number(number) if number.as_u64() != Some(0) => number.to_string(),
            serde_json::Value::Bool(true) => "true".into(),
            _ => return None,
        };
        Some(format!("{}={}", encode(name), encode(&value)))
    });
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_leave_out_what_means_any_and_encode_the_rest() {
        let query = types::TapQuery {
            workload: "shop/web".into(),
            path: "/a b".into(),
            status: 503,
            headers: true,
            ..Default::default()
        };
        let mut parts: Vec<_> = query_string(&query).split('&').map(str::to_owned).collect();
        parts.sort();
        assert_eq!(
            parts,
            [
                "headers=true",
                "path=%2Fa%20b",
                "status=503",
                "workload=shop%2Fweb"
            ]
        );
    }
}
