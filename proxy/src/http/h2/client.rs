//! An upstream HTTP/2 connection and its streams.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use prometheus::IntCounter;

use super::super::h1::{BodyEvent, BodyLength, Framing, ResponseInfo, TunnelRequest};
use super::super::request::error::Failure;
use super::super::request::stream_info::Upstream;
use super::convert::{self, HeadBounds};
use super::failure::blame_server;
use super::interim::InterimResponses;
use super::keepalive::keepalive;
use super::prefixed::{Prefixed, WireState};
use super::stream::{Receiving, Sending};
use crate::config::http::Http2Options;
use crate::dispatcher::timer::Timers;
use crate::message::fault::Fault;
use crate::message::head::{Head, HeaderId, Method, Version};
use crate::stream::Stream;
use crate::stream::chunk::Chunk;
use crate::stream::tunnel::{StreamCount, StreamGuard};

/// How often it is checked whether SETTINGS have arrived.
const SETTINGS_STEP: Duration = Duration::from_millis(5);

/// Tunnels of a connection blocked on flow control, from which on new streams use another
/// connection.
const MAX_BLOCKED: usize = 4;

/// A connection on which streams can be opened; shared by all its users.
pub struct Connected {
    pub send: SendRequest<Chunk>,
    pub about: Rc<Upstream>,
    bounds: HeadBounds,
    spell: bool,
    /// Our own bound of concurrent streams, whatever the peer's is.
    most_streams: usize,
    state: Rc<State>,
    wire: Rc<WireState>,
}

#[derive(Default)]
struct State {
    closed: Cell<bool>,
    load: Rc<StreamCount>,
}

/// Sends the preface and spawns a task that drives the connection.
///
/// # Errors
/// When the connection breaks before the preface is out.
pub async fn handshake(
    stream: Stream,
    about: Rc<Upstream>,
    options: &Http2Options,
    bounds: HeadBounds,
    timers: &Timers,
    floods: &IntCounter,
    at_end: impl FnOnce() + 'static,
) -> Result<Connected, Failure> {
    let spell = about
        .tls
        .as_ref()
        .and_then(|tls| tls.alpn.as_deref())
        .is_some_and(|alpn| alpn == b"anyam-h2-case");
    let io = Prefixed::client(stream, floods);
    let wire = io.state().clone();
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_frame_size(options.max_frame_size)
        .max_header_list_size(u32::try_from(bounds.bytes).unwrap_or(u32::MAX))
        .initial_max_send_streams(100)
        .max_concurrent_reset_streams(options.max_resets.max(10));
    let (send, mut connection) = builder
        .handshake::<_, Chunk>(io)
        .await
        .map_err(|error| Failure::Connect(error.to_string().into()))?;
    let most_streams = options.max_concurrent_streams as usize;
    let state = Rc::new(State::default());
    let ping = connection.ping_pong();
    let (shared, timers, options) = (state.clone(), timers.clone(), *options);
    tokio::task::spawn_local(async move {
        let _end = AtEnd(shared, Some(at_end));
        let alive = keepalive(ping, &timers, &options);
        tokio::select! {
            // Its error also shows on its streams.
            _ = connection => {}
            () = alive => {}
        }
    });
    Ok(Connected {
        send,
        about,
        bounds,
        spell,
        most_streams,
        state,
        wire,
    })
}

/// Marks the connection closed when its task ends, also by a panic, and wakes tasks that wait for
/// it.
struct AtEnd<F: FnOnce()>(Rc<State>, Option<F>);

impl<F: FnOnce()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        self.0.closed.set(true);
        if let Some(at_end) = self.1.take() {
            at_end();
        }
    }
}

impl Connected {
    /// No stream can be opened on it any more.
    pub fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// Whether one more stream may be opened now, and not too many are blocked on flow control.
    pub fn has_room(&self) -> bool {
        let load = self.load();
        let most = self.send.current_max_send_streams().min(self.most_streams);
        load.streams.open() < most && load.blocked.get() < MAX_BLOCKED
    }

