//! The gRPC health check, in plaintext as the kubelet sends it.

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::transport::Endpoint;
use tower::service_fn;
use xds_proto::grpc::health::v1::HealthCheckRequest;
use xds_proto::grpc::health::v1::health_check_response::ServingStatus;
use xds_proto::grpc::health::v1::health_client::HealthClient;

use super::dial::Dialer;
use super::http::AGENT;

/// Limit of a health check's response, which has a few bytes.
const MAX_ANSWER: usize = 4 << 10;

/// # Errors
/// Why the check failed, as text.
pub(super) async fn check(dialer: Dialer, port: u16, service: &str) -> Result<(), String> {
    let address = std::net::SocketAddr::new(dialer.app, port);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent(AGENT))
        .map_err(|error| error.to_string())?;
    let connect = service_fn(move |_: Uri| async move {
        let connected = dialer.connect(port).await;
        connected.map(TokioIo::new).map_err(std::io::Error::other)
    });
    let channel = endpoint.connect_with_connector(connect).await;
    let channel = channel.map_err(|error| described(&error))?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let response = client.check(request).await;
    let response =
        response.map_err(|status| format!("gRPC {:?}: {}", status.code(), status.message()))?;
    match response.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("it says {}", other.as_str_name())),
    }
}

/// The innermost error: tonic's own text is only "transport error".
fn described(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
