//! The stream: hello, reports at an interval, and answers to the control plane's requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use xds_proto::anyam::inspect::v1 as pb;
use xds_proto::anyam::inspect::v1::control_message;
use xds_proto::anyam::inspect::v1::inspect_client::InspectClient;
use xds_proto::anyam::inspect::v1::proxy_message;
use xds_proto::google::protobuf::Duration as WireDuration;

use super::explain;
use super::report::{Deltas, report, timestamp};
use crate::admin::Admin;
use crate::config::demand::OnDemandClient;
use crate::telemetry::Telemetry;
use crate::telemetry::tap::{Filter, TapEvent};
use crate::xds::backoff::Backoff;
use crate::xds::channel::ManagementServer;

/// Messages on their way out.
const QUEUE: usize = 256;
/// A dump travels in pieces of this size.
const CHUNK: usize = 64 << 10;
/// The longest a tap may last, whatever is requested.
const MAX_TAP: Duration = Duration::from_secs(3600);
/// A stream that stood for so long counts as success for the back-off.
const STABLE: Duration = Duration::from_secs(10);

/// See the module.
pub struct Agent {
    pub admin: Arc<Admin>,
    pub telemetry: Arc<Telemetry>,
    /// For explanations: fetches resources on demand, as the app's first connection would.
    pub demand: Option<OnDemandClient>,
    pub target: ManagementServer,
    pub node_id: String,
    pub interval: Duration,
}

impl Agent {
    /// Runs as long as the process; reconnects.
    pub async fn run(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut deltas = Deltas::default();
        loop {
            let began = tokio::time::Instant::now();
            if let Err(why) = self.connected(&mut deltas).await {
                tracing::debug!(why, "no Inspect stream");
            }
            if began.elapsed() >= STABLE {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next(fastrand::f64())).await;
        }
    }

    async fn connected(&self, deltas: &mut Deltas) -> Result<(), String> {
        let channel = self.target.connect().await.map_err(|e| e.to_string())?;
        let (out, messages) = mpsc::channel(QUEUE);
        send(&out, self.hello()).await?;
        let messages = futures_util::stream::unfold(messages, |mut messages| async move {
            messages.recv().await.map(|message| (message, messages))
        });
        let mut client = InspectClient::new(channel);
        let stream = client.attach(messages).await.map_err(|e| e.to_string())?;
        let mut asked = stream.into_inner();
        let mut tick = tokio::time::interval(self.interval);
        let mut work = JoinSet::new();
        let mut taps: HashMap<String, AbortHandle> = HashMap::new();
        let outcome = loop {
            tokio::select! {
                _ = tick.tick() => {
                    let edges = deltas.take(&self.telemetry.edges);
                    let said = report(&self.admin, &self.admin.drain, edges);
                    if let Err(why) = send(&out, proxy_message::Message::Report(said)).await {
                        break Err(why);
                    }
                }
                message = asked.next() => match message {
                    Some(Ok(pb::ControlMessage { message: Some(message) })) => {
                        self.answer(message, &out, &mut work, &mut taps);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(status)) => break Err(status.to_string()),
                    None => break Ok(()),
                },
                _ = work.join_next(), if !work.is_empty() => {}
            }
        };
        for id in taps.keys() {
            self.telemetry.taps.close(id);
        }
        outcome
    }

    fn hello(&self) -> proxy_message::Message {
        proxy_message::Message::Hello(pb::Hello {
            node_id: self.node_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Some(timestamp(self.admin.started)),
        })
    }

    fn answer(
        &self,
        asked: control_message::Message,
        out: &mpsc::Sender<pb::ProxyMessage>,
        work: &mut JoinSet<()>,
        taps: &mut HashMap<String, AbortHandle>,
    ) {
        match asked {
            control_message::Message::StartTap(tap) => {
                let id = tap.id.clone();
                let running = work.spawn(run_tap(self.telemetry.clone(), tap, out.clone()));
                if let Some(before) = taps.insert(id, running) {
                    before.abort();
                }
            }
            control_message::Message::StopTap(pb::StopTap { id }) => {
                self.telemetry.taps.close(&id);
                if let Some(running) = taps.remove(&id) {
                    running.abort();
                }
            }
            control_message::Message::Dump(dump) => {
                work.spawn(run_dump(self.admin.clone(), dump, out.clone()));
            }
            control_message::Message::Explain(asked) => {
                let (store, demand, out) =
                    (self.admin.store.clone(), self.demand.clone(), out.clone());
                work.spawn(async move {
                    let answer = match demand {
                        Some(demand) => explain::fetch(&store, &demand, &asked).await,
                        None => None,
                    };
                    let said = match explain::explain(&store.load(), &asked, answer) {
                        Ok(decisions) => proxy_message::Message::Explanation(pb::Explanation {
                            id: asked.id,
                            decisions,
                        }),
                        Err(error) => failure(asked.id, error),
                    };
                    // Fails when the stream has ended: the answer has no reader then.
                    let _ = send(&out, said).await;
                });
            }
        }
    }
}