    pub fn is_busy(&self) -> bool {
        self.load().streams.open() > 0
    }

    pub(crate) fn load(&self) -> &Rc<StreamCount> {
        &self.state.load
    }

    /// Waits until the peer's SETTINGS allow extended CONNECT (RFC 8441), or for `timeout`: they
    /// are the first frame it sends, but a new connection may not have read them yet.
    pub async fn takes_upgrades(&self, timers: &Timers, timeout: Duration) -> bool {
        let mut left = timeout;
        while !self.send.is_extended_connect_protocol_enabled() {
            if left.is_zero() || self.is_closed() {
                return false;
            }
            timers.sleep(SETTINGS_STEP.min(left)).await;
            left = left.saturating_sub(SETTINGS_STEP);
        }
        true
    }

    /// Ready once another stream can be opened.
    pub(crate) async fn ready(&self) -> Result<SendRequest<Chunk>, Failure> {
        self.send.clone().ready().await.map_err(|error| {
            self.state.closed.set(true);
            if error.is_io() {
                Failure::Terminated
            } else {
                Failure::Refused
            }
        })
    }

    /// A stream for one exchange. Ready once it can be opened.
    ///
    /// # Errors
    /// When the connection is going away: nothing was sent.
    pub async fn open(&self) -> Result<ClientStream, Failure> {
        let send = self.ready().await?;
        Ok(ClientStream {
            _share: StreamGuard::of(self.load()),
            state: ClientState::Ready(send),
            about: self.about.clone(),
            bounds: self.bounds,
            spell: self.spell,
            wire: self.wire.clone(),
            connect: false,
            interim: InterimResponses::default(),
        })
    }
}

/// One exchange's stream.
pub struct ClientStream {
    _share: StreamGuard,
    state: ClientState,
    about: Rc<Upstream>,
    bounds: HeadBounds,
    spell: bool,
    wire: Rc<WireState>,
    connect: bool,
    interim: InterimResponses,
}

enum ClientState {
    /// Before the request's head.
    Ready(SendRequest<Chunk>),
    Open {
        sending: Sending,
        /// Until the response's head.
        response: ResponseFuture,
        receiving: Option<Receiving>,
    },
}

impl ClientStream {
    pub fn about(&self) -> &Rc<Upstream> {
        &self.about
    }

    pub fn head(&mut self, head: &Head, body: BodyLength, info: &Framing) -> Result<(), Failure> {
        let ClientState::Ready(send) = &mut self.state else {
            return Ok(());
        };
        if info.tunnel == TunnelRequest::Upgrade && !send.is_extended_connect_protocol_enabled() {
            return Err(Failure::Unsupported(
                "the upstream's HTTP/2 does not take upgrades (RFC 8441)",
            ));
        }
        // An extended CONNECT has no other method and no body of its own.
        let crosses = info.tunnel == TunnelRequest::Upgrade && head.version() != Version::Http2;
        if crosses && (head.method() != Method::Get || !matches!(body, BodyLength::None)) {
            return Err(Failure::Unsupported(
                "only an upgrade by GET without a body can be asked for over HTTP/2",
            ));
        }
        self.connect = head.method() == Method::Connect || info.tunnel != TunnelRequest::None;
        let request = convert::request_out(head, info, self.spell)
            .ok_or(Failure::BadRequest(Fault::InvalidTarget))?;
        let none = body.is_certainly_empty(head.version()) && info.tunnel == TunnelRequest::None;
        let (response, stream) = send.send_request(request, none).map_err(blame_server)?;
        let sending = if none {
            Sending::ended(stream)
        } else {
            Sending::new(stream).through(self.wire.clone())
        };
        self.state = ClientState::Open {
            sending,
            response,
            receiving: None,
        };
        Ok(())
    }

