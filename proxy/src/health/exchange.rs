//! One request of a check and its answer, over either version of HTTP.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::route::HeaderEdits;
use crate::http::forward::upstream::UpstreamIo;
use crate::http::h1::{BodyEvent, BodyLength, Framing, TunnelRequest};
use crate::http::request::error::Failure;
use crate::http::request::headers::add;
use crate::message::head::{Head, HeaderId};
use crate::telemetry::format::render_value;
use crate::telemetry::record::Record;
use crate::upstream::endpoint::Endpoint;

/// Bytes of an answer's body that are read; a longer one is none.
const MAX_BODY: usize = 1 << 20;
/// As in Envoy.
const USER_AGENT: &[u8] = b"Envoy/HC";

/// A request to send.
pub struct CheckRequest {
    pub head: Head,
    pub body: Option<Bytes>,
    pub te_trailers: bool,
}

/// Its answer.
#[derive(Default)]
pub struct CheckAnswer {
    pub head: Head,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// Empty without any.
    pub trailers: Head,
}

impl CheckRequest {
    pub fn new(method: &str, path: &str, authority: &str) -> Self {
        let mut head = Head::new();
        head.set_method(method.as_bytes());
        head.set_path_and_query(path.as_bytes());
        head.set_authority(authority.as_bytes());
        head.append(HeaderId::UserAgent, USER_AGENT);
        Self {
            head,
            body: None,
            te_trailers: false,
        }
    }

    /// Applies configured edits; what their values may refer to is the host.
    pub fn edit(&mut self, edits: &HeaderEdits, endpoint: &Endpoint) {
        for name in &edits.remove {
            self.head.remove_named(name.name.as_bytes());
        }
        let mut record = Record::begun(SystemTime::now());
        record.upstream_host = Some(endpoint.address);
        for one in &edits.append {
            let mut value: SmallVec<[u8; 64]> = SmallVec::new();
            render_value(&one.value, &record, &mut value);
            if !value.is_empty() || one.keep_empty_value {
                add(&mut self.head, one, &value);
            }
        }
    }
}

/// Sends a request and reads its answer to the end, of which it keeps `most` bytes.
///
/// # Errors
/// When there is no whole answer of less than [`MAX_BODY`].
pub async fn exchange(
    up: &mut UpstreamIo,
    request: &CheckRequest,
    most: usize,
) -> Result<CheckAnswer, Failure> {
    let length = match &request.body {
        Some(body) => BodyLength::Known(body.len() as u64),
        None => BodyLength::None,
    };
    let framing = Framing {
        body: length,
        keep_alive: true,
        expect_continue: false,
        tunnel: TunnelRequest::None,
        te_trailers: request.te_trailers,
    };
    up.head(&request.head, length, &framing)?;
    if let Some(body) = &request.body {
        up.data(body.clone())?;
    }
    up.end(None)?;
    let mut answer = CheckAnswer::default();
    loop {
        let info = poll_fn(|cx| {
            flush(up, cx)?;
            up.poll_head(cx, &mut answer.head)
        });
        if !info.await?.interim {
            break;
        }
    }
    let mut read: usize = 0;
    loop {
        let event = poll_fn(|cx| {
            flush(up, cx)?;
            up.poll_body(cx, &mut answer.trailers)
        });
        match event.await? {
            BodyEvent::Data(data) => {
                read = read.saturating_add(data.len());
                if read > MAX_BODY {
                    return Err(Failure::TooLarge);
                }
                let room = most.saturating_sub(answer.body.len()).min(data.len());
                answer.body.extend_from_slice(data.split_at(room).0);
            }
            BodyEvent::Trailers | BodyEvent::End => return Ok(answer),
            BodyEvent::More => {}
        }
    }
}

/// Sends what waits: the answer may come before all of the request is out.
fn flush(up: &mut UpstreamIo, cx: &mut Context<'_>) -> Result<(), Failure> {
    match up.poll_flush(cx) {
        Poll::Ready(done) => done,
        Poll::Pending => Ok(()),
    }
}
