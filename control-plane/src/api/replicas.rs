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

use super::reply::{Body, BrokenBody, Problem};
use super::{Api, proxies};
use crate::ads::node::AuthorisedNode;
use crate::inspect::{AskError, GraphReports, ProxyPage};
use crate::load::{HeldLoad, LoadHolder};
use crate::types::Proxy;

/// The largest answer of another replica that is read whole: its proxies and all their edges.
pub(crate) const MAX_ANSWER: usize = 64 << 20;
/// For an answer to arrive, once its head has: the replica has all of it by then.
const ANSWER: Duration = Duration::from_secs(20);
/// Of an explanation: what gRPC takes of a proxy.
const MAX_EXPLANATION: usize = 4 << 20;

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

/// Proxies that are copied.
#[derive(Clone, Copy)]
enum ShownProxies<'a> {
    /// Of a namespace; empty: all.
    Of(&'a str),
    AtEnds {
        source: (&'a str, &'a str),
        address: &'a str,
    },
}

impl ShownProxies<'_> {
    fn has(self, workload: (&str, &str), at: &str) -> bool {
        match self {
            ShownProxies::Of(namespace) => namespace.is_empty() || workload.0 == namespace,
            ShownProxies::AtEnds { source, address } => workload == source || at == address,
        }
    }
}

fn merged(own: Vec<Proxy>, others: &OthersObservation, shown: ShownProxies<'_>) -> Vec<Proxy> {
    let of_others = others.all.iter().flat_map(|it| &it.proxies);
    let of_others = of_others.filter(|it| shown.has((&it.namespace, &it.workload), &it.address));
    proxies::merged(own.into_iter().chain(of_others.cloned()))
}

impl Api {
    /// From now on the others are asked too.
    pub fn join(&self, others: Arc<dyn OtherReplicas>) {
        // A second time changes nothing: it is done once, at the start.
        let _ = self.others.set(others);
    }

    /// What this replica knows of its own.
    pub(crate) fn observation(&self, namespace: &str) -> ReplicaObservation {
        let now = Instant::now();
        ReplicaObservation {
            proxies: self.own_proxies(ShownProxies::Of(namespace), now),
            graph: self.agents.graph(|graph| graph.reports(namespace, now)),
        }
    }

    fn own_proxies(&self, shown_of: ShownProxies<'_>, now: Instant) -> Vec<Proxy> {
        let shown = |node: &AuthorisedNode| {
            let scope = &node.scope;
            shown_of.has((&scope.namespace, &scope.workload), &node.address)
        };
        let (streams, agents) = (self.registry.of(shown), self.agents.of(shown));
        if streams.is_empty() && agents.is_empty() {
            return Vec::new();
        }
        let workloads = match shown_of {
            ShownProxies::Of(namespace) => self.declared.workloads(namespace),
            // Which services select them is not asked.
            ShownProxies::AtEnds { .. } => Vec::new(),
        };
        proxies::proxies(streams, agents, &workloads, now)
    }

    pub(super) async fn others(&self) -> Arc<OthersObservation> {
        match self.others.get() {
            Some(others) => others.observe().await,
            None => Arc::default(),
        }
    }

    /// `namespace`: only what is of it is copied; empty: everything.
    pub(super) fn observed(&self, others: &OthersObservation, namespace: &str) -> MeshObservation {
        let own = self.observation(namespace);
        let graphs = others.all.iter();
        let graphs = graphs.map(|it| it.graph.of_namespace(namespace));
        MeshObservation {
            proxies: merged(own.proxies, others, ShownProxies::Of(namespace)),
            graph: GraphReports::of_all(std::iter::once(own.graph).chain(graphs)),
            unreachable: others.unreachable.clone(),
        }
    }

    /// The proxies of a workload and at an address, and the replicas that gave no answer.
    pub(super) async fn proxies_at_ends(
        &self,
        source: (&str, &str),
        address: &str,
    ) -> (Vec<Proxy>, Vec<String>) {
        let others = self.others().await;
        let shown = ShownProxies::AtEnds { source, address };
        let own = self.own_proxies(shown, Instant::now());
        (merged(own, &others, shown), others.unreachable.clone())
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
        holder: LoadHolder,
    ) -> Result<ProxyPage, Problem> {
        let held = self.load.page(holder.clone())?;
        match self.agents.dump(workload, page, held).await {
            Err(AskError::Absent(_)) => {}
            answered => return answered.map_err(|error| asking(&error, workload)),
        }
        let held = self.load.page(holder)?;
        let answer = self.ask_others(workload, ProxyQuestion::Dump(page.to_owned()));
        let read = timeout(ANSWER, read_page(answer.await?, held));
        let read = read.await.map_err(|_| late(ANSWER))?;
        read.map_err(|error| match error {
            PageError::Broken(why) => broken(&why.to_string()),
            PageError::Ask(error) => asking(&error, workload),
        })
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
    let read = timeout(within, Limited::new(body, MAX_EXPLANATION).collect()).await;
    let read = read.map_err(|_| late(within))?;
    let read = read.map_err(|error| broken(&error.to_string()))?;
    Ok(read.to_bytes())
}

/// Why the page of another replica is not whole.
enum PageError {
    Broken(BrokenBody),
    Ask(AskError),
}

async fn read_page(mut body: Body, held: HeldLoad) -> Result<ProxyPage, PageError> {
    let mut page = ProxyPage::new(held);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(PageError::Broken)?;
        if let Ok(data) = frame.into_data() {
            page.add(data.to_vec()).map_err(PageError::Ask)?;
        }
    }
    Ok(page)
}

fn late(within: Duration) -> Problem {
    broken(&format!("it did not arrive within {within:?}"))
}

fn broken(why: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        format!("the answer of another replica cannot be read: {why}"),
        "replicas of the control plane",
        "try again; replicas of different versions differ while an upgrade rolls out",
    )
}
