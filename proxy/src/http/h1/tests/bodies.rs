//! Bodies in: lengths, chunks, trailers, ends.

use super::*;
use crate::http::h1::body::BodyDecoder;

/// What a body gives when its bytes come in pieces of this size: data, trailers, bytes left over.
type Body = Result<(Vec<u8>, Option<Vec<String>>, usize), Fault>;

fn read_in(length: BodyLength, bytes: &[u8], step: usize) -> Body {
    let limits = HeadLimits {
        head_bytes: 256,
        fields: 8,
    };
    let mut decoder = BodyDecoder::new(length);
    let mut input = BytesMut::new();
    let mut trailers = Head::new();
    let mut data = Vec::new();
    let mut pieces = bytes.chunks(step);
    loop {
        let left = |input: &BytesMut, pieces: std::slice::Chunks<'_, u8>| {
            input.len() + pieces.map(<[u8]>::len).sum::<usize>()
        };
        match decoder.read(&limits, &mut input, &mut trailers)? {
            BodyEvent::Data(more) => {
                assert!(!more.is_empty());
                data.extend_from_slice(&more);
            }
            BodyEvent::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return decoder.eof().map(|()| (data, None, 0)),
            },
            BodyEvent::End => return Ok((data, None, left(&input, pieces))),
            BodyEvent::Trailers => return Ok((data, Some(lines(&trailers)), left(&input, pieces))),
        }
    }
}

fn read(length: BodyLength, bytes: &[u8]) -> Body {
    let whole = read_in(length, bytes, bytes.len().max(1));
    for step in 1..bytes.len().min(40) {
        assert_eq!(
            read_in(length, bytes, step),
            whole,
            "{} by {step}",
            bytes.escape_ascii()
        );
    }
    whole
}

fn chunked(bytes: &[u8]) -> Body {
    read(BodyLength::Unknown, bytes)
}

#[test]
fn lengths_are_kept_to() {
    assert_eq!(
        read(BodyLength::Known(3), b"abcdef"),
        Ok((b"abc".to_vec(), None, 3))
    );
    assert_eq!(read(BodyLength::Known(3), b"ab"), Err(Fault::Truncated));
    assert_eq!(read(BodyLength::Known(0), b"abc"), Ok((vec![], None, 3)));
    assert_eq!(read(BodyLength::None, b"abc"), Ok((vec![], None, 3)));
    assert_eq!(
        read(BodyLength::Known(u64::MAX), b"abc"),
        Err(Fault::Truncated)
    );
    assert_eq!(
        read(BodyLength::UntilClose, b"abc"),
        Ok((b"abc".to_vec(), None, 0))
    );
    assert_eq!(read(BodyLength::UntilClose, b""), Ok((vec![], None, 0)));
}

#[test]
fn chunks() {
    for (bytes, data, left) in [
        (&b"0\r\n\r\n"[..], &b""[..], 0),
        (b"3\r\nabc\r\n0\r\n\r\nnext", b"abc", 4),
        (
            b"3\r\nabc\r\n00A\r\n0123456789\r\n0000\r\n\r\n",
            b"abc0123456789",
            0,
        ),
        (
            b"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
            b"\r\n\r\n\r\n\r\n\r\n",
            0,
        ),
        (b"1;a=b;c=\"d e\"\r\nx\r\n0;last\r\n\r\n", b"x", 0),
        (b"1;\r\nx\r\n0\r\n\r\n", b"x", 0),
    ] {
        let want = Ok((data.to_vec(), None, left));
        assert_eq!(chunked(bytes), want, "{}", bytes.escape_ascii());
    }
}

