//! Detects a connection's protocol from its first bytes. Sans-IO: called again with more bytes
//! until it is decided; the result does not depend on how the bytes were split.

use crate::policy::DetectedProtocol;
use crate::tls::hello::{self, Parsed};

/// Bytes that are inspected; a connection that is undecided by then is neither HTTP nor TLS.
pub const MAX_LOOK: usize = 16 * 1024;

/// How an HTTP/2 connection begins (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest token that is accepted as a method.
const MAX_METHOD: usize = 24;

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub tls: bool,
    pub http: bool,
}

/// What `bytes` are; `None`: more are needed.
pub fn detect(bytes: &[u8], look: Look) -> Option<DetectedProtocol> {
    let full = bytes.len() >= MAX_LOOK;
    let (bytes, _) = bytes.split_at(bytes.len().min(MAX_LOOK));
    if look.tls {
        match hello::parse(bytes) {
            Parsed::Hello(hello) => return Some(DetectedProtocol::Tls(hello)),
            Parsed::Incomplete if !full => return None,
            Parsed::Incomplete | Parsed::NotTls => {}
        }
    }
    if look.http {
        if bytes.starts_with(PREFACE) {
            return Some(DetectedProtocol::Http2);
        }
        if PREFACE.starts_with(bytes) {
            return None;
        }
        return match request_line(bytes) {
            Line::Incomplete if !full => None,
            // A target of this length is still HTTP: the codec answers that it is too long.
            Line::Incomplete | Line::Http11 => Some(DetectedProtocol::Http11),
            Line::Http10 => Some(DetectedProtocol::Http10),
            Line::No => Some(DetectedProtocol::Tcp),
        };
    }
    Some(DetectedProtocol::Tcp)
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Incomplete,
    No,
    Http11,
    Http10,
}

