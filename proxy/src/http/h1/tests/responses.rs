//! Response heads: framing by status and request, faults.

use super::*;
use crate::message::head::HeaderId;

const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n";

fn info(request: &[u8], bytes: &str) -> ResponseInfo {
    match response_to(request, bytes.as_bytes()) {
        Ok(Some((info, ..))) => info,
        other => panic!("{:?}: {bytes:?}", other.err()),
    }
}

/// Request, response, body, reusable.
const FRAMING: &[(&[u8], &str, BodyLength, bool)] = &[
    (
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        BodyLength::Known(3),
        true,
    ),
    (
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        BodyLength::Unknown,
        true,
    ),
    (
        GET,
        "HTTP/1.1 200 OK\r\n\r\n",
        BodyLength::UntilClose,
        false,
    ),
    (
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
        BodyLength::Known(3),
        false,
    ),
    (
        GET,
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
        BodyLength::Known(3),
        false,
    ),
    (
        GET,
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
        BodyLength::Known(3),
        true,
    ),
    (
        GET,
        "HTTP/1.0 200 OK\r\n\r\n",
        BodyLength::UntilClose,
        false,
    ),
    (
        GET,
        "HTTP/1.1 204 No Content\r\n\r\n",
        BodyLength::None,
        true,
    ),
    (
        GET,
        "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
        BodyLength::None,
        true,
    ),
    (
        GET,
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        BodyLength::None,
        true,
    ),
    (
        GET,
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
        BodyLength::None,
        true,
    ),
    (
        HEAD,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        BodyLength::None,
        true,
    ),
    (
        HEAD,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        BodyLength::None,
        true,
    ),
    (HEAD, "HTTP/1.1 200 OK\r\n\r\n", BodyLength::None, true),
    (
        UPGRADE,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        BodyLength::Known(3),
        true,
    ),
    (
        CONNECT,
        "HTTP/1.1 407 Auth\r\nContent-Length: 3\r\n\r\n",
        BodyLength::Known(3),
        true,
    ),
];

#[test]
fn framing_follows_status_request_and_fields() {
    for (request, response, body, keep_alive) in FRAMING {
        let info = info(request, response);
        assert_eq!(
            (info.body, info.keep_alive),
            (*body, *keep_alive),
            "{response:?}"
        );
        assert!(!info.interim && !info.tunnel, "{response:?}");
    }
}

#[test]
fn interim_and_tunnels() {
    for status in [
        "100 Continue",
        "102 Processing",
        "103 Early Hints",
        "199 Odd",
    ] {
        let info = info(
            GET,
            &format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n"),
        );
        assert!(info.interim && info.body == BodyLength::None, "{status}");
    }
    let switched = info(
        UPGRADE,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    );
    assert!(switched.tunnel && !switched.interim && !switched.keep_alive);
    let connected = info(
        CONNECT,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert!(connected.tunnel && connected.body == BodyLength::None);
    for request in [GET, CONNECT] {
        let response = response_to(request, b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(response.err(), Some(Fault::UnexpectedSwitch));
    }
    let (_, head, rest) = response_to(
        UPGRADE,
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw",
    )
    .unwrap()
    .unwrap();
    assert_eq!(
        (lines(&head), rest),
        (vec!["Upgrade: websocket".to_owned()], b"raw".to_vec())
    );
}

#[test]
fn faults() {
    use Fault::*;
    let table: &[(&[u8], Fault)] = &[
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            ContentLengthAndChunked,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            InvalidContentLength,
        ),
        (
            b"HTTP/1.1 204 No\r\nContent-Length: x\r\n\r\n",
            InvalidContentLength,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            RepeatedContentLength,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            InvalidTransferEncoding,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            UnsupportedTransferEncoding,
        ),
        (
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferEncodingIn10,
        ),
        (b"HTTP/1.1 099 No\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 20 No\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 2000 No\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 2x0 No\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1  200 No\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1\r\n\r\n", InvalidStatus),
        (b"HTTP/2.0 200 OK\r\n\r\n", UnsupportedVersion),
        (b"HTTP/2 200\r\n\r\n", InvalidStartLine),
        (b"ICY 200 OK\r\n\r\n", InvalidStartLine),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", InvalidStartLine),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", InvalidStartLine),
        (b"\x15\x03\x01\x00\x02\x02\x46", Tls),
        (b"HTTP/1.1 200 OK\n\r\n", BareLineFeed),
        (b"HTTP/1.1 200 O\rK\r\n\r\n", BareCarriageReturn),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", SpaceBeforeColon),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", ObsoleteFold),
        (
            b"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c\r\n\r\n",
            BareCarriageReturn,
        ),
    ];
    for (bytes, fault) in table {
        let got = response_to(GET, bytes).err();
        assert_eq!(got, Some(*fault), "{}", bytes.escape_ascii());
    }
}

#[test]
fn hop_by_hop_fields_of_responses_are_removed() {
    let (_, head, _) = response_to(
        GET,
        b"HTTP/1.1 204 N\xc3\xb6\r\nContent-Length: 3\r\nConnection: x-a, set-cookie\r\nX-A: 1\r\nUpgrade: h2\r\nSet-Cookie: b\r\n\r\n",
    )
    .unwrap()
    .unwrap();
    assert_eq!((head.status(), head.reason()), (204, &b"N\xc3\xb6"[..]));
    assert_eq!(lines(&head), ["Set-Cookie: b"]);
    let (_, head, _) = response_to(
        GET,
        b"HTTP/1.1 426 U\r\nConnection: upgrade\r\nUpgrade: h9\r\nContent-Length: 0\r\n\r\n",
    )
    .unwrap()
    .unwrap();
    assert_eq!(head.get(HeaderId::Upgrade), Some(&b"h9"[..]));
    let (_, head, _) = response_to(GET, b"HTTP/1.1 200\r\n\r\n").unwrap().unwrap();
    assert_eq!(head.reason(), b"");
}

#[test]
fn unsolicited_responses_are_faults() {
    let mut conn = ClientConn::new(HeadLimits::default(), Spelling::default());
    let mut input = BytesMut::from(&b"HTTP/1.1 200 OK\r\n\r\n"[..]);
    let got = conn.read_head(&mut input, &mut Head::new());
    assert_eq!(got, Err(Fault::UnsolicitedResponse));

    let mut conn = asking(GET);
    let mut head = Head::new();
    let mut input = BytesMut::from("HTTP/1.1 103 E\r\n\r\n".repeat(40).as_bytes());
    let fault = loop {
        match conn.read_head(&mut input, &mut head) {
            Ok(info) => assert!(info.is_some_and(|info| info.interim)),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault, Fault::TooManyInterim);
}
