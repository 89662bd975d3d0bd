//! The mesh's API, as a client. Types: [`anyam_control::types`].
//!
//! - [`Client`]: one function for each question, whichever mesh is asked
//! - `call`: what a call is; `direct`: to a control plane's own port; `aggregated`: through the API
//!   server of a cluster
//! - `error`: why a call failed
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod aggregated;
mod call;
mod direct;
mod error;

use std::time::Duration;

pub use aggregated::Aggregated;
pub use anyam_control::types;
pub use call::{Scope, WorkloadName};
pub use direct::ControlPlane;
pub use error::ApiError;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::call::{Call, Subject};
use crate::url::{encode, query_string};

/// An answer that takes longer is no answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer read whole.
const MAX_ANSWER: usize = 64 << 20;
/// The longest line of a tap.
const MAX_LINE: usize = 1 << 20;

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A login to the dashboard of a mesh in a cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// Good once, for a short time.
    pub token: String,
    /// RFC 3339.
    pub expires_at: String,
    /// The pod of the control plane that knows the token.
    pub pod: String,
    /// Its namespace, if the control plane says so.
    #[serde(default)]
    pub pod_namespace: Option<String>,
    /// The port on its loopback that serves the page.
    pub port: u16,
}

/// The way to a mesh.
#[derive(Clone)]
enum Transport {
    Direct(ControlPlane),
    Aggregated(Aggregated),
}

impl From<ControlPlane> for Client {
    fn from(direct: ControlPlane) -> Self {
        Client {
            transport: Transport::Direct(direct),
        }
    }
}

impl From<Aggregated> for Client {
    fn from(aggregated: Aggregated) -> Self {
        Client {
            transport: Transport::Aggregated(aggregated),
        }
    }
}

#[derive(Clone)]
pub struct Client {
    transport: Transport,
}

impl Client {
    pub async fn proxies(&self, scope: &Scope) -> Result<types::Proxies, ApiError> {
        self.read(Subject::All(scope, "proxies")).await
    }

    pub async fn edges(&self, scope: &Scope) -> Result<types::Edges, ApiError> {
        self.read(Subject::All(scope, "edges")).await
    }

    pub async fn stats(&self, scope: &Scope) -> Result<types::Stats, ApiError> {
        self.read(Subject::All(scope, "stat")).await
    }

    /// `service`: a name, `namespace/name` or host; empty for all.
    pub async fn routes(&self, scope: &Scope, service: &str) -> Result<types::Routes, ApiError> {
        let mut call = Call::get(Subject::All(scope, "routes"));
        if !service.is_empty() {
            call.query = format!("service={}", encode(service));
        }
        parse("routes", &self.whole(call).await?)
    }

    pub async fn check(&self, scope: &Scope) -> Result<types::Check, ApiError> {
        self.read(Subject::All(scope, "check")).await
    }

    /// `source`: the workload that calls, also in `request`.
    pub async fn explain(
        &self,
        source: &WorkloadName,
        request: &types::ExplainRequest,
    ) -> Result<types::ExplainResponse, ApiError> {
        self.post(Subject::Explain(source), request).await
    }

    /// The proxy's own admin page: `config_dump`, `clusters`, `certs`, `stats`.
    pub async fn dump(&self, workload: &WorkloadName, page: &str) -> Result<Bytes, ApiError> {
        self.whole(Call::get(Subject::Dump(workload, page))).await
    }

    /// A login to the dashboard; only a mesh in a cluster has them.
    pub async fn login(&self, scope: &Scope) -> Result<Login, ApiError> {
        let subject = Subject::All(scope, "session");
        self.post(subject, &serde_json::json!({})).await
    }

    /// The dashboard of a mesh that is not in a cluster, with its token.
    pub fn dashboard_url(&self) -> Option<String> {
        match &self.transport {
            Transport::Direct(direct) => Some(direct.dashboard_url()),
            Transport::Aggregated(_) => None,
        }
    }

    /// Sends every live request, with the line that it came as, until the receiver is dropped or the
    /// stream ends. `query.workload` is not used.
    pub async fn tap(
        &self,
        workload: &WorkloadName,
        query: &types::TapQuery,
        to: &mpsc::Sender<(types::Tap, Vec<u8>)>,
    ) -> Result<(), ApiError> {
        let query = types::TapQuery {
            workload: String::new(),
            ..query.clone()
        };
        let mut call = Call::get(Subject::Tap(workload));
        call.query = query_string(&query);
        let response = within(self.place(), self.send(call)).await?;
        self.lines(response.into_body(), to).await
    }

    async fn lines(
        &self,
        mut body: Body,
        to: &mpsc::Sender<(types::Tap, Vec<u8>)>,
    ) -> Result<(), ApiError> {
        let mut buffer = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = to.closed() => return Ok(()),
            };
            let Some(frame) = frame else {
                return Ok(());
            };
            let frame = frame.map_err(|error| self.broken(error))?;
            if let Some(data) = frame.data_ref() {
                buffer.extend_from_slice(data);
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let line = line.trim_ascii();
                if line.is_empty() {
                    continue;
                }
                let tap = parse("tap", line)?;
                if to.send((tap, line.to_vec())).await.is_err() {
                    return Ok(());
                }
            }
            if buffer.len() > MAX_LINE {
                return Err(self.broken(format!("a line has more than {MAX_LINE} bytes").into()));
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, subject: Subject<'_>) -> Result<T, ApiError> {
        parse(name(subject), &self.whole(Call::get(subject)).await?)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        subject: Subject<'_>,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let path = name(subject);
        let body = serde_json::to_vec(body).map_err(|error| unexpected(path, error))?;
        let call = Call {
            body: Some(body),
            ..Call::get(subject)
        };
        parse(path, &self.whole(call).await?)
    }

    async fn whole(&self, call: Call<'_>) -> Result<Bytes, ApiError> {
        let answer = async {
            let response = self.send(call).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            let collected = body.collect().await;
            collected
                .map(|body| body.to_bytes())
                .map_err(|error| self.broken(error))
        };
        within(self.place(), answer).await
    }

    async fn send(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        match &self.transport {
            Transport::Direct(direct) => direct.send(call).await,
            Transport::Aggregated(aggregated) => aggregated.send(call).await,
        }
    }

    fn broken(&self, error: Box<dyn std::error::Error + Send + Sync>) -> ApiError {
        ApiError::Broken {
            place: self.place(),
            error,
        }
    }

    /// Where the mesh is, for messages.
    fn place(&self) -> String {
        match &self.transport {
            Transport::Direct(direct) => direct.address().to_string(),
            Transport::Aggregated(aggregated) => aggregated.place(),
        }
    }
}

async fn within<T>(
    place: String,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::Late { place }),
    }
}

/// For messages.
fn name(subject: Subject<'_>) -> &'static str {
    match subject {
        Subject::All(_, what) => what,
        Subject::Tap(_) => "tap",
        Subject::Explain(_) => "explain",
        Subject::Dump(..) => "dump",
    }
}

fn unexpected(path: &str, error: serde_json::Error) -> ApiError {
    ApiError::Unexpected {
        path: path.into(),
        error,
    }
}

fn parse<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| unexpected(path, error))
}
