//! Answers the other replicas, from what this one knows itself.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use prost::Message;
use rustls::{ServerConfig, ServerConnection};
use tokio::time::timeout;
use xds_proto::anyam::inspect::v1::Explain;

use super::BASE;
use super::connection::is_control_plane;
use crate::api::reply::{self, Problem, Reply};
use crate::api::secure::SecureService;
use crate::api::server::MAX_BODY;
use crate::api::{Api, query, tap};
use crate::ca::Identity;
use crate::load::LoadHolder;
use crate::text::bounded;

/// For a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub struct ReplicaServer {
    pub api: Arc<Api>,
    pub tls: Arc<ServerConfig>,
    /// What each peer has to show.
    pub identity: Identity,
}

impl SecureService for ReplicaServer {
    type Trust = ();
    type Client = ();

    fn tls(&self) -> Result<(Arc<ServerConfig>, ()), String> {
        Ok((Arc::clone(&self.tls), ()))
    }

    fn client(&self, (): (), tls: &ServerConnection) -> Result<(), String> {
        let shown = tls.peer_certificates().and_then(<[_]>::first);
        is_control_plane(shown, &self.identity)
    }

    async fn answer(&self, request: Request<Incoming>, (): &()) -> Reply {
        self.respond(request).await.unwrap_or_else(Reply::from)
    }
}

impl ReplicaServer {
    async fn respond(&self, request: Request<Incoming>) -> Result<Reply, Problem> {
        let path = request.uri().path().to_owned();
        let words = request.uri().query().unwrap_or_default().to_owned();
        let rest = path.strip_prefix(BASE).unwrap_or_default();
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        let post = request.method() == Method::POST;
        match &parts[..] {
            ["observation"] if request.method() == Method::GET => {
                // Each replica asks once a second at most. Were there a bound that reads share, two
                // replicas could wait for each other.
                Ok(reply::json(&self.api.observation("")))
            }
            ["workloads", namespace, workload, "explain"] if post => {
                let question = explain(request).await?;
                let asked = self.api.agents.explain((namespace, workload), question);
                let answer = asked
                    .await
                    .map_err(|error| of(&error, namespace, workload))?;
                let kind = "application/x-protobuf";
                Ok(reply::bytes(StatusCode::OK, kind, answer.encode_to_vec()))
            }
            ["workloads", namespace, workload, "dump", page @ ..] if post => {
                let page = page.join("/");
                let held = self.api.load.page(LoadHolder::Replicas)?;
                let asked = self.api.agents.dump((namespace, workload), &page, held);
                let answer = asked
                    .await
                    .map_err(|error| of(&error, namespace, workload))?;
                Ok(reply::page("application/octet-stream", answer))
            }
            ["workloads", namespace, workload, "tap"] if post => {
                let query = query::tap(&words)?;
                let agents = &self.api.agents;
                let tapped = tap::of_this_replica(agents, (namespace, workload), &query)?;
                tapped.ok_or_else(|| unknown(&path))
            }
            _ => Err(unknown(&path)),
        }
    }
}

fn of(error: &crate::inspect::AskError, namespace: &str, workload: &str) -> Problem {
    Problem::asking(error, &format!("{namespace}/{workload}"))
}

fn unknown(path: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "nothing is here",
        bounded(path),
        "replicas of one version ask for what there is",
    )
}

async fn explain(request: Request<Incoming>) -> Result<Explain, Problem> {
    let bad = |why: String| Problem::bad(why, "body", "send an Explain message");
    let read = Limited::new(request.into_body(), MAX_BODY).collect();
    let read = timeout(BODY_TIMEOUT, read).await;
    let read = read.map_err(|_| bad("it did not arrive in time".to_owned()))?;
    let read = read.map_err(|error| bad(error.to_string()))?;
    Explain::decode(read.to_bytes()).map_err(|error| bad(error.to_string()))
}
