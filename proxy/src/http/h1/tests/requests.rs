//! Request heads: lines, targets, hosts, limits.

use super::*;
use crate::message::head::{HeaderId, Method, TargetForm, Version};

#[test]
fn line_ends_and_names_are_strict() {
    use Fault::*;
    let table: &[(&[u8], Fault)] = &[
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nX: a\nHost: a\r\n\r\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nX:\nHost: a\r\n\r\n", BareLineFeed),
        (b"GET / HTTP/1.1\n\n", BareLineFeed),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineFeed),
        (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareCarriageReturn),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            BareCarriageReturn,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n",
            BareCarriageReturn,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX\r: a\r\n\r\n",
            BareCarriageReturn,
        ),
        (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BareCarriageReturn),
        (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", BareCarriageReturn),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\rX: a\r\n\r\n",
            BareCarriageReturn,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            InvalidValue,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
            InvalidValue,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
            InvalidValue,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            ObsoleteFold,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n",
            ObsoleteFold,
        ),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", ObsoleteFold),
        (b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", ObsoleteFold),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", SpaceBeforeColon),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
            SpaceBeforeColon,
        ),
        (b"GET / HTTP/1.1\r\nHost a\r\n\r\n", InvalidName),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", InvalidName),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", InvalidName),
        (
            b"GET / HTTP/1.1\r\n:path: /x\r\nHost: a\r\n\r\n",
            InvalidName,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX\xffY: a\r\n\r\n",
            InvalidName,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\0Y: a\r\n\r\n", InvalidName),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): a\r\n\r\n", InvalidName),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\x0bX: a\r\n\r\n",
            InvalidName,
        ),
    ];
    for (bytes, fault) in table {
        assert_eq!(refused(bytes), *fault, "{}", bytes.escape_ascii());
    }
}

#[test]
fn start_lines_are_strict() {
    use Fault::*;
    let table: &[(&[u8], Fault)] = &[
        (b"GET /\r\n\r\n", InvalidStartLine),
        (b"GET /\r\n", InvalidStartLine),
        (b"GET\r\n\r\n", InvalidStartLine),
        (b"GET  / HTTP/1.1\r\n\r\n", InvalidStartLine),
        (b"GET /  HTTP/1.1\r\n\r\n", InvalidStartLine),
        (b"GET / HTTP/1.1 \r\n\r\n", InvalidStartLine),
        (b"GET / http/1.1\r\n\r\n", InvalidStartLine),
        (b"GET / HTTP/11\r\n\r\n", InvalidStartLine),
        (b"GET / HTTP/1.10\r\n\r\n", InvalidStartLine),
        (b"GET / \r\n\r\n", InvalidStartLine),
        (b"GET /a b HTTP/1.1\r\n\r\n", InvalidStartLine),
        (b"GET / HTTP/1.2\r\n\r\n", UnsupportedVersion),
        (b"GET / HTTP/0.9\r\n\r\n", UnsupportedVersion),
        (b"GET / HTTP/2.0\r\n\r\n", UnsupportedVersion),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UnsupportedVersion),
        (b"G\xffT / HTTP/1.1\r\n\r\n", InvalidMethod),
        (b"G(T / HTTP/1.1\r\n\r\n", InvalidMethod),
        (b" GET / HTTP/1.1\r\n\r\n", InvalidMethod),
        (b"\x16\x03\x01\x02\x00", Tls),
        (b"\0", InvalidMethod),
        (b"GET /\0 HTTP/1.1\r\n\r\n", InvalidTarget),
        (b"GET /\x7f HTTP/1.1\r\n\r\n", InvalidTarget),
        (b"GET /\t HTTP/1.1\r\n\r\n", InvalidTarget),
        (b"GET \xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (
            b"GET http://\xc3\xa9/ HTTP/1.1\r\nHost: a\r\n\r\n",
            InvalidHost,
        ),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"GET http:/x HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (
            b"GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
            UnsupportedScheme,
        ),
        (b"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", InvalidHost),
        (b"GET http://a:x/ HTTP/1.1\r\nHost: a\r\n\r\n", InvalidHost),
        (b"GET http://a,b/ HTTP/1.1\r\nHost: a\r\n\r\n", InvalidHost),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (
            b"CONNECT http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n",
            InvalidTarget,
        ),
        (b"CONNECT a:1/x HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (b"CONNECT u@a:1 HTTP/1.1\r\nHost: a\r\n\r\n", InvalidTarget),
        (
            b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n",
            BodyDisallowed,
        ),
        (
            b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n",
            BodyDisallowed,
        ),
    ];
    for (bytes, fault) in table {
        assert_eq!(refused(bytes), *fault, "{}", bytes.escape_ascii());
    }
}

