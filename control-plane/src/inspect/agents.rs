//! Proxies with an open Inspect stream, and questions to them: each with a deadline, and bounded
//! in what it may answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use xds_proto::anyam::inspect::v1::control_message::Message as Command;
use xds_proto::anyam::inspect::v1::{
    ControlMessage, Dump, DumpChunk, Explain, Explanation, Failure, Report, StartTap, StopTap,
    TapEvent,
};

use super::graph::{Graph, ReportingProxy};
use super::page::{MAX_PAGE, ProxyPage};
use crate::ads::node::AuthorisedNode;
use crate::load::{HeldLoad, Overload};
use crate::metrics::Metrics;
use crate::text::bounded;

const EXPLAIN: Duration = Duration::from_secs(5);
const DUMP: Duration = Duration::from_secs(20);
/// Questions that may be open at one proxy.
const MAX_OPEN: usize = 32;
const TAP_QUEUE: usize = 1024;
/// Resource types in a report.
const MAX_TYPES: usize = 32;

/// Why a proxy gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("no proxy of Workload {0} is connected")]
    Absent(String),
    #[error("the proxy has {MAX_OPEN} requests pending; try again when some are answered")]
    Busy,
    #[error("the proxy did not answer within {} seconds", .0.as_secs())]
    Deadline(Duration),
    #[error("the proxy disconnected before it answered")]
    Left,
    #[error("the proxy reports: {0}")]
    Failed(String),
    #[error("the proxy's answer is larger than {MAX_PAGE} bytes")]
    Large,
    #[error(transparent)]
    Overload(#[from] Overload),
}

enum Waiting {
    Tap(mpsc::Sender<TapEvent>),
    Dump {
        page: ProxyPage,
        done: oneshot::Sender<Result<ProxyPage, AskError>>,
    },
    Explain(oneshot::Sender<Result<Explanation, AskError>>),
}

pub(super) type Commands = mpsc::Sender<Result<ControlMessage, Status>>;

struct Agent {
    node: AuthorisedNode,
    version: String,
    commands: Commands,
    since: Instant,
    report: Option<(Report, Instant)>,
    waiting: HashMap<String, Waiting>,
}

/// What is known of a proxy by its own reports.
#[derive(Clone, Debug)]
pub struct AgentStatus {
    pub node: AuthorisedNode,
    pub version: String,
    pub since: Instant,
    /// The last report, without its edges, and when it came.
    pub report: Option<(Report, Instant)>,
}

pub struct Agents {
    agents: Mutex<HashMap<u64, Agent>>,
    graph: Mutex<Graph>,
    next: AtomicU64,
    metrics: Arc<Metrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Agents {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Agents {
            agents: Mutex::default(),
            graph: Mutex::new(Graph::new(Instant::now())),
            next: AtomicU64::new(1),
            metrics,
        }
    }

