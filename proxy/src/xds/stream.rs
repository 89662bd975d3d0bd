//! Opens the two kinds of ADS stream, and converts their messages to the cache's types.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tonic::Status;
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::envoy::service::discovery::v3 as pb;
use xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

use super::codec;
use super::message::{DiscoveryRequest, DiscoveryResponse};

pub(super) type ResponseStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;

pub(super) type AdsClient = AggregatedDiscoveryServiceClient<tonic::transport::Channel>;

pub(super) async fn open_delta(
    mut client: AdsClient,
    requests: mpsc::UnboundedReceiver<DiscoveryRequest>,
    node: Option<Node>,
) -> Result<ResponseStream, Status> {
    let requests = outgoing(requests, node, |request, node| match request {
        DiscoveryRequest::Delta(request) => Some(codec::delta_request(request, node)),
        DiscoveryRequest::Sotw(_) => None,
    });
    let responses = client.delta_aggregated_resources(requests).await?;
    let decode = |r: pb::DeltaDiscoveryResponse| DiscoveryResponse::Delta(codec::delta_response(r));
    Ok(responses.into_inner().map(move |r| r.map(decode)).boxed())
}

pub(super) async fn open_sotw(
    mut client: AdsClient,
    requests: mpsc::UnboundedReceiver<DiscoveryRequest>,
    node: Option<Node>,
) -> Result<ResponseStream, Status> {
    let requests = outgoing(requests, node, |request, node| match request {
        DiscoveryRequest::Sotw(request) => Some(codec::sotw_request(request, node)),
        DiscoveryRequest::Delta(_) => None,
    });
    let responses = client.stream_aggregated_resources(requests).await?;
    let decode = |r: pb::DiscoveryResponse| DiscoveryResponse::Sotw(codec::sotw_response(r));
    Ok(responses.into_inner().map(move |r| r.map(decode)).boxed())
}

/// Requests as a stream; the first one carries the node.
fn outgoing<R: Send + 'static>(
    requests: mpsc::UnboundedReceiver<DiscoveryRequest>,
    node: Option<Node>,
    encode: impl Fn(DiscoveryRequest, Option<Node>) -> Option<R> + Copy + Send + 'static,
) -> impl futures_util::Stream<Item = R> + Send + 'static {
    futures_util::stream::unfold(
        (requests, node),
        move |(mut requests, mut node)| async move {
            loop {
                let request = requests.recv().await?;
                if let Some(request) = encode(request, node.take()) {
                    return Some((request, (requests, node)));
                }
            }
        },
    )
}
