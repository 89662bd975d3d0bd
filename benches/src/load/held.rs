//! Connections that are opened, used once, and then held idle.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::client::TlsStream;

use super::connect::exchange;
use super::{tls, void};
use crate::BenchError;
use crate::app::SMALL;
use crate::hop::FRONT;

/// Protocol of a held connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Http1,
    Http2,
    /// HTTP/1.1 over mutual TLS.
    Tls,
}

enum Open {
    Tcp {
        _stream: TcpStream,
    },
    Tls {
        _stream: Box<TlsStream<TcpStream>>,
    },
    Http2 {
        _send: h2::client::SendRequest<bytes::Bytes>,
    },
}

/// The connections; dropping it closes them.
pub struct Held {
    open: Vec<Open>,
    runtime: Runtime,
}

/// Opens `count` connections, each of which has one answer before the next is opened.
///
/// # Errors
/// When one fails.
pub fn hold(kind: Kind, count: usize, scratch: &Path) -> Result<Held, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(void)?;
    let connector = tls::connector(scratch, false)?;
    let open = runtime.block_on(async {
        let mut open = Vec::with_capacity(count);
        for _ in 0..count {
            open.push(one(kind, &connector).await.map_err(void)?);
        }
        Ok::<_, BenchError>(open)
    })?;
    Ok(Held { open, runtime })
}

impl Held {
    /// Closes all, in an orderly way.
    pub fn close(self) {
        let Held { open, runtime } = self;
        runtime.block_on(async move {
            drop(open);
            // The tasks that drive HTTP/2 connections send GOAWAY.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        });
    }
}

async fn one(kind: Kind, connector: &tokio_rustls::TlsConnector) -> std::io::Result<Open> {
    if kind == Kind::Tls {
        let mut stream = tls::connect(connector, FRONT).await?;
        exchange(&mut stream, false).await?;
        let _stream = Box::new(stream);
        return Ok(Open::Tls { _stream });
    }
    let mut stream = TcpStream::connect(("127.0.0.1", FRONT)).await?;
    stream.set_nodelay(true)?;
    match kind {
        Kind::Http2 => {
            let (mut send, connection) = h2::client::handshake(stream)
                .await
                .map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            let request = http::Request::get("http://app/")
                .body(())
                .map_err(std::io::Error::other)?;
            let (response, _) = send
                .send_request(request, true)
                .map_err(std::io::Error::other)?;
            let response = response.await.map_err(std::io::Error::other)?;
            let mut body = response.into_body();
            while let Some(data) = body.data().await {
                let length = data.map_err(std::io::Error::other)?.len();
                let released = body.flow_control().release_capacity(length);
                released.map_err(std::io::Error::other)?;
            }
            Ok(Open::Http2 { _send: send })
        }
        Kind::Http1 => {
            exchange(&mut stream, false).await?;
            Ok(Open::Tcp { _stream: stream })
        }
        Kind::Tcp | Kind::Tls => {
            stream.write_all(&[b'q'; SMALL]).await?;
            stream.read_exact(&mut [0; SMALL]).await?;
            Ok(Open::Tcp { _stream: stream })
        }
    }
}
