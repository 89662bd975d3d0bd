//! Framing and persistence by a request's fields.

use super::*;
use crate::message::head::HeaderId;

/// A POST with these extra lines.
fn post(extra: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{extra}\r\n").into_bytes()
}

#[test]
fn content_length_is_one_plain_number() {
    for bad in [
        "+1",
        "-1",
        "1_0",
        "0x1",
        "1,1",
        "1, 1",
        "1,",
        ",1",
        "",
        " ",
        "1 1",
        "1.0",
        "1e1",
        "a",
        "18446744073709551616",
        "99999999999999999999999",
        "\u{661}",
    ] {
        let bytes = post(&format!("Content-Length: {bad}\r\n"));
        assert_eq!(refused(&bytes), Fault::InvalidContentLength, "{bad:?}");
    }
    for twice in [
        "1\r\nContent-Length: 1",
        "1\r\ncontent-length: 2",
        "0\r\nX: y\r\nCONTENT-LENGTH: 0",
    ] {
        let bytes = post(&format!("Content-Length: {twice}\r\n"));
        assert_eq!(refused(&bytes), Fault::RepeatedContentLength, "{twice:?}");
    }
    for (good, length) in [
        ("0", 0),
        ("7", 7),
        ("007", 7),
        ("18446744073709551615", u64::MAX),
    ] {
        let (info, _) = accepted(&post(&format!("Content-Length: {good}\r\n")));
        assert_eq!(info.body, BodyLength::Known(length));
    }
}

#[test]
fn transfer_encoding_is_chunked_and_nothing_else() {
    use Fault::{InvalidTransferEncoding as Invalid, UnsupportedTransferEncoding as Unsupported};
    for (value, fault) in [
        ("identity", Invalid),
        ("gzip", Invalid),
        ("chunked, gzip", Invalid),
        ("chunked, chunked", Invalid),
        ("chunked\r\nTransfer-Encoding: chunked", Invalid),
        ("chunked\r\nTransfer-Encoding: identity", Invalid),
        ("chunked,", Invalid),
        (",chunked", Invalid),
        ("", Invalid),
        ("xchunked", Invalid),
        ("chunkedx", Invalid),
        ("chunked;q=1", Invalid),
        ("\"chunked\"", Invalid),
        ("chunked identity", Invalid),
        ("chunk\u{0131}ed", Invalid),
        ("\u{b}chunked", Fault::InvalidValue),
        ("gzip, chunked", Unsupported),
        ("gzip\r\nTransfer-Encoding: chunked", Unsupported),
        ("identity, chunked", Unsupported),
    ] {
        let bytes = post(&format!("Transfer-Encoding: {value}\r\n"));
        assert_eq!(refused(&bytes), fault, "{value:?}");
    }
    for good in ["chunked", "Chunked", "CHUNKED", "\t chunked \t"] {
        let (info, head) = accepted(&post(&format!("Transfer-Encoding: {good}\r\n")));
        assert_eq!(info.body, BodyLength::Unknown, "{good:?}");
        assert!(!head.has(HeaderId::TransferEncoding));
    }
}

#[test]
fn length_and_chunked_exclude_each_other() {
    for extra in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "transfer-encoding: chunked\r\nConnection: content-length\r\nCONTENT-LENGTH: 4\r\n",
    ] {
        assert_eq!(
            refused(&post(extra)),
            Fault::ContentLengthAndChunked,
            "{extra:?}"
        );
    }
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(old), Fault::TransferEncodingIn10);
}

#[test]
fn connection_options_end_here() {
    let (info, head) = accepted(
        b"GET / HTTP/1.1\r\nX-Gone: 1\r\nHost: a\r\nConnection: x-GONE , close,, x-forwarded-for\r\n\
          Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate\r\n\
          X-Forwarded-For: 2\r\nCookie: c\r\nX-Stays: 3\r\nUpgrade: websocket\r\n\
          Connection: host, cookie, content-length, authorization, x-envoy-foo, X-ANYAM-x\r\n\
          X-Envoy-Foo: 4\r\nx-anyam-x: 5\r\nAuthorization: z\r\n\r\n",
    );
    assert!(!info.keep_alive && info.te_trailers);
    assert_eq!(info.tunnel, TunnelRequest::None);
    assert_eq!(
        lines(&head),
        [
            "Host: a",
            "X-Forwarded-For: 2",
            "Cookie: c",
            "X-Stays: 3",
            "X-Envoy-Foo: 4",
            "x-anyam-x: 5",
            "Authorization: z"
        ]
    );
    let many: String = (0..40).map(|n| format!("x-{n},")).collect();
    let many = post(&format!("Connection: {many}\r\n"));
    assert_eq!(refused(&many), Fault::ConnectionOptions);
}

#[test]
fn persistence() {
    for (line, connection, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, CLOSE\r\n", false),
        ("1.1", "Proxy-Connection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let bytes = format!("GET / HTTP/{line}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(
            accepted(bytes.as_bytes()).0.keep_alive,
            keep_alive,
            "{bytes:?}"
        );
    }
}

#[test]
fn upgrades_need_both_fields_and_11() {
    for (head, tunnel) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            TunnelRequest::Upgrade,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            TunnelRequest::None,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
            TunnelRequest::None,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            TunnelRequest::None,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n",
            TunnelRequest::None,
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            TunnelRequest::None,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n",
            TunnelRequest::Upgrade,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            TunnelRequest::Upgrade,
        ),
    ] {
        let (info, parsed) = accepted(head.as_bytes());
        assert_eq!(info.tunnel, tunnel, "{head:?}");
        assert_eq!(
            parsed.has(HeaderId::Upgrade),
            tunnel == TunnelRequest::Upgrade
        );
    }
}

#[test]
fn expectations() {
    let put = |version, value, length| {
        let head = format!("PUT / HTTP/{version}\r\nHost: a\r\nExpect: {value}\r\n{length}\r\n");
        request(head.as_bytes()).map(|r| r.map(|(info, ..)| info.expect_continue))
    };
    assert_eq!(
        put("1.1", "100-Continue", "Content-Length: 1\r\n"),
        Ok(Some(true))
    );
    assert_eq!(
        put("1.1", "100-continue", "Transfer-Encoding: chunked\r\n"),
        Ok(Some(true))
    );
    assert_eq!(
        put("1.1", "100-continue", "Content-Length: 0\r\n"),
        Ok(Some(true))
    );
    assert_eq!(put("1.1", "100-continue", ""), Ok(Some(true)));
    assert_eq!(
        put("1.0", "100-continue", "Content-Length: 1\r\n"),
        Ok(Some(false))
    );
    assert_eq!(put("1.1", "200-ok", ""), Err(Fault::UnsupportedExpectation));
    assert_eq!(
        put("1.1", "200-ok\r\nExpect: 100-continue", ""),
        Err(Fault::UnsupportedExpectation)
    );
    assert_eq!(Fault::UnsupportedExpectation.request_status(), 417);
}
