//! The fuzzer's corpus through a configured mesh: the app gets whole requests, none of them denied.

use std::path::Path;

use super::caller::{Ask, Caller, Version, Way};
use super::mirror::Mirror;
use super::ways;
use crate::harness::Mesh;
use crate::hex;

/// The fuzzer's corpus in both versions, and what a policy denies behind each of its inputs.
pub fn no_input_bypasses_policy(mesh: &Mesh, caller: &Caller, mirror: &Mirror) {
    const HTTP1: &[u8] = b"GET /admin HTTP/1.1\r\nHost: app.shop\r\n\r\n";
    // HEADERS of stream 101: GET, http, `:path: /admin`, `:authority: shop`.
    const HTTP2: &[u8] = b"\0\0\x10\x01\x05\0\0\0\x65\x82\x86\x04\x06/admin\x01\x04shop";
    let corpora = [
        ("requests", Version::Http1, HTTP1),
        ("h2_requests", Version::Http2, HTTP2),
    ];
    mirror.received();
    for (name, version, denied) in corpora {
        let inputs = inputs(name);
        assert!(inputs.len() >= 50, "{name}: {}", inputs.len());
        let mut reached = 0;
        for input in inputs {
            let bytes = [&input[..], denied].concat();
            for way in [Way::Plain, Way::Mtls, Way::Sidecar] {
                caller.send(way, version, &bytes);
                let heads = mirror.received();
                reached += heads.len();
                for head in heads {
                    let what = || {
                        let logs = mesh.logs();
                        format!("{way:?} {}: {head}\n{logs}", input_name(&bytes))
                    };
                    is_one_request_that_is_allowed(&head, &what);
                }
            }
        }
        assert!(reached > 0, "{name}: the app was never asked");
    }
    for (way, version) in ways() {
        let asked = Ask {
            version,
            ..Ask::default()
        };
        assert_eq!(caller.ask(way, &asked).0, 200, "{way:?} {version:?}");
    }
}

fn inputs(name: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/fuzz/corpus");
    let inputs = std::fs::read_dir(corpus.join(name)).unwrap();
    let inputs = inputs.map(|input| {
        let path = input.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        match path.extension().is_some_and(|ending| ending == "hex") {
            true => hex::from_text(std::str::from_utf8(&bytes).unwrap()),
            false => bytes,
        }
    });
    inputs.collect()
}

fn is_one_request_that_is_allowed(head: &str, what: &dyn Fn() -> String) {
    let line = head.lines().next().unwrap_or_default();
    let path = line.split(' ').nth(1).unwrap_or_default();
    let read = as_an_app_may_read(path);
    let is_admin = read == "/admin" || read.starts_with("/admin/");
    assert!(line.ends_with(" HTTP/1.1") && !is_admin, "{}", what());
    let hosts = head
        .lines()
        .filter(|it| it.to_lowercase().starts_with("host:"));
    assert_eq!(hosts.count(), 1, "{}", what());
}

fn input_name(bytes: &[u8]) -> String {
    bytes.escape_ascii().take(300).map(char::from).collect()
}

/// Decoded, without parameters, dot segments and repeated slashes: the most an app makes of a path.
fn as_an_app_may_read(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut decoded = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = rest.get(1..3).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => (decoded.push(byte), rest = &rest[3..]),
            None => (decoded.push(*first), rest = behind),
        };
    }
    let decoded = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut read: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => _ = read.pop(),
            name => read.push(name),
        }
    }
    format!("/{}", read.join("/"))
}
