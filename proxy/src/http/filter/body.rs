//! A body on its way through the filters that change it, or its pace.
//!
//! A filter that wants the body says so when it sees the head of the request or the response: it adds a
//! [`BodyTransform`] to [`BodyFilters`], and edits the head for what will come out. The length of that
//! is not known, so the caller frames the body anew: in chunks, until the connection ends for HTTP/1.0,
//! as DATA over HTTP/2. Trailers follow it. A transform that wants the whole body gives nothing before
//! its end, within a bound of its own.
//!
//! The pump reads from one side only when nothing more comes out of what it has read, and takes a piece
//! only when the other has room for it: a body holds one piece of input, and one step's output. Such a
//! body is not spliced; where no filter wants it, all of this is one `None`.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::compressor::Compressor;
use super::decompressor::Decompressor;
use super::throttle::Throttle;
use crate::dispatcher::timer::Timers;
use crate::http::request::error::Failure;

/// Bytes of a body after which other tasks of the worker have their turn: changing them may cost much
/// more than reading them.
const TURN: usize = 64 * 1024;

/// The filters that a body passes, in this order.
#[derive(Default)]
pub struct BodyFilters {
    stages: Vec<Stage>,
    /// KiB a second for what comes out.
    pub(super) rate: Option<u64>,
    throttle: Option<Throttle>,
    /// What the stages hold back is wanted too.
    flush: bool,
    /// Bytes that the stages were given in this turn.
    taken: usize,
    /// The body that is put in is over.
    ended: bool,
}

/// What a filter does with a body.
pub enum BodyTransform {
    Compress(Compressor),
    Decompress(Decompressor),
}

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub enum Pulled {
    Data(Bytes),
    /// More has to be put in first.
    Nothing,
    /// The body is over.
    End,
}

struct Stage {
    transform: BodyTransform,
    input: Bytes,
    /// No further input comes.
    ended: bool,
    finished: bool,
}

impl BodyFilters {
    /// Adds a transform after those that are there.
    pub(super) fn add(&mut self, transform: BodyTransform) {
        self.stages.push(Stage {
            transform,
            input: Bytes::new(),
            ended: false,
            finished: false,
        });
    }

    /// Whether another body comes out than goes in.
    pub fn changes_body(&self) -> bool {
        !self.stages.is_empty()
    }

    /// The body is about to pass.
    pub fn begin(&mut self, timers: &Timers) {
        self.throttle = self.rate.map(|rate| Throttle::new(rate, timers));
    }

    /// Puts a piece in; only when nothing comes out.
    pub fn push(&mut self, data: Bytes) {
        match (self.stages.first_mut(), &mut self.throttle) {
            (Some(first), _) => {
                self.taken = self.taken.saturating_add(data.len());
                first.input = data;
            }
            (None, Some(throttle)) => throttle.hold(data),
            (None, None) => {}
        }
    }

    /// The whole body was put in.
    pub fn end(&mut self) {
        self.ended = true;
        if let Some(first) = self.stages.first_mut() {
            first.ended = true;
        }
    }

    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether a stage keeps what it decoded, which further input may refer to.
    pub fn is_decoding(&self) -> bool {
        let is_decoding = |stage: &Stage| {
            matches!(stage.transform, BodyTransform::Decompress(_)) && !stage.finished
        };
        self.stages.iter().any(is_decoding)
    }

    /// There is no more to put in for now: what the stages hold back is to come out. False: they hold
    /// nothing back.
    pub fn flush(&mut self) -> bool {
        let holds_back = |stage: &Stage| stage.transform.holds_back();
        self.flush = self.stages.iter().any(holds_back);
        self.flush
    }