    pub(super) fn connect(
        self: &Arc<Self>,
        node: AuthorisedNode,
        version: &str,
        commands: Commands,
    ) -> ConnectedAgent {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.graph).joined(reporter(&node), Instant::now());
        let agent = Agent {
            node,
            version: bounded(version).chars().take(80).collect(),
            commands,
            since: Instant::now(),
            report: None,
            waiting: HashMap::new(),
        };
        lock(&self.agents).insert(id, agent);
        ConnectedAgent {
            agents: Arc::clone(self),
            id,
        }
    }

    /// Those of nodes that match.
    pub fn of(&self, shown: impl Fn(&AuthorisedNode) -> bool) -> Vec<AgentStatus> {
        let status = |agent: &Agent| AgentStatus {
            node: agent.node.clone(),
            version: agent.version.clone(),
            since: agent.since,
            report: agent.report.clone(),
        };
        let agents = lock(&self.agents);
        let of = agents.values().filter(|agent| shown(&agent.node));
        of.map(status).collect()
    }

    pub fn graph<T>(&self, look: impl FnOnce(&Graph) -> T) -> T {
        look(&lock(&self.graph))
    }

    /// Sends a command to the newest stream of a workload and registers the caller for its answer.
    fn ask(
        self: &Arc<Self>,
        (namespace, workload): (&str, &str),
        waiting: Waiting,
        command: impl FnOnce(String) -> Command,
    ) -> Result<Question, AskError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let mut agents = lock(&self.agents);
        let of = |agent: &Agent| {
            agent.node.scope.namespace == namespace && agent.node.scope.workload == workload
        };
        let newest = agents
            .iter_mut()
            .filter(|(_, agent)| of(agent))
            .max_by_key(|(at, _)| **at);
        let Some((at, agent)) = newest else {
            return Err(AskError::Absent(format!("{namespace}/{workload}")));
        };
        if agent.waiting.len() >= MAX_OPEN {
            return Err(AskError::Busy);
        }
        let message = ControlMessage {
            message: Some(command(id.clone())),
        };
        agent
            .commands
            .try_send(Ok(message))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => AskError::Busy,
                mpsc::error::TrySendError::Closed(_) => AskError::Left,
            })?;
        agent.waiting.insert(id.clone(), waiting);
        Ok(Question {
            agents: Arc::clone(self),
            agent: *at,
            id,
            tap: false,
        })
    }

    /// Has a workload's proxy evaluate a hypothetical request. The question's id is set here.
    ///
    /// # Errors
    /// When there is no such proxy, or it gives no answer in time.
    pub async fn explain(
        self: &Arc<Self>,
        workload: (&str, &str),
        explain: Explain,
    ) -> Result<Explanation, AskError> {
        let (done, answer) = oneshot::channel();
        let command = |id| Command::Explain(Explain { id, ..explain });
        let _question = self.ask(workload, Waiting::Explain(done), command)?;
        within(EXPLAIN, answer).await
    }

    /// An admin page of a workload's proxy, of which `held` counts.
    ///
    /// # Errors
    /// When there is no such proxy, or it gives no answer in time.
    pub async fn dump(
        self: &Arc<Self>,
        workload: (&str, &str),
        what: &str,
        held: HeldLoad,
    ) -> Result<ProxyPage, AskError> {
        let (done, answer) = oneshot::channel();
        let waiting = Waiting::Dump {
            page: ProxyPage::new(held),
            done,
        };
        let what = what.to_owned();
        let _question = self.ask(workload, waiting, |id| Command::Dump(Dump { id, what }))?;
        within(DUMP, answer).await
    }

    /// Live events of a workload's proxy, until the receiver is dropped or the proxy leaves.
    ///
    /// # Errors
    /// When there is no such proxy, or too many taps of it run.
    pub fn tap(
        self: &Arc<Self>,
        workload: (&str, &str),
        tap: StartTap,
    ) -> Result<RunningTap, AskError> {
        let (sender, events) = mpsc::channel(TAP_QUEUE);
        let command = |id| Command::StartTap(StartTap { id, ..tap });
        let mut question = self.ask(workload, Waiting::Tap(sender), command)?;
        question.tap = true;
        Ok(RunningTap {
            events,
            _question: question,
        })
    }
}

fn reporter(node: &AuthorisedNode) -> ReportingProxy<'_> {
    ReportingProxy {
        namespace: &node.scope.namespace,
        workload: &node.scope.workload,
        service_account: &node.scope.service_account,
    }
}

async fn within<T>(
    limit: Duration,
    answer: oneshot::Receiver<Result<T, AskError>>,
) -> Result<T, AskError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(AskError::Left),
        Err(_) => Err(AskError::Deadline(limit)),
    }
}

/// A running tap; it ends when this is dropped.
pub struct RunningTap {
    pub events: mpsc::Receiver<TapEvent>,
    _question: Question,
}