fn failure(id: String, error: String) -> proxy_message::Message {
    proxy_message::Message::Failure(pb::Failure { id, error })
}

async fn send(
    out: &mpsc::Sender<pb::ProxyMessage>,
    said: proxy_message::Message,
) -> Result<(), String> {
    let message = pb::ProxyMessage {
        message: Some(said),
    };
    out.send(message)
        .await
        .map_err(|_| "the stream is over".to_owned())
}

async fn run_dump(admin: Arc<Admin>, dump: pb::Dump, out: mpsc::Sender<pb::ProxyMessage>) {
    let asked = format!("/{}", dump.what.trim_start_matches('/'));
    let (path, query) = asked.split_once('?').unwrap_or((&asked, ""));
    let page = match admin.page(path, query).await {
        Ok(page) => page,
        Err(error) => {
            // Fails when the stream has ended: the answer has no reader then.
            let _ = send(&out, failure(dump.id, error.why)).await;
            return;
        }
    };
    let mut rest = &page.body[..];
    loop {
        let (piece, after) = rest.split_at_checked(CHUNK).unwrap_or((rest, &[]));
        let said = proxy_message::Message::DumpChunk(pb::DumpChunk {
            id: dump.id.clone(),
            data: piece.to_vec(),
            last: after.is_empty(),
        });
        if send(&out, said).await.is_err() || after.is_empty() {
            return;
        }
        rest = after;
    }
}

async fn run_tap(
    telemetry: Arc<Telemetry>,
    tap: pb::StartTap,
    out: mpsc::Sender<pb::ProxyMessage>,
) {
    let lasting = tap
        .lasting
        .map(|d| Duration::from_secs(u64::try_from(d.seconds).unwrap_or(0)));
    let lasting = lasting.unwrap_or(MAX_TAP).min(MAX_TAP);
    let filter = filter(tap.filter.unwrap_or_default());
    let opened = telemetry
        .taps
        .open(&tap.id, filter, tap.headers, tap.max_per_second, lasting);
    let mut events = match opened {
        Ok(events) => events,
        Err(error) => {
            // Fails when the stream has ended: the answer has no reader then.
            let _ = send(&out, failure(tap.id, error.to_string())).await;
            return;
        }
    };
    let local = telemetry.local.principal.clone();
    let relaying = async {
        while let Some(event) = events.recv().await {
            let said = proxy_message::Message::TapEvent(tap_event(&tap.id, &local, event));
            if send(&out, said).await.is_err() {
                return;
            }
        }
    };
    // Over time or by itself: either way the end of the tap.
    let _ = tokio::time::timeout(lasting, relaying).await;
    drop(events);
    telemetry.taps.close(&tap.id);
}

fn filter(filter: pb::TapFilter) -> Filter {
    use pb::tap_filter::Direction;
    Filter {
        inbound: match filter.direction() {
            Direction::Both => None,
            Direction::Inbound => Some(true),
            Direction::Outbound => Some(false),
        },
        method: filter.method,
        path: filter.path,
        authority: filter.authority,
        status: u16::try_from(filter.status).unwrap_or(u16::MAX),
        peer_identity: filter.peer_identity,
    }
}

fn tap_event(id: &str, local: &str, event: TapEvent) -> pb::TapEvent {
    let address = |at: Option<std::net::SocketAddr>| at.map_or(String::new(), |a| a.to_string());
    let headers = |list: Vec<(String, String)>| {
        let header = |(name, value)| pb::Header { name, value };
        list.into_iter().map(header).collect::<Vec<_>>()
    };
    let request_id = event
        .request_headers
        .iter()
        .find(|(name, _)| name == "x-request-id")
        .map_or(String::new(), |(_, value)| value.clone());
    pb::TapEvent {
        id: id.to_owned(),
        start: Some(timestamp(event.start)),
        duration: Some(WireDuration {
            seconds: i64::try_from(event.duration.as_secs()).unwrap_or(i64::MAX),
            // Below a thousand million.
            nanos: event.duration.subsec_nanos() as i32,
        }),
        inbound: event.inbound,
        protocol: event.protocol.to_owned(),
        method: event.method,
        authority: event.authority,
        path: event.path,
        status: event.status.into(),
        grpc_status: event.grpc_status,
        response_flags: event.flags,
        details: event.details,
        peer_address: address(event.peer),
        peer_identity: event.peer_identity,
        local_identity: local.to_owned(),
        route: event.route,
        cluster: event.cluster,
        upstream: address(event.upstream),
        attempts: event.attempts,
        bytes_received: event.received,
        bytes_sent: event.sent,
        request_id,
        request_headers: headers(event.request_headers),
        response_headers: headers(event.response_headers),
        dropped: event.dropped,
    }
}
