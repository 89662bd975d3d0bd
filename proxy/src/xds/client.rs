//! The ADS stream under the cache: connects, reconnects, and feeds events to it one by one.
//!
//! One task with one loop: it sends requests, publishes changes, answers on-demand requests, and
//! waits for the next event. In whatever state the stream breaks, the configuration in force stays.
//!
//! - `publish`: turns the cache's changes into the next snapshot

mod publish;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use xds_proto::envoy::config::core::v3::Node;

use super::backoff::Backoff;
use super::cache::{Cache, Change, Config, DemandResult, Now, Validate};
use super::channel::{ChannelError, ManagementServer};
use super::handle::Query;
pub use super::handle::{DumpedResource, Handle, State};
use super::message::{DiscoveryRequest, DiscoveryResponse, ProtocolVariant};
use super::resource_type::Key;
use super::stream::{AdsClient, ResponseStream, open_delta, open_sotw};
use super::versions;
use crate::config::demand::OnDemandRequest;

/// Largest message taken from the server, bytes.
const MAX_MESSAGE: usize = 64 << 20;
/// A stream that stood for so long counts as success for the back-off.
const STABLE: Duration = Duration::from_secs(10);
/// The longest that workers get to act on what was published before requests go on.
const SETTLE: Duration = Duration::from_secs(1);
/// How often on-demand resources are looked over.
const SWEEP: Duration = Duration::from_secs(60);

/// What the client does with validated resources.
pub trait Apply: Validate {
    /// The first configuration is in force, or was waited for long enough: publishes the listeners
    /// that were held back for it. True: there were some. Called again if it panics.
    fn initialised(&mut self) -> bool;

    /// Waits until published listeners listen.
    fn listening(&self) -> impl Future<Output = ()> + Send;

    /// Waits, bounded, until what changes is fit for traffic: clusters have their names resolved.
    /// `first`: nothing is in force yet.
    fn warm(&self, changes: &[Change<Self::Value>], first: bool)
    -> impl Future<Output = ()> + Send;

    /// Whether clusters, published or among `changes`, wait for the first results of their active
    /// health checks.
    fn awaits_checks(&self, changes: &[Change<Self::Value>]) -> bool;

    /// Waits for these results, bounded.
    fn checked(&self) -> impl Future<Output = ()> + Send;

    /// Publishes one more snapshot, which new requests use at once. The changes belong together and
    /// are in make-before-break order. True: there are listeners among them, which need some time
    /// ([`Self::listening`]). After a panic it is called again with a part of them.
    fn publish(&mut self, changes: Vec<Change<Self::Value>>) -> bool;

    /// The resource that an on-demand request needs.
    fn key(&self, wanted: &OnDemandRequest) -> Key;

    /// Answers an on-demand request; what was published is in force already.
    fn answer(&self, wanted: OnDemandRequest, outcome: DemandResult);

    /// On-demand resources that were not used for long.
    fn idle(&mut self, cache: &Cache<Self::Value>, now: Now) -> Vec<Key>;
}

/// See the module.
pub struct Client<A: Apply> {
    cache: Cache<A::Value>,
    apply: A,
    target: ManagementServer,
    node: Node,
    protocol: ProtocolVariant,
    wants: Option<mpsc::Receiver<OnDemandRequest>>,
    waiting: HashMap<Key, Vec<OnDemandRequest>>,
    /// Removals whose publication panicked: tried again with the next changes.
    removals: Vec<Change<A::Value>>,
    queries: mpsc::Receiver<Query>,
    state: watch::Sender<State>,
    link: XdsLink,
    backoff: Backoff,
    /// The first configuration is in force, or was waited for long enough.
    initialised: bool,
    /// The versions in [`State`] are out of date.
    changed: bool,
    next_sweep: Instant,
}

type Opening = Pin<Box<dyn Future<Output = Result<ResponseStream, Status>> + Send>>;
type Connecting =
    Pin<Box<dyn Future<Output = Result<tonic::transport::Channel, ChannelError>> + Send>>;

enum XdsLink {
    Waiting(Instant),
    Connecting(Connecting),
    Opening {
        since: Instant,
        outgoing: RequestSender,
        opening: Opening,
    },
    Open {
        since: Instant,
        outgoing: RequestSender,
        incoming: ResponseStream,
    },
}

struct RequestSender {
    sender: mpsc::UnboundedSender<DiscoveryRequest>,
}