    fn sending(&mut self) -> Option<&mut Sending> {
        match &mut self.state {
            ClientState::Ready(_) => None,
            ClientState::Open { sending, .. } => Some(sending),
        }
    }

    pub fn data(&mut self, data: Bytes) {
        if let Some(sending) = self.sending() {
            sending.data(data);
        }
    }

    pub fn end(&mut self, trailers: Option<&Head>) {
        if let Some(sending) = self.sending() {
            sending.end(trailers);
        }
    }

    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self.sending() {
            Some(sending) => sending.poll_room(cx).map_err(blame_server),
            None => Poll::Ready(Ok(())),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self.sending() {
            Some(sending) => sending.poll_flush(cx).map_err(blame_server),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Receives interim responses before they are asked for. Flow control does not cover them: while
    /// none can be forwarded, they would collect below without being counted.
    pub fn receive_interim(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        loop {
            let mut head = Head::new();
            let Poll::Ready(true) = self.poll_interim(cx, &mut head)? else {
                return Ok(());
            };
            let kept = self.interim.keep(head, self.bounds);
            kept.map_err(Failure::BadResponse)?;
        }
    }

    /// Receives the next interim response into `head`; false: the final one is next.
    fn poll_interim(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
    ) -> Poll<Result<bool, Failure>> {
        let ClientState::Open { response, .. } = &mut self.state else {
            return Poll::Ready(Ok(false));
        };
        let Some(received) = ready!(response.poll_informational(cx)) else {
            return Poll::Ready(Ok(false));
        };
        let received = received.map_err(blame_server)?;
        let (bounds, spell) = (self.bounds, self.spell);
        let converted = self.interim.convert(received, bounds, spell, head);
        Poll::Ready(converted.map(|()| true).map_err(Failure::BadResponse))
    }

    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
    ) -> Poll<Result<ResponseInfo, Failure>> {
        let kept = self.interim.pop();
        let is_kept = kept.is_some();
        if let Some(kept) = kept {
            *head = kept;
        }
        if is_kept || self.poll_interim(cx, head)? == Poll::Ready(true) {
            return Poll::Ready(Ok(ResponseInfo {
                body: BodyLength::None,
                keep_alive: true,
                interim: true,
                tunnel: false,
            }));
        }
        let ClientState::Open {
            response,
            receiving,
            ..
        } = &mut self.state
        else {
            return Poll::Ready(Err(Failure::Terminated));
        };
        let response = ready!(Pin::new(response).poll(cx)).map_err(blame_server)?;
        let (parts, body) = response.into_parts();
        let length =
            convert::response_in(head, parts.status, &parts.headers, self.bounds, self.spell)
                .map_err(Failure::BadResponse)?;
        let tunnel = self.connect && parts.status.is_success();
        let body_length = match length {
            _ if body.is_end_stream() => BodyLength::None,
            Some(length) => BodyLength::Known(length),
            None => BodyLength::Unknown,
        };
        *receiving = Some(Receiving::new(body));
        if tunnel {
            head.remove(HeaderId::ContentLength);
        }
        Poll::Ready(Ok(ResponseInfo {
            body: body_length,
            keep_alive: true,
            interim: false,
            tunnel,
        }))
    }

    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<BodyEvent, Failure>> {
        match &mut self.state {
            ClientState::Open {
                receiving: Some(receiving),
                ..
            } => receiving.poll(cx, trailers).map_err(blame_server),
            _ => Poll::Ready(Err(Failure::Terminated)),
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        // An exchange that ends early resets its stream, so that the upstream stops working on it.
        let done = match &self.state {
            ClientState::Ready(_) => true,
            ClientState::Open {
                sending, receiving, ..
            } => sending.is_ended() && receiving.as_ref().is_some_and(Receiving::is_done),
        };
        if !done && let Some(sending) = self.sending() {
            sending.reset(h2::Reason::CANCEL);
        }
    }
}
