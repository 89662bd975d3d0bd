//! The client side: opening a tunnel by CONNECT.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, Uri};
use http::{Method, Request};

use crate::bug;
use crate::dispatcher::buffer::Pool;
use crate::http::h2::{Connected, blame_server};
use crate::http::request::error::Failure;
use crate::stream::tunnel::{StreamGuard, TunnelInfo, TunnelStream};

/// A tunnel's destination.
pub struct Connect {
    pub authority: Vec<u8>,
    /// The protocol inside, for an `ALPN` header (RFC 7639); needs no escaping.
    pub alpn: Option<&'static str>,
    pub headers: Vec<(Box<str>, Vec<u8>)>,
}

impl Connect {
    fn request(&self) -> Result<Request<()>, Failure> {
        let mistaken = |what: &str| {
            let what = format!("the {what} of the CONNECT is no valid one");
            Failure::Connect(what.into())
        };
        let authority = Authority::try_from(&*self.authority);
        let mut uri = http::uri::Parts::default();
        uri.authority = Some(authority.map_err(|_| mistaken("authority"))?);
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| mistaken("authority"))?;
        let headers = request.headers_mut();
        if let Some(alpn) = self.alpn {
            headers.insert("alpn", HeaderValue::from_static(alpn));
        }
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| mistaken("header"))?;
            let value = HeaderValue::from_maybe_shared(Bytes::from(value.clone()));
            headers.append(name, value.map_err(|_| mistaken("header"))?);
        }
        Ok(request)
    }
}

impl Connected {
    /// Opens a tunnel on this connection. Nothing of what it will carry was sent when this fails.
    ///
    /// # Errors
    /// When the connection goes away, or the peer refuses.
    pub async fn tunnel(&self, connect: &Connect, pool: &Pool) -> Result<TunnelStream, Failure> {
        let request = connect.request()?;
        let mut send = self.ready().await?;
        let share = StreamGuard::of(self.load());
        bug::point("tunnel_open");
        let (response, stream) = send.send_request(request, false).map_err(blame_server)?;
        let (head, body) = response.await.map_err(blame_server)?.into_parts();
        if !head.status.is_success() {
            let status = head.status.as_u16();
            let why = format!("the peer's proxy answered CONNECT with {status}");
            return Err(Failure::Connect(why.into()));
        }
        let about = TunnelInfo {
            tls: self.about.tls.clone(),
            local: self.about.local,
        };
        Ok(TunnelStream::new(stream, body, share, pool, about))
    }
}