enum ClientEvent {
    Connected(Result<tonic::transport::Channel, ChannelError>),
    Opened(Result<ResponseStream, Status>),
    Received(Option<Result<DiscoveryResponse, Status>>),
    Demand(Option<OnDemandRequest>),
    Query(Option<Query>),
    Time,
}

impl<A: Apply> Client<A> {
    /// `wants`: the receiving end of [`crate::config::demand::OnDemandClient`].
    pub fn new(
        config: Config,
        apply: A,
        target: ManagementServer,
        node: Node,
        wants: Option<mpsc::Receiver<OnDemandRequest>>,
    ) -> (Self, Handle) {
        let now = Now::read();
        let (sender, queries) = mpsc::channel(16);
        let (state, watched) = watch::channel(State::default());
        let client = Client {
            protocol: config.protocol,
            cache: Cache::new(config, now),
            apply,
            target,
            node,
            wants,
            waiting: HashMap::new(),
            removals: Vec::new(),
            queries,
            state,
            link: XdsLink::Waiting(now.instant),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            initialised: false,
            changed: true,
            next_sweep: now.after(SWEEP),
        };
        let handle = Handle {
            queries: sender,
            state: watched,
        };
        (client, handle)
    }

    /// Goes on after [`Client::run`] panicked: with a new stream, on which the held versions are
    /// sent.
    pub fn restart(&mut self) {
        self.lost("the client panicked");
    }

    /// Runs until every [`Handle`] is gone.
    pub async fn run(&mut self) {
        loop {
            self.deliver().await;
            match self.next_event().await {
                ClientEvent::Connected(Ok(channel)) => self.open(channel),
                ClientEvent::Connected(Err(error)) => self.lost(&error.to_string()),
                ClientEvent::Opened(Ok(incoming)) => self.opened(incoming),
                ClientEvent::Opened(Err(status)) => self.lost(&describe(&status)),
                ClientEvent::Received(Some(Ok(response))) => {
                    self.changed = true;
                    self.cache.receive(response, &mut self.apply, Now::read());
                }
                ClientEvent::Received(Some(Err(status))) => self.lost(&describe(&status)),
                ClientEvent::Received(None) => self.lost("the server ended the stream"),
                ClientEvent::Demand(Some(wanted)) => self.want(wanted).await,
                ClientEvent::Demand(None) => self.wants = None,
                ClientEvent::Query(Some(query)) => self.answer_query(query),
                ClientEvent::Query(None) => return,
                ClientEvent::Time => self.tick(),
            }
        }
    }

    /// Delivers the cache's output: changes, then answers, then requests. So a server whose
    /// response is acknowledged can rely on it being in force.
    async fn deliver(&mut self) {
        let listeners = self.publish().await;
        let first = !self.initialised && self.cache.is_initialised(Now::read());
        if first {
            self.apply.checked().await;
        }
        let opened = first && self.apply.initialised();
        // Set only now: after a panic above it is done again when the task is restarted.
        self.initialised |= first;
        for (key, outcome) in self.cache.take_answers() {
            for wanted in self.waiting.remove(&key).unwrap_or_default() {
                self.apply.answer(wanted, outcome);
            }
        }
        if listeners || opened {
            // A worker that is stuck must not hold up the configuration of the others.
            let _ = tokio::time::timeout(SETTLE, self.apply.listening()).await;
        }
        while let Some(request) = self.cache.next_request() {
            if let XdsLink::Opening { outgoing, .. } | XdsLink::Open { outgoing, .. } = &self.link {
                // Fails only when the stream has ended, which the receiving side notices too.
                let _ = outgoing.sender.send(request);
            }
        }
        self.report(None);
    }