    /// What comes out. Pending: it is not time for it yet, or it is other tasks' turn.
    ///
    /// # Errors
    /// When a transform failed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Pulled, Failure>> {
        if !self.throttle.as_ref().is_some_and(Throttle::is_holding) {
            match (self.pull()?, &mut self.throttle) {
                (Pulled::Data(data), Some(throttle)) => throttle.hold(data),
                (Pulled::Nothing, _) if self.taken >= TURN => {
                    self.taken = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                (pulled, _) => return Poll::Ready(Ok(pulled)),
            }
        }
        match &mut self.throttle {
            Some(throttle) => throttle.poll_piece(cx).map(|piece| Ok(Pulled::Data(piece))),
            None => Poll::Ready(Ok(Pulled::Nothing)),
        }
    }

    /// What a short body becomes, all of it at once.
    ///
    /// # Errors
    /// When a transform failed.
    pub fn all(&mut self, body: Bytes) -> Result<Bytes, Failure> {
        if self.stages.is_empty() {
            return Ok(body);
        }
        let mut all = BytesMut::new();
        self.push(body);
        self.end();
        while let Pulled::Data(data) = self.pull()? {
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    fn pull(&mut self) -> Result<Pulled, Failure> {
        let pulled = pull(&mut self.stages, self.flush)?;
        if pulled == Pulled::Nothing {
            self.flush = false;
            if self.ended && self.stages.is_empty() {
                return Ok(Pulled::End);
            }
        }
        Ok(pulled)
    }
}

/// A piece that keeps little more memory than its length: bounds count lengths.
pub(super) fn piece(output: Vec<u8>) -> Bytes {
    match output.len() < output.capacity() / 2 {
        true => Bytes::copy_from_slice(&output),
        false => output.into(),
    }
}

/// What comes out of the last stage, which draws on those before it.
fn pull(stages: &mut [Stage], flush: bool) -> Result<Pulled, Failure> {
    let Some((last, before)) = stages.split_last_mut() else {
        return Ok(Pulled::Nothing);
    };
    loop {
        match last.step()? {
            Pulled::Nothing => {}
            pulled => return Ok(pulled),
        }
        match pull(before, flush)? {
            Pulled::Data(data) => last.input = data,
            Pulled::End => last.ended = true,
            Pulled::Nothing if flush && last.transform.holds_back() => {
                let flushed = last.transform.flush()?;
                return Ok(if flushed.is_empty() {
                    Pulled::Nothing
                } else {
                    Pulled::Data(flushed)
                });
            }
            Pulled::Nothing => return Ok(Pulled::Nothing),
        }
    }
}

impl Stage {
    /// What comes of the input that is here.
    fn step(&mut self) -> Result<Pulled, Failure> {
        loop {
            if self.finished {
                return Ok(Pulled::End);
            }
            let output = if !self.input.is_empty() || self.transform.has_more() {
                self.transform.step(&mut self.input)?
            } else if self.ended {
                self.finished = true;
                self.transform.finish()?
            } else {
                return Ok(Pulled::Nothing);
            };
            if !output.is_empty() {
                return Ok(Pulled::Data(output));
            }
        }
    }
}

impl BodyTransform {
    /// Takes some of `input`, and gives what comes of it, if anything does yet.
    fn step(&mut self, input: &mut Bytes) -> Result<Bytes, Failure> {
        match self {
            Self::Compress(compressor) => compressor.step(input),
            Self::Decompress(decompressor) => decompressor.step(input),
        }
    }

    /// Whether more may come without further input.
    fn has_more(&self) -> bool {
        match self {
            Self::Compress(_) => false,
            Self::Decompress(decompressor) => decompressor.has_more(),
        }
    }

    /// Whether [`flush`](Self::flush) would give something.
    fn holds_back(&self) -> bool {
        match self {
            Self::Compress(compressor) => compressor.holds_back(),
            Self::Decompress(_) => false,
        }
    }

    fn flush(&mut self) -> Result<Bytes, Failure> {
        match self {
            Self::Compress(compressor) => compressor.flush(),
            Self::Decompress(_) => Ok(Bytes::new()),
        }
    }

    /// What comes after the last input.
    fn finish(&mut self) -> Result<Bytes, Failure> {
        match self {
            Self::Compress(compressor) => compressor.finish(),
            Self::Decompress(decompressor) => decompressor.finish(),
        }
    }
}
