//! Properties of valid messages and of junk.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z][A-Za-z0-9-]{0,12}"
}

fn field() -> impl Strategy<Value = (String, String)> {
    ("X-[A-Za-z0-9]{1,10}", "([!-~]([ -~]{0,20}[!-~])?)?")
}

prop_compose! {
    fn a_request()(
        method in token().prop_filter("framed otherwise", |m| m != "CONNECT"),
        path in "/[!-\"$-~]{0,30}",
        host in "[a-z0-9](\\.?[a-z0-9-]{1,5}){0,2}[a-z0-9](:[1-9][0-9]{0,3})?",
        fields in prop::collection::vec(field(), 0..8),
        place in 0usize..8,
    ) -> (String, Vec<(String, String)>) {
        let mut fields = fields;
        fields.insert(place.min(fields.len()), ("Host".into(), host));
        (format!("{method} {path} HTTP/1.1"), fields)
    }
}

fn bytes_of(line: &str, fields: &[(String, String)], framing: &str) -> Vec<u8> {
    let fields: String = fields
        .iter()
        .map(|(n, v)| format!("{n}: {v}\r\n"))
        .collect();
    format!("{line}\r\n{fields}{framing}\r\n").into_bytes()
}

proptest! {
    #[test]
    fn heads_go_on_byte_for_byte((line, fields) in a_request(), length in 0u64..9999) {
        let bytes = bytes_of(&line, &fields, &format!("Content-Length: {length}\r\n"));
        let (info, head) = accepted(&bytes);
        let mut conn = ClientConn::new(HeadLimits::default(), Spelling::default());
        let mut out = Out::new();
        conn.write_head(&head, info.body, &info, &mut out);
        prop_assert_eq!(text(&mut out).into_bytes(), bytes);
    }

    #[test]
    fn chunked_bodies_survive(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..6), step in 1usize..500) {
        let (info, head) = accepted(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut client = ClientConn::new(HeadLimits::default(), Spelling::default());
        let mut out = Out::new();
        client.write_head(&head, info.body, &info, &mut out);
        for piece in &pieces {
            client.write_data(Bytes::from(piece.clone()), &mut out).unwrap();
        }
        client.write_end(None, &mut out).unwrap();
        let wire = out.copy_to_bytes(out.remaining());

        let mut server = ServerConn::new(RequestOptions::default());
        let mut input = BytesMut::new();
        let (mut read, mut head, mut trailers) = (Vec::new(), Head::new(), Head::new());
        let mut started = false;
        for part in wire.chunks(step) {
            input.extend_from_slice(part);
            if !started {
                started = server.read_head(&mut input, &mut head).unwrap().is_some();
            }
            while let (true, BodyEvent::Data(data)) = (started, server.read_body(&mut input, &mut trailers).unwrap()) {
                read.extend_from_slice(&data);
            }
        }
        prop_assert!(server.body_done() && input.is_empty());
        prop_assert_eq!(read, pieces.concat());
    }

    #[test]
    fn junk_is_refused_or_awaited(junk in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = request(&junk);
        let _ = response_to(GET, &junk);
    }

    #[test]
    fn near_messages_never_panic(junk in "(GET|POST|HTTP/1.1 200) [ -~\r\n\t\u{0}]{0,40}( HTTP/1.1)?\r\n([A-Za-z-]{0,4}[: ]{0,2}[a-z0-9,\r\n]{0,6}\r\n){0,5}\r\n") {
        let _ = request(junk.as_bytes());
        let _ = response_to(GET, junk.as_bytes());
    }
}
