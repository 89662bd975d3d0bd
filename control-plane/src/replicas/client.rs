//! Asks the other replicas, all at once. One that gives no answer in time is named, with the reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use super::BASE;
use super::addresses::ReplicaAddress;
use super::connection::{ReplicaConnector, problem, whole};
use crate::api::replicas::{
    OtherReplicas, OthersError, OthersObservation, ProxyQuestion, ReplicaObservation,
};
use crate::api::reply::{Body, BrokenBody, Problem};
use crate::identity::is_segment;
use crate::text::bounded;

/// How long what was observed is shown: many readers make no more calls than one.
const FRESH: Duration = Duration::from_secs(1);
/// How long a proxy may take, at the replica that it is connected to.
const EXPLAIN: Duration = Duration::from_secs(5);
const DUMP: Duration = Duration::from_secs(20);

/// See the module.
pub struct ReplicaClient {
    addresses: watch::Receiver<Vec<ReplicaAddress>>,
    connector: ReplicaConnector,
    /// One call at a time is made of all replicas.
    observed: Mutex<Option<(Instant, Arc<OthersObservation>)>>,
}

/// A replica's answer for a workload's proxy.
enum ProxyAnswer {
    Has(Body),
    /// It does not have the proxy.
    Absent,
    Problem(Problem),
    Unreachable(String),
}

impl ReplicaClient {
    pub fn new(
        addresses: watch::Receiver<Vec<ReplicaAddress>>,
        connector: ReplicaConnector,
    ) -> Self {
        ReplicaClient {
            addresses,
            connector,
            observed: Mutex::default(),
        }
    }

    fn others(&self) -> Vec<ReplicaAddress> {
        self.addresses.borrow().clone()
    }

    /// What one replica knows; all of it must come in time.
    async fn observe_one(&self, replica: &ReplicaAddress) -> Result<ReplicaObservation, String> {
        let address = listening(replica)?;
        let request = Request::get(format!("{BASE}/observation")).body(Full::default());
        let request = request.map_err(|error| error.to_string())?;
        let answer = async {
            let response = self
                .connector
                .send(address, request, Duration::ZERO)
                .await?;
            match response.status() {
                StatusCode::OK => whole(response).await,
                status => Err(format!("it answered {status}")),
            }
        };
        let within = self.connector.within;
        let body = timeout(within, answer).await;
        let body = body.map_err(|_| format!("no answer within {} s", within.as_secs()))??;
        serde_json::from_slice(&body).map_err(|error| format!("its answer cannot be read: {error}"))
    }

    async fn observe_all(&self) -> OthersObservation {
        let others = self.others();
        let asked = others.iter().map(|replica| async move {
            let observed = self.observe_one(replica).await;
            observed.map_err(|why| unreachable(replica, &why))
        });
        let mut found = OthersObservation::default();
        for one in join_all(asked).await {
            match one {
                Ok(observation) => found.all.push(observation),
                Err(unreachable) => found.unreachable.push(unreachable),
            }
        }
        found
    }

    async fn ask_one(
        &self,
        replica: ReplicaAddress,
        path: String,
        body: Bytes,
        takes: Duration,
    ) -> ProxyAnswer {
        let sent = async {
            let address = listening(&replica)?;
            let request = Request::post(path).body(Full::new(body));
            let request = request.map_err(|error| error.to_string())?;
            self.connector.send(address, request, takes).await
        };
        match sent.await {
            Ok(response) => match response.status() {
                StatusCode::OK => ProxyAnswer::Has(forwarded(&replica, response)),
                StatusCode::NOT_FOUND => ProxyAnswer::Absent,
                _ => ProxyAnswer::Problem(problem(response, self.connector.within).await),
            },
            Err(why) => ProxyAnswer::Unreachable(unreachable(&replica, &why)),
        }
    }
}

#[tonic::async_trait]
impl OtherReplicas for ReplicaClient {
    async fn observe(&self) -> Arc<OthersObservation> {
        let mut observed = self.observed.lock().await;
        if let Some((at, known)) = &*observed
            && at.elapsed() < FRESH
        {
            return Arc::clone(known);
        }
        let found = Arc::new(self.observe_all().await);
        *observed = Some((Instant::now(), Arc::clone(&found)));
        found
    }

    async fn ask(
        &self,
        (namespace, workload): (&str, &str),
        question: ProxyQuestion,
    ) -> Result<Body, OthersError> {
        let (what, body, takes) = match question {
            ProxyQuestion::Explain(explain) => {
                ("explain".to_owned(), explain.encode_to_vec(), EXPLAIN)
            }
            ProxyQuestion::Dump(page) => (format!("dump/{page}"), Vec::new(), DUMP),
            ProxyQuestion::Tap(query) => (format!("tap?{query}"), Vec::new(), Duration::ZERO),
        };
        // They become part of a path.
        if !is_segment(namespace) || !is_segment(workload) {
            let unreachable = Vec::new();
            return Err(OthersError::Absent { unreachable });
        }
        let path = format!("{BASE}/workloads/{namespace}/{workload}/{what}");
        let body = Bytes::from(body);
        let others = self.others().into_iter();
        let mut asked: FuturesUnordered<_> = others
            .map(|replica| self.ask_one(replica, path.clone(), body.clone(), takes))
            .collect();
        let (mut unreachable, mut refused) = (Vec::new(), None);
        while let Some(answer) = asked.next().await {
            match answer {
                // The others are not waited for.
                ProxyAnswer::Has(body) => return Ok(body),
                ProxyAnswer::Absent => {}
                ProxyAnswer::Problem(problem) => refused = Some(problem),
                ProxyAnswer::Unreachable(replica) => unreachable.push(replica),
            }
        }
        match refused {
            Some(problem) => Err(OthersError::Problem(problem)),
            None => Err(OthersError::Absent { unreachable }),
        }
    }
}

fn listening(replica: &ReplicaAddress) -> Result<SocketAddr, String> {
    let why = "it does not listen for replicas; is it of an older version?";
    replica.address.ok_or_else(|| why.to_owned())
}

fn unreachable(replica: &ReplicaAddress, why: &str) -> String {
    format!("{}: {}", replica.name, bounded(why))
}

/// The body as it comes. Where the other replica's connection breaks off, it does so too.
fn forwarded(replica: &ReplicaAddress, response: Response<Incoming>) -> Body {
    let name = replica.name.clone();
    let body = response.into_body();
    body.map_err(move |error| BrokenBody(format!("{name}: {error}")))
        .boxed_unsync()
}