/// An open question; removed when dropped.
struct Question {
    agents: Arc<Agents>,
    agent: u64,
    id: String,
    tap: bool,
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut agents = lock(&self.agents.agents);
        let Some(agent) = agents.get_mut(&self.agent) else {
            return;
        };
        agent.waiting.remove(&self.id);
        if self.tap {
            let stop = Command::StopTap(StopTap {
                id: std::mem::take(&mut self.id),
            });
            // Full or closed: the proxy ends the tap by its own time limit.
            let _ = agent.commands.try_send(Ok(ControlMessage {
                message: Some(stop),
            }));
        }
    }
}

/// A connected proxy's entry; removed when dropped, which fails the requests that it has not
/// answered.
pub(super) struct ConnectedAgent {
    agents: Arc<Agents>,
    id: u64,
}

impl Drop for ConnectedAgent {
    fn drop(&mut self) {
        let gone = lock(&self.agents.agents).remove(&self.id);
        if let Some(agent) = gone {
            lock(&self.agents.graph).left(reporter(&agent.node), Instant::now());
        }
    }
}

impl ConnectedAgent {
    fn with<T>(&self, act: impl FnOnce(&mut Agent) -> T) -> Option<T> {
        lock(&self.agents.agents).get_mut(&self.id).map(act)
    }

    pub(super) fn report(&self, mut report: Report) {
        let now = Instant::now();
        let edges = std::mem::take(&mut report.edges);
        report.rejected = bounded(&report.rejected);
        report.certificate_serial = bounded(&report.certificate_serial);
        report.resources.truncate(MAX_TYPES);
        for resource in &mut report.resources {
            resource.type_url = bounded(&resource.type_url);
            resource.version = bounded(&resource.version);
        }
        let kept = self.with(|agent| {
            let before = agent.report.as_ref().map_or(agent.since, |(_, at)| *at);
            agent.report = Some((report, now));
            (agent.node.clone(), now.saturating_duration_since(before))
        });
        if let Some((node, interval)) = kept {
            let interval = interval.max(Duration::from_secs(1));
            let mut graph = lock(&self.agents.graph);
            let dropped = graph.report(reporter(&node), &edges, interval, now);
            self.agents.metrics.edges_dropped.inc_by(dropped);
        }
    }

    pub(super) fn tap_event(&self, mut event: TapEvent) {
        self.with(|agent| {
            if let Some(Waiting::Tap(events)) = agent.waiting.get(&event.id) {
                // A reader that does not keep up loses events, and never slows the proxy.
                let dropped = u64::from(events.capacity() == 0);
                event.dropped = event.dropped.saturating_add(dropped);
                let _ = events.try_send(event);
            }
        });
    }

    pub(super) fn dump_chunk(&self, chunk: DumpChunk) {
        self.with(|agent| {
            let Some(Waiting::Dump { page, .. }) = agent.waiting.get_mut(&chunk.id) else {
                return;
            };
            let added = page.add(chunk.data);
            if (added.is_err() || chunk.last)
                && let Some(Waiting::Dump { page, done }) = agent.waiting.remove(&chunk.id)
            {
                // Fails when the caller no longer waits, which needs no handling.
                let _ = done.send(added.map(|()| page));
            }
        });
    }

    pub(super) fn explanation(&self, explanation: Explanation) {
        self.with(|agent| {
            if let Some(Waiting::Explain(done)) = agent.waiting.remove(&explanation.id) {
                let _ = done.send(Ok(explanation));
            }
        });
    }

    pub(super) fn failure(&self, failure: &Failure) {
        let error = AskError::Failed(bounded(&failure.error));
        self.with(|agent| match agent.waiting.remove(&failure.id) {
            Some(Waiting::Explain(done)) => drop(done.send(Err(error))),
            Some(Waiting::Dump { done, .. }) => drop(done.send(Err(error))),
            Some(Waiting::Tap(_)) | None => {}
        });
    }
}
