//! The HTTP/2 side of the app.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

use super::size;

/// Messages of a gRPC stream, 100 bytes each.
const MESSAGES: usize = 100;

/// Serves a connection to its end.
pub async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20);
    let connection = builder.handshake::<_, Bytes>(stream).await;
    let mut connection = connection.map_err(std::io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            // A stream that breaks is the load's to report.
            let _ = one(request, respond).await;
        });
    }
    Ok(())
}

async fn one(
    mut request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    while let Some(data) = request.body_mut().data().await {
        let length = data?.len();
        request.body_mut().flow_control().release_capacity(length)?;
    }
    let path = request.uri().path();
    let messages = match path {
        "/grpc" => Some(1),
        "/stream" => Some(MESSAGES),
        _ => None,
    };
    let mut response = Response::new(());
    let Some(messages) = messages else {
        let body = Bytes::from(vec![b'x'; size(path.as_bytes())]);
        let headers = response.headers_mut();
        headers.insert("content-length", HeaderValue::from(body.len()));
        return respond
            .send_response(response, false)?
            .send_data(body, true);
    };
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    let mut stream = respond.send_response(response, false)?;
    // Not compressed, 95 bytes.
    let mut message = vec![0, 0, 0, 0, 95];
    message.resize(100, b'x');
    let message = Bytes::from(message);
    for _ in 0..messages {
        stream.send_data(message.clone(), false)?;
        // Each message in a frame of its own, as a server sends that has one now and then.
        tokio::task::yield_now().await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