    async fn next_event(&mut self) -> ClientEvent {
        let deadline = self.cache.next_deadline().unwrap_or(self.next_sweep);
        let first = Some(self.cache.initial_deadline()).filter(|_| !self.initialised);
        let deadline = deadline.min(self.next_sweep);
        let deadline = first.map_or(deadline, |first| deadline.min(first)).into();
        let wants = &mut self.wants;
        let wanted = async {
            match wants {
                Some(wants) => wants.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = progress(&mut self.link, &self.target) => event,
            wanted = wanted => ClientEvent::Demand(wanted),
            query = self.queries.recv() => ClientEvent::Query(query),
            () = tokio::time::sleep_until(deadline) => ClientEvent::Time,
        }
    }

    fn open(&mut self, channel: tonic::transport::Channel) {
        let (sender, requests) = mpsc::unbounded_channel();
        let client = AdsClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(usize::MAX);
        let node = Some(self.node.clone());
        let opening: Opening = match self.protocol {
            ProtocolVariant::Delta => Box::pin(open_delta(client, requests, node)),
            ProtocolVariant::Sotw => Box::pin(open_sotw(client, requests, node)),
        };
        // Before the response's headers: many servers send them only with their first response.
        self.cache.connected(Now::read());
        self.link = XdsLink::Opening {
            since: Instant::now(),
            outgoing: RequestSender { sender },
            opening,
        };
        tracing::info!(target = ?self.target, "connected to the control plane");
    }

    fn opened(&mut self, incoming: ResponseStream) {
        let link = std::mem::replace(&mut self.link, XdsLink::Waiting(Instant::now()));
        if let XdsLink::Opening {
            since, outgoing, ..
        } = link
        {
            self.link = XdsLink::Open {
                since,
                outgoing,
                incoming,
            };
        }
    }

    fn lost(&mut self, why: &str) {
        let now = Now::read();
        if let XdsLink::Opening { since, .. } | XdsLink::Open { since, .. } = &self.link
            && since.elapsed() >= STABLE
        {
            self.backoff.reset();
        }
        let wait = self.backoff.next(fastrand::f64());
        tracing::warn!(why, retry_in = ?wait, "no ADS stream; the last valid configuration stays in force");
        self.cache.disconnected(now);
        self.link = XdsLink::Waiting(now.after(wait));
        self.report(Some(why));
    }

    async fn want(&mut self, wanted: OnDemandRequest) {
        let key = self.apply.key(&wanted);
        let mut outcome = self.cache.want(&key, Now::read());
        if outcome.is_some() {
            // What has come into force by now is published, or refused, before the answer.
            self.publish().await;
            outcome = self.cache.want(&key, Now::read());
        }
        match outcome {
            Some(outcome) => self.apply.answer(wanted, outcome),
            None => {
                let waiting = self.waiting.entry(key).or_default();
                waiting.retain(|other| !other.answer.is_closed());
                waiting.push(wanted);
            }
        }
    }

    fn tick(&mut self) {
        let now = Now::read();
        self.cache.tick(now);
        if now.instant >= self.next_sweep {
            self.next_sweep = now.after(SWEEP);
            for key in self.apply.idle(&self.cache, now) {
                self.cache.evict(&key, now);
            }
        }
    }

    fn answer_query(&self, query: Query) {
        let Query::Dump(sender) = query;
        let resources = self.cache.resources().map(|(key, status)| DumpedResource {
            key: key.clone(),
            active: status.active,
            warming: status.warming,
            rejected: status
                .rejected
                .map(|(version, why, at)| (version.to_owned(), why.to_owned(), at)),
        });
        let mut resources: Vec<_> = resources.collect();
        resources.sort_by(|a, b| a.key.cmp(&b.key));
        // The caller may be gone.
        let _ = sender.send(resources);
    }

    fn report(&mut self, error: Option<&str>) {
        let connected = self.cache.is_connected();
        let initialised = self.initialised;
        let versions = std::mem::take(&mut self.changed).then(|| versions::of(&self.cache));
        self.state.send_if_modified(|state| {
            let next = State {
                connected,
                initialised,
                last_received: self.cache.last_received(),
                rejected: self.cache.rejected().map(str::to_owned),
                versions: versions.unwrap_or_else(|| state.versions.clone()),
                error: match error {
                    Some(error) => Some(error.to_owned()),
                    None if connected => None,
                    None => state.error.clone(),
                },
            };
            let modified = *state != next;
            *state = next;
            modified
        });
    }
}

/// The next step of the connection.
async fn progress(link: &mut XdsLink, target: &ManagementServer) -> ClientEvent {
    loop {
        match link {
            XdsLink::Waiting(until) => {
                tokio::time::sleep_until((*until).into()).await;
                let target = target.clone();
                *link = XdsLink::Connecting(Box::pin(async move { target.connect().await }));
            }
            XdsLink::Connecting(connecting) => return ClientEvent::Connected(connecting.await),
            XdsLink::Opening { opening, .. } => return ClientEvent::Opened(opening.await),
            XdsLink::Open { incoming, .. } => return ClientEvent::Received(incoming.next().await),
        }
    }
}

fn describe(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
