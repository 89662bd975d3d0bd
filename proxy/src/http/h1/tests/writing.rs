//! Heads and bodies out.

use bytes::Bytes;

use super::*;
use crate::message::head::HeaderId;

/// A request as it goes on to the upstream.
fn on(bytes: &[u8]) -> String {
    edited(bytes, |_| {})
}

fn edited(bytes: &[u8], edit: impl FnOnce(&mut Head)) -> String {
    let (info, mut head) = accepted(bytes);
    edit(&mut head);
    let mut conn = ClientConn::new(HeadLimits::default(), Spelling::default());
    let mut out = Out::new();
    conn.write_head(&head, info.body, &info, &mut out);
    text(&mut out)
}

/// A response as it goes to the client.
fn answer(request: &[u8], response: &[u8]) -> (String, bool) {
    let (info, head, _) = response_to(request, response).unwrap().unwrap();
    let mut server = ServerConn::new(RequestOptions::default());
    let mut input = BytesMut::from(request);
    server
        .read_head(&mut input, &mut Head::new())
        .unwrap()
        .unwrap();
    let mut out = Out::new();
    server.write_head(&head, info.body, false, &mut out);
    let head = text(&mut out);
    if let BodyLength::Known(length) = info.body {
        let body = Bytes::from(vec![b'x'; usize::try_from(length).unwrap()]);
        server.write_data(body, &mut out).unwrap();
    }
    server.write_end(None, &mut out).unwrap();
    (head, !server.next(&input))
}

#[test]
fn unchanged_requests_go_on_as_they_came() {
    for bytes in [
        &b"GET /a?b=%20c HTTP/1.1\r\nHost: A.b\r\nUser-AGENT: x\r\nAccept:*/*\r\nX-Empty: y\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\n",
        b"DELETE /x HTTP/1.1\r\nhost: a\r\nx: \xff\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    ] {
        assert_eq!(on(bytes).as_bytes(), String::from_utf8_lossy(bytes).as_bytes());
    }
}