#[test]
fn chunk_faults() {
    use Fault::*;
    for (bytes, fault) in [
        (&b"\r\n"[..], InvalidChunk),
        (b";x\r\n", InvalidChunk),
        (b"g\r\n", InvalidChunk),
        (b"+1\r\nx", InvalidChunk),
        (b"-1\r\nx", InvalidChunk),
        (b"0x1\r\nx", InvalidChunk),
        (b" 1\r\nx", InvalidChunk),
        (b"1 \r\nx", InvalidChunk),
        (b"1 ;a\r\nx", InvalidChunk),
        (b"1\nx\r\n", InvalidChunk),
        (b"1\rx", InvalidChunk),
        (b"1;a\nx\r\n", InvalidChunk),
        (b"1;a\rb\r\n", InvalidChunk),
        (b"1;a\0b\r\n", InvalidChunk),
        (b"1;a\x7f\r\n", InvalidChunk),
        (b"1\r\nxy\r\n", InvalidChunk),
        (b"1\r\nx\n", InvalidChunk),
        (b"1\r\nx\r\r\n", InvalidChunk),
        (b"1\r\nx0\r\n\r\n", InvalidChunk),
        (b"1\r\nx\r\n\r\n0\r\n\r\n", InvalidChunk),
        (
            b"0000000000000001\r\nx\r\n0000000000000000a\r\n",
            ChunkTooLarge,
        ),
        (b"10000000000000000\r\n", ChunkTooLarge),
        (b"0\r\n", Truncated),
        (b"0\r\n\r", Truncated),
        (b"5\r\nabc", Truncated),
        (b"", Truncated),
        (b"0\r\nA: b\r\n", Truncated),
        (b"0\r\n\n", BareLineFeed),
        (b"0\r\nA: b\n\r\n", BareLineFeed),
        (b"0\r\nA : b\r\n\r\n", SpaceBeforeColon),
        (b"0\r\nA: b\r\n c\r\n\r\n", ObsoleteFold),
        (b"0\r\n: b\r\n\r\n", InvalidName),
        (b"0\r\n:path: /x\r\n\r\n", InvalidName),
        (b"0\r\nA: \0\r\n\r\n", InvalidValue),
        (b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", InvalidName),
    ] {
        assert_eq!(chunked(bytes), Err(fault), "{}", bytes.escape_ascii());
    }
    let long = [b"1;".as_slice(), &[b'x'; 2000], b"\r\nx\r\n"].concat();
    assert_eq!(chunked(&long), Err(ChunkExtensionTooLarge));
    let many = [b"1;".as_slice(), &[b'x'; 900], b"\r\nx\r\n"]
        .concat()
        .repeat(30);
    assert_eq!(
        read_in(BodyLength::Unknown, &many, many.len()),
        Err(ChunkExtensionTooLarge)
    );
}

#[test]
fn the_largest_chunk_is_no_overflow() {
    let (mut input, mut head) = (BytesMut::from(&b"ffffffffffffffff\r\nx"[..]), Head::new());
    let mut decoder = BodyDecoder::new(BodyLength::Unknown);
    let event = decoder.read(&HeadLimits::default(), &mut input, &mut head);
    assert_eq!(event, Ok(BodyEvent::Data(bytes::Bytes::from_static(b"x"))));
}

#[test]
fn fields_that_are_forbidden_in_trailers_are_removed() {
    let bytes = b"1\r\nx\r\n0\r\ngrpc-status: 0\r\nHost: evil\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\
        X-Forwarded-For: 1\r\nx-forwarded-anything: 1\r\n\r\nrest";
    let want = Ok((b"x".to_vec(), Some(vec!["grpc-status: 0".to_owned()]), 4));
    assert_eq!(chunked(bytes), want);
    for bad in [
        "Connection: close",
        "Authorization: x",
        "Cookie: x",
        "Set-Cookie: x",
        "Te: x",
        "Upgrade: x",
        "X-Forwarded-Client-Cert: x",
        "x-envoy-max-retries: 9",
        "X-Envoy-Unknown: 1",
        "X-Request-Id: 1",
        "Content-Type: x",
        "Content-Encoding: x",
        "Trailer: x",
        "x-anyam-header-case: X",
        "X-Anyam-Y: 1",
        "Cache-Control: x",
        "Expect: x",
        "Keep-Alive: x",
        "Proxy-Authorization: x",
        "Forwarded: for=1",
    ] {
        let body = format!("0\r\n{bad}\r\n\r\n");
        assert_eq!(chunked(body.as_bytes()), Ok((vec![], None, 0)), "{bad}");
        let body = format!("0\r\nX-Sum: 1\r\n{bad}\r\n\r\n");
        assert_eq!(
            chunked(body.as_bytes()),
            Ok((vec![], Some(vec!["X-Sum: 1".into()]), 0)),
            "{bad}"
        );
    }
}

#[test]
fn trailers_are_limited() {
    let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(9));
    assert_eq!(chunked(many.as_bytes()), Err(Fault::TooManyTrailers));
    let large = format!("0\r\nA: {}\r\n\r\n", "b".repeat(300));
    assert_eq!(chunked(large.as_bytes()), Err(Fault::TrailersTooLarge));
    let endless = format!("0\r\n{}", "a".repeat(300));
    assert_eq!(chunked(endless.as_bytes()), Err(Fault::TrailersTooLarge));
}
