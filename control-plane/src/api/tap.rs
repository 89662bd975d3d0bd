//! Live requests of a workload, one JSON object per line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;
use xds_proto::anyam::inspect::v1::tap_filter::Direction;
use xds_proto::anyam::inspect::v1::{Header, StartTap, TapEvent, TapFilter};
use xds_proto::google::protobuf::Duration as ProtoDuration;

use super::access::{ApiAccess, MeshVerb};
use super::clock::{rfc3339, unix};
use super::replicas::ProxyQuestion;
use super::reply::{self, BrokenBody, Problem, Reply};
use super::{Api, query};
use crate::inspect::{Agents, AskError};
use crate::types::{Tap, TapQuery};

const NDJSON: &str = "application/x-ndjson";
const DEFAULT_RATE: u32 = 100;
const MAX_RATE: u32 = 10_000;
const LONGEST: u32 = 3600;

/// # Errors
/// When the query is malformed or not permitted, or the workload's proxy can't be reached.
pub async fn tap(api: &Api, query: &TapQuery, access: &ApiAccess) -> Result<Reply, Problem> {
    let (namespace, workload) = super::workload(&query.workload, access, "workload")?;
    access.require(MeshVerb::Tap, namespace, workload).await?;
    match of_this_replica(&api.agents, (namespace, workload), query)? {
        Some(reply) => Ok(reply),
        None => {
            let question = ProxyQuestion::Tap(query::of_tap(query));
            let body = api.ask_others((namespace, workload), question).await?;
            Ok(reply::with_body(StatusCode::OK, NDJSON, body))
        }
    }
}

/// `None`: the workload's proxy is not connected to this replica.
///
/// # Errors
/// When the query is malformed, or the proxy can't be reached.
pub(crate) fn of_this_replica(
    agents: &Arc<Agents>,
    (namespace, workload): (&str, &str),
    query: &TapQuery,
) -> Result<Option<Reply>, Problem> {
    let direction = match &*query.direction {
        "" => Direction::Both,
        "inbound" => Direction::Inbound,
        "outbound" => Direction::Outbound,
        other => {
            return Err(Problem::bad(
                format!("`{other}` is no direction"),
                "direction",
                "give inbound or outbound, or leave it out",
            ));
        }
    };
    let seconds = match query.seconds {
        0 => LONGEST,
        seconds => seconds.min(LONGEST),
    };
    let rate = match query.max_per_second {
        0 => DEFAULT_RATE,
        rate => rate.min(MAX_RATE),
    };
    let start = StartTap {
        filter: Some(TapFilter {
            method: query.method.clone(),
            path: query.path.clone(),
            authority: query.authority.clone(),
            status: query.status,
            peer_identity: query.peer_identity.clone(),
            direction: direction.into(),
        }),
        max_per_second: rate,
        lasting: Some(ProtoDuration {
            seconds: seconds.into(),
            nanos: 0,
        }),
        headers: query.headers,
        ..StartTap::default()
    };
    let tap = match agents.tap((namespace, workload), start) {
        Ok(tap) => tap,
        Err(AskError::Absent(_)) => return Ok(None),
        Err(error) => {
            let of = format!("{namespace}/{workload}");
            return Err(Problem::asking(&error, &of));
        }
    };
    let now = Instant::now();
    let end = now.checked_add(Duration::from_secs(seconds.into()));
    let end = end.unwrap_or(now);
    let names = (namespace.to_owned(), workload.to_owned());
    let lines = futures_util::stream::unfold((tap, names), move |(mut tap, names)| async move {
        let event = tokio::time::timeout_at(end, tap.events.recv()).await;
        let line = line(event.ok()??, &names);
        Some((Ok::<_, BrokenBody>(Frame::data(line)), (tap, names)))
    });
    let body = StreamBody::new(lines).boxed_unsync();
    Ok(Some(reply::with_body(StatusCode::OK, NDJSON, body)))
}

fn line(event: TapEvent, (namespace, workload): &(String, String)) -> Bytes {
    let pairs = |headers: Vec<Header>| -> Vec<(String, String)> {
        headers
            .into_iter()
            .map(|one| (one.name, one.value))
            .collect()
    };
    let at = event
        .start
        .as_ref()
        .and_then(|at| unix(at.seconds, at.nanos));
    let duration = event.duration.as_ref();
    #[allow(clippy::cast_precision_loss)] // shown to people
    let ms = |d: &ProtoDuration| d.seconds as f64 * 1e3 + f64::from(d.nanos) / 1e6;
    let tap = Tap {
        at: at.map(rfc3339).unwrap_or_default(),
        workload: workload.clone(),
        namespace: namespace.clone(),
        direction: if event.inbound { "inbound" } else { "outbound" }.into(),
        protocol: event.protocol,
        method: event.method,
        authority: event.authority,
        path: event.path,
        status: event.status,
        grpc_status: event.grpc_status,
        duration_ms: duration.map(ms).unwrap_or_default(),
        response_flags: event.response_flags,
        details: event.details,
        peer_address: event.peer_address,
        peer_identity: event.peer_identity,
        local_identity: event.local_identity,
        route: event.route,
        cluster: event.cluster,
        upstream: event.upstream,
        attempts: event.attempts,
        bytes_received: event.bytes_received,
        bytes_sent: event.bytes_sent,
        request_id: event.request_id,
        request_headers: pairs(event.request_headers),
        response_headers: pairs(event.response_headers),
        dropped: event.dropped,
    };
    let mut line = serde_json::to_vec(&tap).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
