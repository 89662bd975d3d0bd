//! Request heads in.

use bytes::{Buf, BytesMut};

use super::fields::{FieldSection, HeadScan};
use super::framing::{Expect, FramingFields};
use super::{BodyLength, Framing, RequestOptions, target};
use crate::message::authority::Authority;
use crate::message::fault::Fault;
use crate::message::head::{Head, HeaderId, Method, Version};

/// Empty lines tolerated before a request line (RFC 9112 2.2 asks for at least one).
const MAX_EMPTY_LINES: u8 = 2;

/// Reads one request head after the other.
#[derive(Debug)]
pub(super) struct RequestDecoder {
    options: RequestOptions,
    progress: HeadScan,
    empty_lines: u8,
}

impl RequestDecoder {
    pub fn new(options: RequestOptions) -> Self {
        Self {
            options,
            progress: HeadScan::default(),
            empty_lines: 0,
        }
    }

    /// `None`: more bytes are needed.
    pub fn read(
        &mut self,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<Option<Framing>, Fault> {
        head.clear();
        if self.progress.is_fresh() && !self.skip_empty_lines(input)? {
            return Ok(None);
        }
        let limits = &self.options.limits;
        if !self
            .progress
            .read(FieldSection::Request, limits, input, head)?
        {
            return Ok(None);
        }
        self.empty_lines = 0;
        interpret(head, &self.options).map(Some)
    }

    /// Whether no part of a head has come.
    pub fn is_idle(&self, input: &BytesMut) -> bool {
        input.iter().all(|b| matches!(b, b'\r' | b'\n'))
    }

    /// False when there is nothing yet that could be a request line.
    fn skip_empty_lines(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        loop {
            match input[..] {
                [] | [b'\r'] => return Ok(false),
                [b'\r', b'\n', ..] => {
                    if self.empty_lines == MAX_EMPTY_LINES {
                        return Err(Fault::LeadingJunk);
                    }
                    self.empty_lines = self.empty_lines.saturating_add(1);
                    input.advance(2);
                }
                [b'\r', ..] => return Err(Fault::BareCarriageReturn),
                [b'\n', ..] => return Err(Fault::BareLineFeed),
                _ => return Ok(true),
            }
        }
    }
}

fn interpret(head: &mut Head, options: &RequestOptions) -> Result<Framing, Fault> {
    if head.version == Version::Http10 && !options.accept_http_10 {
        return Err(Fault::Http10NotAccepted);
    }
    let wire = FramingFields::interpret(head)?;
    match wire.hosts {
        0 if head.version == Version::Http10 => {}
        0 => return Err(Fault::MissingHost),
        1 if wire.host.is_empty() && head.version == Version::Http11 => {
            return Err(Fault::MissingHost);
        }
        1 if wire.host.is_empty() => {}
        1 => {
            Authority::parse(head.slice(wire.host))?;
        }
        _ => return Err(Fault::RepeatedHost),
    }
    target::interpret(head, wire.host, options)?;

    let connect = head.method == Method::Connect;
    let body = match (wire.chunked, wire.content_length) {
        (true, _) | (_, Some(1..)) if connect => return Err(Fault::BodyDisallowed),
        (true, _) => BodyLength::Unknown,
        (false, Some(_)) if connect => {
            head.remove(HeaderId::ContentLength);
            BodyLength::None
        }
        (false, Some(length)) => BodyLength::Known(length),
        (false, None) => BodyLength::None,
    };
    if wire.expect == Expect::Other && head.version == Version::Http11 {
        return Err(Fault::UnsupportedExpectation);
    }
    let info = Framing {
        body,
        keep_alive: wire.persistent(head.version),
        // Also of a request without a body: nothing of the expectation goes on.
        expect_continue: wire.expect == Expect::Continue && head.version == Version::Http11,
        tunnel: wire.tunnel(connect),
        te_trailers: wire.te_trailers,
    };
    wire.strip(head, info.tunnel == super::TunnelRequest::Upgrade);
    Ok(info)
}
