//! The gRPC service: one task per stream drives one session.
//!
//! A response is made only when the connection has room for one, so a slow proxy holds only marks
//! of what changed, and delays no other stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use xds_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};

use super::debounce::Debounce;
use super::dispatch::{Dispatch, Subscriber};
use super::node;
use super::outbound::{Sender, outbound};
use super::registry::{Registry, Stream};
use super::resources::Resources;
use super::session::{RequestError, Session, SessionLimits};
use super::streams::{StreamLimit, StreamPermit, Superseded};
use super::subscription::label;
use super::wire::{Delta, Sotw, Wire};
use crate::identity::Peer;
use crate::metrics::Metrics;
use crate::model::Key;
use crate::text::bounded;

const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// A proxy's start takes some dozens of requests; on-demand look-ups come one by one.
const REQUEST_BURST: f64 = 1000.0;
const REQUESTS_PER_SECOND: f64 = 200.0;

/// Streams of one workload may hold this many times the state that one stream may: one is in use, one
/// is ending.
const STATES_OF_WORKLOAD: usize = 2;

/// Everything that the streams share.
pub struct Ads {
    resources: Arc<dyn Resources>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    dispatch: Arc<Dispatch>,
    closing: watch::Receiver<bool>,
    streams: Arc<StreamLimit>,
    limits: SessionLimits,
    trust_domain: String,
}

impl Ads {
    /// `closing` turns true when the process stops.
    pub fn new(
        resources: Arc<dyn Resources>,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        closing: watch::Receiver<bool>,
        (max_streams, limits): (usize, SessionLimits),
        trust_domain: &str,
    ) -> Self {
        let dispatch = Arc::new(Dispatch::default());
        Ads {
            dispatch,
            resources,
            registry,
            metrics,
            closing,
            streams: StreamLimit::new(max_streams),
            limits,
            trust_domain: trust_domain.to_owned(),
        }
    }