/// `method SP target SP HTTP/1.x CR|LF`. Empty lines before it are allowed, as HTTP allows them.
fn request_line(bytes: &[u8]) -> Line {
    let start = bytes
        .iter()
        .take_while(|&&b| matches!(b, b'\r' | b'\n'))
        .count();
    if start > 4 {
        return Line::No;
    }
    let (_, bytes) = bytes.split_at(start);
    let method = bytes
        .iter()
        .take_while(|b| b.is_ascii_uppercase() || **b == b'-')
        .count();
    if method > MAX_METHOD {
        return Line::No;
    }
    let rest = match bytes.split_at(method) {
        (_, []) => return Line::Incomplete,
        ([_, ..], [b' ', rest @ ..]) => rest,
        _ => return Line::No,
    };
    let target = rest.iter().take_while(|&&b| b > b' ' && b != 0x7f).count();
    let version = match rest.split_at(target) {
        (_, []) => return Line::Incomplete,
        ([_, ..], [b' ', version @ ..]) => version,
        _ => return Line::No,
    };
    const HTTP1: &[u8] = b"HTTP/1.";
    if !version.starts_with(HTTP1) && !HTTP1.starts_with(version) {
        return Line::No;
    }
    match version.get(HTTP1.len()..) {
        None | Some([] | [_]) => match version.get(HTTP1.len()) {
            Some(b) if !b.is_ascii_digit() => Line::No,
            _ => Line::Incomplete,
        },
        Some([b'0', b'\r' | b'\n', ..]) => Line::Http10,
        Some([minor, b'\r' | b'\n', ..]) if minor.is_ascii_digit() => Line::Http11,
        Some(_) => Line::No,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Look = Look {
        tls: true,
        http: true,
    };

    fn found(bytes: &[u8]) -> Option<DetectedProtocol> {
        detect(bytes, ALL)
    }

    #[test]
    fn by_first_bytes() {
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1\r\n"[..], DetectedProtocol::Http11),
            (b"\r\nGET / HTTP/1.1\r\n", DetectedProtocol::Http11),
            (b"OPTIONS * HTTP/1.0\n", DetectedProtocol::Http10),
            (b"M-SEARCH /x HTTP/1.1\r", DetectedProtocol::Http11),
            (b"CONNECT a:1 HTTP/1.1\r", DetectedProtocol::Http11),
            (PREFACE, DetectedProtocol::Http2),
            (b"GET /\r\n", DetectedProtocol::Tcp),
            (b"GET / HTTP/2.0\r\n", DetectedProtocol::Tcp),
            (b"GET / HTTP/1.x", DetectedProtocol::Tcp),
            (b"PING\r\n", DetectedProtocol::Tcp),
            (b"*1\r\n$4\r\nPING\r\n", DetectedProtocol::Tcp),
            (b"EHLO host\r\n", DetectedProtocol::Tcp),
            (b"get / HTTP/1.1\r\n", DetectedProtocol::Tcp),
            (b"\x16\x03\x01\x00\x00", DetectedProtocol::Tcp),
            (b"\x16\x03\x01\x00\x04\x02\0\0\0", DetectedProtocol::Tcp),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", DetectedProtocol::Tcp),
        ] {
            assert_eq!(
                found(bytes),
                Some(protocol),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn undecided_until_enough_is_there() {
        for bytes in [
            &b""[..],
            b"G",
            b"GET",
            b"GET /x",
            b"GET / HTTP/1.1",
            b"PRI * HT",
            b"\x16\x03",
        ] {
            assert_eq!(found(bytes), None, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn bounded() {
        let mut long = b"GET /".to_vec();
        long.resize(MAX_LOOK, b'a');
        assert_eq!(found(&long), Some(DetectedProtocol::Http11));
        let mut hello = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xff".to_vec();
        hello.resize(MAX_LOOK + 10, 0);
        assert!(found(&hello).is_some());
        assert_eq!(found(&[b'A'; 64]), Some(DetectedProtocol::Tcp));
    }

    #[test]
    fn detects_only_what_is_asked_for() {
        let look = Look {
            tls: false,
            http: false,
        };
        assert_eq!(
            detect(b"GET / HTTP/1.1\r\n", look),
            Some(DetectedProtocol::Tcp)
        );
        let look = Look {
            tls: true,
            http: false,
        };
        assert_eq!(detect(b"G", look), Some(DetectedProtocol::Tcp));
    }

    /// A ClientHello in records of `fragment` bytes.
    fn client_hello(sni: &str, alpn: &[&str], padding: usize, fragment: usize) -> Vec<u8> {
        fn with_length(width: usize, body: &[u8]) -> Vec<u8> {
            let length = (body.len() as u32).to_be_bytes();
            [&length[4 - width..], body].concat()
        }
        let extension =
            |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &with_length(2, body)].concat();
        let name = [&[0][..], &with_length(2, sni.as_bytes())].concat();
        let list: Vec<u8> = alpn
            .iter()
            .flat_map(|p| with_length(1, p.as_bytes()))
            .collect();
        let extensions = [
            extension(51, &vec![7; padding]),
            extension(0, &with_length(2, &name)),
            extension(16, &with_length(2, &list)),
        ]
        .concat();
        let body = [
            &[3, 3][..],
            &[9; 32],
            &with_length(1, &[1; 32]),
            &with_length(2, &[0x13, 1]),
            &with_length(1, &[0]),
            &with_length(2, &extensions),
        ]
        .concat();
        let message = [&[1][..], &with_length(3, &body)].concat();
        message
            .chunks(fragment)
            .flat_map(|part| [&[22, 3, 1][..], &with_length(2, part)].concat())
            .collect()
    }

    #[test]
    fn hellos_in_one_or_many_records() {
        for fragment in [1, 100, 16384] {
            // 1216 bytes: what ML-KEM adds to a key share.
            let bytes = client_hello("Cart.shop", &["h2", "anyam-tcp"], 1216, fragment);
            let Some(DetectedProtocol::Tls(hello)) = found(&bytes) else {
                panic!("not TLS");
            };
            assert_eq!(hello.sni.as_deref(), Some("cart.shop"));
            assert_eq!(
                hello.alpn.iter().map(|p| &p[..]).collect::<Vec<_>>(),
                [&b"h2"[..], b"anyam-tcp"]
            );
        }
    }

    #[test]
    fn server_names_unsafe_in_logs_are_dropped() {
        for name in ["a\u{1b}[2J", "a\0b", "a b", "\u{202e}x"] {
            let bytes = client_hello(name, &[], 0, 16384);
            let Some(DetectedProtocol::Tls(hello)) = found(&bytes) else {
                panic!("not TLS");
            };
            assert_eq!(hello.sni, None);
        }
    }

    /// An early result must equal the result for all bytes.
    fn same_at_every_split(bytes: &[u8]) {
        let whole = found(bytes);
        for at in 0..bytes.len() {
            let early = found(&bytes[..at]);
            assert!(
                early.is_none() || early == whole,
                "differs at {at} of {}",
                bytes.len()
            );
        }
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            same_at_every_split(&bytes);
        }

        #[test]
        fn splitting_text_changes_nothing(
            text in "(\r\n){0,2}[A-Z-]{0,8} ?[!-~]{0,20} ?(HTTP/[0-9.]{0,4})?\r?\n?[ -~]{0,10}",
        ) {
            same_at_every_split(text.as_bytes());
        }

        #[test]
        fn splitting_hellos_changes_nothing(
            sni in "[a-zA-Z.]{0,20}",
            padding in 0usize..600,
            fragment in 1usize..700,
            broken in proptest::option::of((0usize..400, any::<u8>())),
        ) {
            let mut bytes = client_hello(&sni, &["h2"], padding, fragment);
            if let Some((at, byte)) = broken
                && let Some(slot) = bytes.get_mut(at)
            {
                *slot = byte;
            }
            same_at_every_split(&bytes);
        }
    }
}
