//! Tests over raw bytes. Every input is also fed byte by byte, which must give the same result.

mod bodies;
mod exchanges;
mod framing;
mod properties;
mod requests;
mod responses;
mod writing;

use crate::message::fault::{Fault, FaultSide};
use bytes::{Buf, BytesMut};

use super::*;
use crate::message::head::Head;

/// What a head means, the head, and what is left of the input; `None`: not complete.
type Read<I> = Result<Option<(I, Head, Vec<u8>)>, Fault>;

/// Reads a head from bytes that come in pieces of `step`.
fn in_pieces<I>(
    bytes: &[u8],
    step: usize,
    mut read_head: impl FnMut(&mut BytesMut, &mut Head) -> Result<Option<I>, Fault>,
) -> Read<I> {
    let mut input = BytesMut::new();
    let mut head = Head::new();
    let mut pieces = bytes.chunks(step);
    loop {
        if let Some(info) = read_head(&mut input, &mut head)? {
            pieces.for_each(|piece| input.extend_from_slice(piece));
            return Ok(Some((info, head, input.to_vec())));
        }
        match pieces.next() {
            Some(piece) => input.extend_from_slice(piece),
            None => return Ok(None),
        }
    }
}

/// A request's head from bytes that came at once and byte by byte.
fn request_with(options: RequestOptions, bytes: &[u8]) -> Read<Framing> {
    let read = |step: usize| {
        let mut conn = ServerConn::new(options);
        in_pieces(bytes, step, |input, head| conn.read_head(input, head))
    };
    let whole = read(bytes.len().max(1));
    let split = read(1);
    let comparable = |result: &Read<Framing>| match result {
        Ok(Some((info, head, rest))) => Ok(Some((*info, lines(head), rest.clone()))),
        Ok(None) => Ok(None),
        Err(fault) => Err(*fault),
    };
    assert_eq!(
        comparable(&whole),
        comparable(&split),
        "{}",
        bytes.escape_ascii()
    );
    whole
}

fn request(bytes: &[u8]) -> Read<Framing> {
    request_with(RequestOptions::default(), bytes)
}

/// The fault of a request that must be refused.
fn refused(bytes: &[u8]) -> Fault {
    match request(bytes) {
        Err(fault) => fault,
        Ok(_) => panic!("accepted: {}", bytes.escape_ascii()),
    }
}

fn accepted(bytes: &[u8]) -> (Framing, Head) {
    match request(bytes) {
        Ok(Some((info, head, _))) => (info, head),
        other => panic!("{:?}: {}", other.err(), bytes.escape_ascii()),
    }
}

/// A client connection that asked for something.
fn asking(request: &[u8]) -> ClientConn {
    let (info, head) = accepted(request);
    let mut conn = ClientConn::new(HeadLimits::default(), Spelling::default());
    let mut out = Out::new();
    conn.write_head(&head, info.body, &info, &mut out);
    assert_eq!(conn.write_end(None, &mut out), Ok(()));
    conn
}

fn response_to(request: &[u8], bytes: &[u8]) -> Read<ResponseInfo> {
    let read = |step: usize| {
        let mut conn = asking(request);
        in_pieces(bytes, step, |input, head| conn.read_head(input, head))
    };
    let whole = read(bytes.len().max(1));
    let split = read(1);
    assert_eq!(
        whole.as_ref().err(),
        split.as_ref().err(),
        "{}",
        bytes.escape_ascii()
    );
    if let (Ok(Some(whole)), Ok(Some(split))) = (&whole, &split) {
        assert_eq!((whole.0, lines(&whole.1)), (split.0, lines(&split.1)));
    }
    whole
}

/// Fields as `name: value` lines.
fn lines(head: &Head) -> Vec<String> {
    head.iter()
        .map(|f| format!("{}: {}", f.name.escape_ascii(), f.value.escape_ascii()))
        .collect()
}

fn text(out: &mut Out) -> String {
    let bytes = out.copy_to_bytes(out.remaining());
    String::from_utf8_lossy(&bytes).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