#[test]
fn there_is_exactly_one_valid_host() {
    use Fault::*;
    let table: &[(&[u8], Fault)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", MissingHost),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", MissingHost),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            RepeatedHost,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n",
            RepeatedHost,
        ),
        (
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            RepeatedHost,
        ),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", InvalidHost),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", InvalidHost),
        (b"GET / HTTP/1.1\r\nHost: u:p@a\r\n\r\n", InvalidHost),
        (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", InvalidHost),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", InvalidHost),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", InvalidHost),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", MissingHost),
        (
            b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            RepeatedHost,
        ),
    ];
    for (bytes, fault) in table {
        assert_eq!(refused(bytes), *fault, "{}", bytes.escape_ascii());
    }
    let (_, head) = accepted(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(head.authority(), b"");
    assert_eq!(head.get(HeaderId::Host), None);
}

#[test]
fn targets_are_split_and_the_host_follows_them() {
    let (_, head) = accepted(b"GET /a?b HTTP/1.1\r\nHost: X.y:1\r\n\r\n");
    assert_eq!(
        (head.form(), head.method()),
        (TargetForm::Origin, Method::Get)
    );
    assert_eq!((head.path(), head.query()), (&b"/a"[..], Some(&b"b"[..])));
    assert_eq!(head.authority(), b"X.y:1");
    assert_eq!(head.version(), Version::Http11);

    let (_, head) = accepted(b"GET HTTP://u.v:80/a/b?c HTTP/1.1\r\nA: 1\r\nhOST: other\r\n\r\n");
    assert_eq!(head.form(), TargetForm::Absolute);
    assert_eq!(head.scheme(), b"HTTP");
    assert_eq!(head.authority(), b"u.v:80");
    assert_eq!(head.path_and_query(), b"/a/b?c");
    assert_eq!(lines(&head), ["A: 1", "hOST: u.v:80"]);
    assert_eq!(head.get(HeaderId::Host), Some(&b"u.v:80"[..]));

    for (bytes, path) in [
        (&b"GET http://u HTTP/1.1\r\nHost: u\r\n\r\n"[..], &b"/"[..]),
        (b"GET http://u?x=/ HTTP/1.1\r\nHost: u\r\n\r\n", b"/?x=/"),
        (b"GET http://u#f HTTP/1.1\r\nHost: u\r\n\r\n", b"/#f"),
        (b"OPTIONS http://u HTTP/1.1\r\nHost: u\r\n\r\n", b"*"),
        (b"OPTIONS http://u/ HTTP/1.1\r\nHost: u\r\n\r\n", b"/"),
    ] {
        assert_eq!(
            accepted(bytes).1.path_and_query(),
            path,
            "{}",
            bytes.escape_ascii()
        );
        assert_eq!(accepted(bytes).1.authority(), b"u");
    }

    let (_, head) = accepted(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (head.form(), head.path()),
        (TargetForm::Asterisk, &b"*"[..])
    );

    let (info, head) = accepted(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(
        (head.form(), head.path()),
        (TargetForm::Authority, &b""[..])
    );
    assert_eq!(head.authority(), b"[::1]:443");
    assert_eq!(lines(&head), ["Host: [::1]:443"]);
    assert_eq!(info.tunnel, TunnelRequest::Connect);

    let (_, head) = accepted(b"BREW-2 //x//y HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (head.method(), head.method_name()),
        (Method::Other, &b"BREW-2"[..])
    );
    assert_eq!(head.path(), b"//x//y");
}

#[test]
fn options_close_doors() {
    let old = b"GET / HTTP/1.0\r\n\r\n";
    let options = RequestOptions {
        accept_http_10: false,
        ..RequestOptions::default()
    };
    assert_eq!(
        request_with(options, old).err(),
        Some(Fault::Http10NotAccepted)
    );
    assert_eq!(Fault::Http10NotAccepted.request_status(), 426);
    let absolute = b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let options = RequestOptions {
        allow_absolute_url: false,
        ..RequestOptions::default()
    };
    assert_eq!(
        request_with(options, absolute).err(),
        Some(Fault::AbsoluteTarget)
    );
}

#[test]
fn limits_hold_exactly() {
    let options = |head_bytes, fields| RequestOptions {
        limits: HeadLimits { head_bytes, fields },
        ..RequestOptions::default()
    };
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for (limit, fault) in [
        (bytes.len(), None),
        (bytes.len() - 1, Some(Fault::HeadTooLarge)),
    ] {
        assert_eq!(request_with(options(limit, 2), bytes).err(), fault);
    }
    assert_eq!(
        request_with(options(99, 1), bytes).err(),
        Some(Fault::TooManyFields)
    );
    assert_eq!(
        request_with(options(9, 1), b"GET /aaaaaaaaa").err(),
        Some(Fault::HeadTooLarge)
    );
    // What is wrong within the limit is found before the limit is.
    let wrong = b"GET / HTTP/1.1\r\nHost : a\r\nX: yyyyyyyyyyyyyyy\r\n\r\n";
    assert_eq!(
        request_with(options(30, 9), wrong).err(),
        Some(Fault::SpaceBeforeColon)
    );

    let many = |count: usize| {
        let fields: String = (0..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
    };
    assert!(request(&many(99)).is_ok());
    assert_eq!(refused(&many(100)), Fault::TooManyFields);
    assert!(request_with(options(1 << 20, 9999), &many(MAX_FIELDS - 1)).is_ok());
    let over = request_with(options(1 << 20, 9999), &many(MAX_FIELDS));
    assert_eq!(over.err(), Some(Fault::TooManyFields));
    assert_eq!(Fault::TooManyFields.request_status(), 431);
}

#[test]
fn a_few_empty_lines_may_come_first() {
    assert!(request(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    assert_eq!(
        refused(b"\r\n\r\n\r\nGET / HTTP/1.1\r\n"),
        Fault::LeadingJunk
    );
    assert!(matches!(request(b"\r\n\r"), Ok(None)));
    assert!(matches!(request(b""), Ok(None)));
}

#[test]
fn values_are_trimmed_and_repeated_fields_kept() {
    let (_, head) =
        accepted(b"GET / HTTP/1.1\r\nHost: a\r\nA:1\r\nA: \t2 \t\r\na:\r\nB:  \r\nC: \xff\r\n\r\n");
    assert_eq!(
        lines(&head),
        ["Host: a", "A: 1", "A: 2", "a: ", "B: ", "C: \\xff"]
    );
    let all: Vec<_> = head.get_all_by_name(b"A").collect();
    assert_eq!(all, [&b"1"[..], b"2", b""]);
}

#[test]
fn every_fault_has_a_status_and_details() {
    for fault in Fault::ALL {
        assert!((400..=505).contains(&fault.request_status()), "{fault:?}");
        assert!(
            !fault.details().is_empty() && fault.reason().ends_with('.'),
            "{fault:?}"
        );
        assert_eq!(fault.status(FaultSide::Upstream), 502);
    }
}
