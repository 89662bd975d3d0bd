//! The mesh as all replicas of a control plane see it: each knows the proxies that are connected to it,
//! and asks the others ([`OtherReplicas`]) for the rest. A folder's control plane has no others.
//!
//! A question to a workload's proxy goes to the replica that has its Inspect stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use xds_proto::anyam::inspect::v1::{Explain, Explanation};

use super::reply::{Body, Problem};
use super::{Api, proxies};
use crate::inspect::{AskError, GraphReports};
use crate::types::Proxy;

/// The largest answer of another replica that is read whole: a page of a proxy, or all its edges.
pub(crate) const MAX_ANSWER: usize = 64 << 20;
/// For an answer to arrive, once its head has: the replica has all of it by then.
const ANSWER: Duration = Duration::from_secs(20);

/// What one replica knows of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaObservation {
    pub proxies: Vec<Proxy>,
    pub graph: GraphReports,
}

/// What the others know.
#[derive(Clone, Debug, Default)]
pub struct OthersObservation {
    pub all: Vec<ReplicaObservation>,
    /// Those that gave no answer in time, each with the reason.
    pub unreachable: Vec<String>,
}

/// What a workload's proxy is asked.
#[derive(Clone, Debug)]
pub enum ProxyQuestion {
    Explain(Explain),
    /// A page.
    Dump(String),
    /// The query of a tap, without the workload.
    Tap(String),
}

/// Why no other replica has answered for a workload's proxy.
#[derive(Debug)]
pub enum OthersError {
    /// None of those that answered has the proxy.
    Absent {
        /// As in [`OthersObservation`].
        unreachable: Vec<String>,
    },
    /// The one that has it could not answer.
    Problem(Problem),
}

/// See the module.
#[tonic::async_trait]
pub trait OtherReplicas: Send + Sync + 'static {
    async fn observe(&self) -> Arc<OthersObservation>;

    /// # Errors
    /// When none of them has the workload's proxy, or it does not answer.
    async fn ask(
        &self,
        workload: (&str, &str),
        question: ProxyQuestion,
    ) -> Result<Body, OthersError>;
}

/// What all replicas know.
pub(super) struct MeshObservation {
    pub(super) proxies: Vec<Proxy>,
    pub(super) graph: GraphReports,
    pub(super) unreachable: Vec<String>,
}

impl Api {
    /// From now on the others are asked too.
    pub fn join(&self, others: Arc<dyn OtherReplicas>) {
        // A second time changes nothing: it is done once, at the start.
        let _ = self.others.set(others);
    }

    /// What this replica knows of its own.
    pub(crate) fn observation(&self) -> ReplicaObservation {
        let now = Instant::now();
        let workloads = self.declared.workloads();
        let (streams, agents) = (self.registry.all(), self.agents.all());
        ReplicaObservation {
            proxies: proxies::proxies(streams, agents, &workloads, now),
            graph: self.agents.graph(|graph| graph.reports(now)),
        }
    }

    pub(super) async fn observed(&self) -> MeshObservation {
        let others = match self.others.get() {
            Some(others) => others.observe().await,
            None => Arc::default(),
        };
        let own = self.observation();
        let proxies = others.all.iter().flat_map(|it| it.proxies.clone());
        let graphs = others.all.iter().map(|it| it.graph.clone());
        MeshObservation {
            proxies: proxies::merged(own.proxies.into_iter().chain(proxies)),
            graph: GraphReports::of_all(std::iter::once(own.graph).chain(graphs)),
            unreachable: others.unreachable.clone(),
        }
    }

    pub(super) async fn ask_to_explain(
        &self,
        workload: (&str, &str),
        question: Explain,
    ) -> Result<Explanation, Problem> {
        match self.agents.explain(workload, question.clone()).await {
            Err(AskError::Absent(_)) => {}
            answered => return answered.map_err(|error| asking(&error, workload)),
        }
        let answer = self.ask_others(workload, ProxyQuestion::Explain(question));
        let bytes = whole(answer.await?, ANSWER).await?;
        Explanation::decode(bytes).map_err(|error| broken(&error.to_string()))
    }

    pub(super) async fn ask_to_dump(
        &self,
        workload: (&str, &str),
        page: &str,
    ) -> Result<Bytes, Problem> {
        match self.agents.dump(workload, page).await {
            Err(AskError::Absent(_)) => {}
            answered => {
                return answered
                    .map(Bytes::from)
                    .map_err(|error| asking(&error, workload));
            }
        }
        let answer = self.ask_others(workload, ProxyQuestion::Dump(page.to_owned()));
        whole(answer.await?, ANSWER).await
    }

    pub(super) async fn ask_others(
        &self,
        workload: (&str, &str),
        question: ProxyQuestion,
    ) -> Result<Body, Problem> {
        let name = format!("{}/{}", workload.0, workload.1);
        let Some(others) = self.others.get() else {
            return Err(Problem::asking(&AskError::Absent(name.clone()), &name));
        };
        match others.ask(workload, question).await {
            Ok(body) => Ok(body),
            Err(OthersError::Problem(problem)) => Err(problem),
            Err(OthersError::Absent { unreachable }) if unreachable.is_empty() => {
                Err(Problem::asking(&AskError::Absent(name.clone()), &name))
            }
            Err(OthersError::Absent { unreachable }) => Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                format!(
                    "no proxy of Workload {name} is connected to the replicas that answered; these did not: {}",
                    unreachable.join(", ")
                ),
                format!("proxy of {name}"),
                "try again; see whether all pods of the control plane run and reach port 15444 of each other",
            )),
        }
    }
}

fn asking(error: &AskError, (namespace, workload): (&str, &str)) -> Problem {
    Problem::asking(error, &format!("{namespace}/{workload}"))
}

pub(crate) async fn whole(body: Body, within: Duration) -> Result<Bytes, Problem> {
    let read = timeout(within, Limited::new(body, MAX_ANSWER).collect()).await;
    let read = read.map_err(|_| broken(&format!("it did not arrive within {within:?}")))?;
    let read = read.map_err(|error| broken(&error.to_string()))?;
    Ok(read.to_bytes())
}

fn broken(why: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        format!("the answer of another replica cannot be read: {why}"),
        "replicas of the control plane",
        "try again; replicas of different versions differ while an upgrade rolls out",
    )
}