    /// Wakes the streams that changes concern, until the process stops. Without it none is sent any.
    pub fn dispatch(&self) -> impl Future<Output = ()> + Send + use<> {
        let dispatching = debounced(Arc::clone(&self.resources), Arc::clone(&self.dispatch));
        let mut closing = self.closing.clone();
        async move {
            tokio::select! {
                () = dispatching => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
    }

    // A status is what gRPC answers with.
    #[allow(clippy::result_large_err)]
    fn start<W: Wire>(self: &Arc<Self>, request: Request<Streaming<W::Request>>) -> Started<W> {
        let peer = node::authenticated(&request)?;
        let (permit, superseded) = self.streams.enter(&peer).ok_or_else(|| {
            Status::resource_exhausted("too many ADS streams; raise --max-streams or add a replica")
        })?;
        let (responses, outbound, end) = outbound(1);
        let ads = Arc::clone(self);
        tokio::spawn(async move {
            let place = (&permit, superseded);
            let ended = ads.run::<W>(peer, request.into_inner(), &responses, place);
            if let Err(status) = ended.await {
                // Its state is dropped by now; a lower weight is never refused.
                let _ = permit.weigh(0, usize::MAX);
                end.with(status, &responses).await;
            }
            // The permit is held until nothing of the stream is left.
            drop(permit);
        });
        Ok(Response::new(Box::pin(outbound)))
    }

    async fn run<W: Wire>(
        &self,
        peer: Peer,
        mut inbound: Streaming<W::Request>,
        responses: &Sender<W::Response>,
        (permit, mut superseded): (&StreamPermit, Superseded),
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(FIRST_REQUEST, inbound.message());
        let first = tokio::select! {
            first = first => first.map_err(|_| Status::deadline_exceeded("no request came"))??,
            why = permit.superseded(&mut superseded) => return Err(why),
        };
        let Some(first) = first else { return Ok(()) };
        let Some(claimed) = W::node(&first) else {
            return Err(Status::invalid_argument(
                "the first request of a stream must name its node",
            ));
        };
        let view = self.resources.view();
        let node =
            node::authorise(claimed, &peer, &*view, &self.trust_domain).inspect_err(|status| {
                tracing::warn!(reason = status.message(), "ADS stream refused")
            })?;
        let mut session = Session::new(W::PROTOCOL, node.scope.clone(), self.limits, &*view);
        tracing::info!(node = node.id, protocol = ?W::PROTOCOL, "proxy connected");
        let entry = self.registry.connect(Stream {
            node: node.clone(),
            protocol: W::PROTOCOL,
            verified: peer.verified.clone(),
            since: Instant::now(),
            kinds: Vec::new(),
        });
        let scope = &node.scope;
        let place = Key::new(&scope.namespace, &scope.workload);
        let mut subscriber = self.dispatch.join(place);
        let mut closing = self.closing.clone();
        let mut bucket = Bucket::new(Instant::now());
        let mut weighed = 0;
        self.take::<W>((&mut session, &mut subscriber), &first, &node.id)?;
        loop {
            let (bytes, max) = session.weigh(&*self.resources.view()).map_err(refused)?;
            if bytes != std::mem::replace(&mut weighed, bytes) {
                let of_workload = permit.weigh(bytes, STATES_OF_WORKLOAD.saturating_mul(max));
                of_workload.map_err(|error| Status::resource_exhausted(error.to_string()))?;
            }
            entry.update(session.status());
            let wait = bucket.wait(Instant::now());
            tokio::select! {
                room = responses.reserve(), if session.has_work() => {
                    let Ok(room) = room else { return Ok(()) };
                    session.skip_to(subscriber.clean_until());
                    if let Some(push) = session.next(&*self.resources.view()) {
                        self.metrics.pushes.with_label_values(&[label(&push.type_url)]).inc();
                        room.send(Ok(W::response(push)));
                    }
                }
                message = inbound.message(), if wait.is_zero() => {
                    let Some(message) = message? else { return Ok(()) };
                    bucket.take();
                    self.take::<W>((&mut session, &mut subscriber), &message, &node.id)?;
                }
                () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                () = subscriber.woken() => {
                    session.skip_to(subscriber.clean_until());
                    session.look(&*self.resources.view());
                }
                _ = closing.wait_for(|closing| *closing) => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
                () = responses.closed() => return Ok(()),
                why = permit.superseded(&mut superseded) => return Err(why),
            }
        }
    }

    #[allow(clippy::result_large_err)]
    fn take<W: Wire>(
        &self,
        (session, subscriber): (&mut Session, &mut Subscriber),
        request: &W::Request,
        node: &str,
    ) -> Result<(), Status> {
        if let Some((type_url, message)) = W::refusal(request) {
            self.metrics
                .rejections
                .with_label_values(&[label(type_url)])
                .inc();
            tracing::warn!(
                node,
                kind = label(type_url),
                message = bounded(message),
                "update rejected"
            );
        }
        // A session that has seen everything up to now enters its new subscriptions, and looks at
        // what changed meanwhile: no change falls between.
        let view = self.resources.view();
        session.skip_to(subscriber.clean_until());
        session.look(&*view);
        W::apply(session, request, &*view, Instant::now()).map_err(refused)?;
        subscriber.update(session.take_interests(), &*view);
        session.look(&*self.resources.view());
        Ok(())
    }
}

fn refused(error: RequestError) -> Status {
    let message = error.to_string();
    match error {
        RequestError::NoType | RequestError::UnknownType(_) | RequestError::Locators => {
            Status::invalid_argument(message)
        }
        RequestError::Names(_)
        | RequestError::NameLength(_)
        | RequestError::VersionLength(_)
        | RequestError::State(_) => Status::resource_exhausted(message),
    }
}

/// Wakes streams for changes, gathered; until there can be no more.
async fn debounced(resources: Arc<dyn Resources>, dispatch: Arc<Dispatch>) {
    let mut debounce = Debounce::new(Duration::from_millis(10), Duration::from_millis(500));
    let mut generations = resources.generations();
    let mut last = *generations.borrow_and_update();
    loop {
        let due = debounce.due().map(tokio::time::Instant::from_std);
        let pause = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now));
        tokio::select! {
            changed = generations.changed() => match changed {
                Ok(()) => debounce.changed(Instant::now()),
                Err(_) => return,
            },
            () = pause, if due.is_some() => {}
        }
        if debounce.take(Instant::now()) {
            let view = resources.view();
            let next = view.generation();
            dispatch.wake((last, next), &view.touched_since(last));
            last = next;
        }
    }
}

/// Requests per second of one stream: beyond it they wait in the connection's own window.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Bucket {
            tokens: REQUEST_BURST,
            at: now,
        }
    }

    fn wait(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * REQUESTS_PER_SECOND).min(REQUEST_BURST);
        if self.tokens >= 1.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.tokens) / REQUESTS_PER_SECOND)
            .max(Duration::from_millis(1))
    }

    fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

type Responses<T> = BoxStream<'static, Result<T, Status>>;
type Started<W> = Result<Response<Responses<<W as Wire>::Response>>, Status>;

/// The service's methods take `&self`, and streams outlive them.
#[derive(Clone)]
pub struct SharedAds(pub Arc<Ads>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for SharedAds {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.0.start::<Sotw>(request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.0.start::<Delta>(request)
    }
}