#[test]
fn requests_are_brought_into_form() {
    assert_eq!(
        on(b"GET http://u/x HTTP/1.1\r\nHost: other\r\nConnection: close, x-a\r\nX-A: 1\r\nB:  2  \r\nC:\r\n\r\n"),
        "GET /x HTTP/1.1\r\nHost: u\r\nB: 2\r\nC: \r\n\r\n"
    );
    assert_eq!(
        on(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    assert_eq!(
        on(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\nTE: trailers\r\n\r\n"),
        "POST / HTTP/1.1\r\nHost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    assert_eq!(
        on(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: Upgrade\r\n\r\n"
    );
    assert_eq!(
        on(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n"
    );
}

#[test]
fn edits_are_woven_in() {
    let bytes = b"GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\nC: 3\r\nCookie: x\r\n\r\n";
    let out = edited(bytes, |head| {
        head.set_authority(b"new:80");
        head.set_path_and_query(b"/p?q");
        head.remove_named(b"b");
        head.set(HeaderId::Cookie, b"y");
        head.append(HeaderId::XRequestId, b"id");
        head.append_named(b"X-New", b"v\r\nInjected: 1");
        head.set_named(b"A", b"9");
    });
    assert_eq!(
        out,
        "GET /p?q HTTP/1.1\r\nA: 9\r\nHost: new:80\r\nC: 3\r\nCookie: y\r\nx-request-id: id\r\nX-New: v  Injected: 1\r\n\r\n"
    );
    let split = edited(bytes, |head| {
        head.set_path_and_query(b"/a b\x7f\xff HTTP/1.1\r\nX: y")
    });
    assert!(
        split.starts_with("GET /a%20b%7F%FF%20HTTP/1.1%20%20X:%20y HTTP/1.1\r\nA: 1\r\n"),
        "{split}"
    );
}

#[test]
fn hop_by_hop_fields_that_crept_in_stay_here() {
    let out = edited(GET, |head| {
        for id in [
            HeaderId::Connection,
            HeaderId::TransferEncoding,
            HeaderId::KeepAlive,
            HeaderId::Te,
            HeaderId::Upgrade,
            HeaderId::ProxyConnection,
            HeaderId::XAnyamHeaderCase,
            HeaderId::ContentLength,
        ] {
            head.append(id, b"5");
        }
    });
    assert_eq!(out, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn heads_from_http2_get_a_host_first() {
    let mut head = Head::new();
    head.set_method(b"GET");
    head.set_authority(b"a:1");
    head.set_path_and_query(b"/x");
    head.append_named(b"user-agent", b"u");
    let info = Framing {
        body: BodyLength::Unknown,
        keep_alive: true,
        expect_continue: false,
        tunnel: TunnelRequest::None,
        te_trailers: false,
    };
    let mut conn = ClientConn::new(HeadLimits::default(), Spelling::default());
    let mut out = Out::new();
    conn.write_head(&head, info.body, &info, &mut out);
    assert_eq!(
        text(&mut out),
        "GET /x HTTP/1.1\r\nhost: a:1\r\nuser-agent: u\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn names_are_in_lower_case_without_preserve_case() {
    let (info, head) = accepted(b"GET / HTTP/1.1\r\nHOST: A\r\nX-Custom: Y\r\n\r\n");
    let mut conn = ClientConn::new(
        HeadLimits::default(),
        Spelling {
            preserve_case: false,
            forward_reason: false,
        },
    );
    let mut out = Out::new();
    conn.write_head(&head, info.body, &info, &mut out);
    assert_eq!(
        text(&mut out),
        "GET / HTTP/1.1\r\nhost: A\r\nx-custom: Y\r\n\r\n"
    );
}

const OLD: &[u8] = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n";
const OLD_KEEP: &[u8] = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Request, response, what is written, whether the connection ends.
const FITTING: &[(&[u8], &str, &str, bool)] = &[
    (
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: x\r\n\r\n",
        false,
    ),
    (
        GET,
        "HTTP/1.1 299 Own words\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 299 Own words\r\ntransfer-encoding: chunked\r\n\r\n",
        false,
    ),
    (
        GET,
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        false,
    ),
    (
        GET,
        "HTTP/1.1 204\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        false,
    ),
    (
        GET,
        "HTTP/1.1 304 N\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 304 N\r\nContent-Length: 3\r\n\r\n",
        false,
    ),
    (
        GET,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        false,
    ),
    (
        HEAD,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        false,
    ),
    (
        HEAD,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        false,
    ),
    (
        CLOSE,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nconnection: close\r\n\r\n",
        true,
    ),
    (
        OLD,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n",
        true,
    ),
    (
        OLD,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nconnection: close\r\n\r\n",
        true,
    ),
    (
        OLD_KEEP,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nconnection: keep-alive\r\n\r\n",
        false,
    ),
    (
        OLD_KEEP,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n",
        true,
    ),
    (
        GET,
        "HTTP/1.1 426 U\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 426 U\r\nUpgrade: x\r\nContent-Length: 0\r\nconnection: Upgrade\r\n\r\n",
        false,
    ),
];

#[test]
fn responses_fit_their_clients() {
    for (request, response, want, closing) in FITTING {
        assert_eq!(
            answer(request, response.as_bytes()),
            ((*want).to_owned(), *closing),
            "{response:?}"
        );
    }
}

#[test]
fn bodies_are_framed_and_counted() {
    const { assert!(0x1234 > out::COPY_MAX) };
    let start = |length| {
        let mut server = ServerConn::new(RequestOptions::default());
        server
            .read_head(&mut BytesMut::from(GET), &mut Head::new())
            .unwrap();
        let mut head = Head::new();
        head.set_status(200);
        let mut out = Out::new();
        server.write_head(&head, length, false, &mut out);
        out.clear();
        (server, out)
    };
    let (mut server, mut out) = start(BodyLength::Unknown);
    let big = Bytes::from(vec![b'x'; 0x1234]);
    server
        .write_data(Bytes::from_static(b"0123456789abcdefg"), &mut out)
        .unwrap();
    server.write_data(Bytes::new(), &mut out).unwrap();
    server.write_data(big.clone(), &mut out).unwrap();
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    assert_eq!(out.chunks_vectored(&mut slices), 3);
    assert_eq!(
        slices[1].as_ptr(),
        big.as_ptr(),
        "a large body is not copied"
    );
    let mut trailers = Head::new();
    trailers.append_named(b"grpc-status", b"0");
    trailers.append_named(b"X-Sum", b"1");
    trailers.append_named(b"content-length", b"1");
    server.write_end(Some(&trailers), &mut out).unwrap();
    let x = "x".repeat(0x1234);
    assert_eq!(
        text(&mut out),
        format!(
            "11\r\n0123456789abcdefg\r\n1234\r\n{x}\r\n0\r\ngrpc-status: 0\r\nX-Sum: 1\r\n\r\n"
        )
    );

    let (mut server, mut out) = start(BodyLength::Known(3));
    assert_eq!(
        server.write_data(Bytes::from_static(b"ab"), &mut out),
        Ok(())
    );
    assert_eq!(server.write_end(None, &mut out), Err(Fault::BodyTooShort));
    assert_eq!(
        server.write_data(Bytes::from_static(b"cd"), &mut out),
        Err(Fault::BodyTooLong)
    );
    assert_eq!(
        server.write_data(Bytes::from_static(b"c"), &mut out),
        Ok(())
    );
    assert_eq!(server.write_end(Some(&trailers), &mut out), Ok(()));
    assert_eq!(text(&mut out), "abc");
    assert_eq!(
        server.write_data(Bytes::from_static(b"d"), &mut out),
        Err(Fault::BodyTooLong)
    );

    let (mut server, mut out) = start(BodyLength::None);
    assert_eq!(
        server.write_data(Bytes::from_static(b"d"), &mut out),
        Err(Fault::BodyTooLong)
    );
}

#[test]
fn declared_lengths_are_corrected() {
    let mut head = Head::new();
    head.set_status(200);
    head.append(HeaderId::ContentLength, b"5");
    head.append(HeaderId::Server, b"x");
    head.append(HeaderId::ContentLength, b"3");
    let mut server = ServerConn::new(RequestOptions::default());
    server
        .read_head(&mut BytesMut::from(GET), &mut Head::new())
        .unwrap();
    let mut out = Out::new();
    server.write_head(&head, BodyLength::Known(3), true, &mut out);
    assert_eq!(
        text(&mut out),
        "HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn the_queue_survives_partial_writes() {
    let mut out = Out::new();
    let mut want = Vec::new();
    for n in 0..200usize {
        let piece = vec![n as u8; if n % 3 == 0 { 9000 } else { 700 }];
        want.extend_from_slice(&piece);
        out.slice(Bytes::from(piece));
    }
    let mut got = Vec::new();
    let mut step = 1;
    while out.has_remaining() {
        let chunk = out.chunk();
        let take = chunk.len().min(step);
        got.extend_from_slice(&chunk[..take]);
        out.advance(take);
        step = step * 7 % 4099 + 1;
    }
    assert!(got == want);
}
