//! Response heads in.

use bytes::BytesMut;

use super::fields::{FieldSection, HeadScan};
use super::framing::FramingFields;
use super::{BodyLength, HeadLimits, RequestSummary, ResponseInfo, TunnelRequest};
use crate::message::fault::Fault;
use crate::message::head::{Head, HeaderId, Method};

/// Reads one response head after the other.
#[derive(Debug)]
pub(super) struct ResponseDecoder {
    limits: HeadLimits,
    progress: HeadScan,
}

impl ResponseDecoder {
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            progress: HeadScan::default(),
        }
    }

    /// `None`: more bytes are needed.
    pub fn read(
        &mut self,
        asked: &RequestSummary,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<Option<ResponseInfo>, Fault> {
        head.clear();
        // `httparse` skips empty lines, which RFC 9112 does not allow before a response.
        if self.progress.is_fresh() && matches!(input.first(), Some(b'\r' | b'\n')) {
            return Err(Fault::InvalidStartLine);
        }
        if !self
            .progress
            .read(FieldSection::Response, &self.limits, input, head)?
        {
            return Ok(None);
        }
        interpret(head, asked).map(Some)
    }
}

fn interpret(head: &mut Head, asked: &RequestSummary) -> Result<ResponseInfo, Fault> {
    let status = head.status;
    if status < 100 {
        return Err(Fault::InvalidStatus);
    }
    let wire = FramingFields::interpret(head)?;
    let tunnel = match asked.tunnel {
        TunnelRequest::Upgrade => status == 101,
        TunnelRequest::Connect => matches!(status, 200..=299),
        TunnelRequest::None => false,
    };
    if status == 101 && !tunnel {
        return Err(Fault::UnexpectedSwitch);
    }
    let interim = status < 200 && !tunnel;
    // RFC 9110 8.6: these have no Content-Length, even if the server sends one.
    if interim || tunnel || status == 204 {
        head.remove(HeaderId::ContentLength);
    }
    let bodiless = interim || tunnel || asked.method == Method::Head || matches!(status, 204 | 304);
    let body = match (wire.chunked, wire.content_length) {
        _ if bodiless => BodyLength::None,
        (true, _) => BodyLength::Unknown,
        (false, Some(length)) => BodyLength::Known(length),
        (false, None) => BodyLength::UntilClose,
    };
    let info = ResponseInfo {
        body,
        keep_alive: wire.persistent(head.version) && body != BodyLength::UntilClose && !tunnel,
        interim,
        tunnel,
    };
    // 426 has to name the protocol to upgrade to (RFC 9110 15.5.22).
    wire.strip(head, status == 101 || status == 426);
    Ok(info)
}
