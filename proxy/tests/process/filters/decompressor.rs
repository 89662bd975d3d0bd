//! The decompressor.

use std::io::Write;

use serde_json::{Value, json};

use super::coded::{coded, compare, scripted, value};
use super::side::Side;
use super::{Scenario, filter};

const LIBRARY: &str = "type.googleapis.com/envoy.extensions.compression";

fn decompressor(kind: &str, mut config: Value) -> Value {
    config["decompressor_library"] = json!({
        "name": "library",
        "typed_config": {"@type": format!("{LIBRARY}.{kind}")},
    });
    filter("decompressor", "decompressor.v3.Decompressor", config)
}

fn gzip(config: Value) -> Value {
    decompressor("gzip.decompressor.v3.Gzip", config)
}

#[test]
fn responses_are_decoded_and_upstreams_are_told() {
    compare(
        &Scenario::new(json!([gzip(json!({}))])),
        r#"
            GET / |  |
            GET / | x-code: gzip |
            GET / | x-code: gzip & x-chunked: 1 |
            GET / | x-code: gzip & x-length: 20000 |
            GET / | x-code: br | br
            GET / | x-code: gzip & x-set: cache-control: no-transform | gzip
            GET / | x-code: gzip & x-set: etag: "strong" |
            GET / | x-code: gzip & x-status: 404 |
            HEAD / | x-code: gzip | gzip
            GET / | accept-encoding: gzip |
            GET / | accept-encoding: br |
            GET / | accept-encoding: gzip, br;q=0.5 |
            GET / | accept-encoding: br , gzip;q=0.5,identity |
        "#,
    );
    let common = |config: Value| json!({"common_config": config});
    let off = json!({"enabled": {"default_value": false, "runtime_key": "x"}});
    let config = json!({"response_direction_config": common(off)});
    compare(
        &Scenario::new(json!([gzip(config)])),
        r#"
            GET / | accept-encoding: br & x-code: gzip | gzip
        "#,
    );
    let config = json!({
        "request_direction_config": {"advertise_accept_encoding": false},
        "response_direction_config": common(json!({"ignore_no_transform_header": true})),
    });
    compare(
        &Scenario::new(json!([gzip(config)])),
        r#"
            GET / | accept-encoding: br & x-code: gzip |
            GET / | x-code: gzip & x-set: cache-control: no-transform |
        "#,
    );
    for (kind, coding) in [
        ("brotli.decompressor.v3.Brotli", "br"),
        ("zstd.decompressor.v3.Zstd", "zstd"),
    ] {
        // More of this text is over `max_inflate_ratio`, where Envoy cuts; see the next test.
        let rows = format!(
            "GET / | x-code: {coding} |
             GET / | x-code: {coding} & x-length: 10000 |
             GET / | x-code: gzip | gzip"
        );
        compare(
            &Scenario::new(json!([decompressor(kind, json!({}))])),
            &rows,
        );
    }
}

/// Envoy applies `max_inflate_ratio` to the first bytes already; here 64 KiB are free of it, since a
/// short text that repeats is no bomb.
#[test]
fn short_bodies_are_whole_whatever_their_ratio() {
    let upstream = crate::proxy::upstream(scripted);
    for (kind, coding) in [
        ("brotli.decompressor.v3.Brotli", "br"),
        ("zstd.decompressor.v3.Zstd", "zstd"),
    ] {
        let scenario = Scenario::new(json!([decompressor(kind, json!({}))]));
        let ours = Side::anyam(&scenario, upstream);
        let request =
            format!("GET / HTTP/1.1\r\nhost: shop\r\nx-code: {coding}\r\nx-length: 20000\r\n\r\n");
        let answer = ours.ask_bytes(request.as_bytes());
        assert_eq!(
            (answer.status, answer.body.len()),
            (200, 20_000),
            "{coding}"
        );
    }
}

/// A request's body in a coding; `fields`: lines that end in CRLF.
fn post(coding: &str, fields: &str, plain: &[u8]) -> Vec<u8> {
    let body = coded(coding, plain);
    let length = body.len();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: shop\r\ncontent-encoding: {coding}\r\n{fields}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}

#[test]
fn requests_are_decoded() {
    let buffer = || {
        filter(
            "buffer",
            "buffer.v3.Buffer",
            json!({"max_request_bytes": 100_000}),
        )
    };
    for filters in [json!([gzip(json!({}))]), json!([buffer(), gzip(json!({}))])] {
        let upstream = crate::proxy::upstream(scripted);
        let scenario = Scenario::new(filters);
        let ours = Side::anyam(&scenario, upstream);
        let stock = Side::envoy(&scenario, upstream);
        let plain = "of a body, ".repeat(1000);
        for (request, seen) in [
            (post("gzip", "", plain.as_bytes()), ""),
            (post("br", "", plain.as_bytes()), "br"),
            (
                post("gzip", "cache-control: no-transform\r\n", plain.as_bytes()),
                "gzip",
            ),
        ] {
            let (ours, stock) = (ours.ask_bytes(&request), stock.ask_bytes(&request));
            assert_eq!(ours, stock, "Anyam | Envoy");
            assert_eq!(value(&ours, "x-coding"), seen);
            assert_eq!(ours.body, plain);
        }
    }
}

/// Bodies of some MB, which decode to some more.
#[test]
fn bodies_that_are_waited_for_are_decoded_whole() {
    let buffer = json!({"max_request_bytes": 10 << 20});
    let buffer = || filter("buffer", "buffer.v3.Buffer", buffer.clone());
    let plain: String = (0..400_000).map(|number| format!("{number};")).collect();
    let upstream = crate::proxy::upstream(scripted);
    for filters in [
        json!([gzip(json!({})), buffer()]),
        json!([buffer(), gzip(json!({}))]),
    ] {
        let scenario = Scenario::new(filters);
        let ours = Side::anyam(&scenario, upstream);
        let stock = Side::envoy(&scenario, upstream);
        let request = post("gzip", "", plain.as_bytes());
        let (ours, stock) = (ours.ask_bytes(&request), stock.ask_bytes(&request));
        assert_eq!((ours.status, value(&ours, "x-coding")), (200, ""));
        assert!(ours == stock && ours.body == plain);
    }
}

/// A range is one of the coded bytes. (Envoy decodes it, and fails.)
#[test]
fn a_part_of_a_response_stays_coded() {
    let upstream = crate::proxy::upstream(scripted);
    let ours = Side::anyam(&Scenario::new(json!([gzip(json!({}))])), upstream);
    let request = "GET / HTTP/1.1\r\nhost: shop\r\nrange: bytes=0-99\r\nx-status: 206\r\nx-code: gzip\r\n\r\n";
    let answer = ours.ask(request);
    assert_eq!(value(&answer, "content-encoding"), "gzip");
    assert_eq!(value(&answer, "x-got"), "");
    assert_eq!(answer.body.len(), 1000);
}

/// What is decoded has no length that a compressor could find too small.
#[test]
fn decoded_responses_are_coded_anew() {
    let brotli = filter(
        "compressor",
        "compressor.v3.Compressor",
        json!({
            "compressor_library": {
                "name": "library",
                "typed_config": {"@type": format!("{LIBRARY}.brotli.compressor.v3.Brotli")},
            },
            "response_direction_config": {"common_config": {"min_content_length": 1000}},
        }),
    );
    compare(
        &Scenario::new(json!([brotli, gzip(json!({}))])),
        "GET / | accept-encoding: br & x-code: gzip & x-length: 5000 | br",
    );
}

/// Bounds count bytes: a piece of one byte must not hold much more.
#[test]
fn a_body_in_pieces_of_a_byte_keeps_little_memory() {
    let upstream = crate::proxy::upstream(scripted);
    let ours = Side::anyam(&Scenario::new(json!([gzip(json!({}))])), upstream);
    let plain = "x".repeat(60_000);
    let mut coded = vec![0; 70_000];
    // Stored: as much comes out of a piece as goes in.
    let config = zlib_rs::DeflateConfig {
        window_bits: 15 + 16,
        ..zlib_rs::DeflateConfig::new(0)
    };
    let mut deflate = zlib_rs::Deflate::new_with_config(config);
    let plain = plain.as_bytes();
    let status = deflate.compress(plain, &mut coded, zlib_rs::DeflateFlush::Finish);
    assert_eq!(status.unwrap(), zlib_rs::Status::StreamEnd);
    coded.truncate(deflate.total_out() as usize);
    let mut request =
        b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for byte in coded {
        request.extend([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    request.extend(b"0\r\n\r\n");
    // The first opens the upstream's connection. On one that was used before, what is sent is kept.
    assert_eq!(ours.ask_bytes(&post("gzip", "", plain)).status, 200);
    let before = ours.peak_resident();
    let answer = ours.ask_bytes(&request);
    assert_eq!((answer.status, answer.body.len()), (200, plain.len()));
    let grown = ours.peak_resident() - before;
    assert!(grown < 32 << 20, "{grown}");
}

/// What cannot be decoded, or decodes to too much, is the sender's error and is not forwarded as
/// a complete body.
#[test]
fn wrong_bodies_and_bombs_are_refused() {
    let upstream = crate::proxy::upstream(scripted);
    let ours = Side::anyam(&Scenario::new(json!([gzip(json!({}))])), upstream);
    let bomb = vec![0; 64 << 20];
    let whole = coded("gzip", b"some text that is cut short");
    let cut = &whole[..whole.len() - 4];
    let raw = |body: &[u8]| {
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: shop\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    };
    for (request, status) in [
        (post("gzip", "", &bomb), 413),
        (raw(b"this is no gzip"), 400),
        (raw(cut), 400),
        (post("gzip", "", b"in order"), 200),
    ] {
        assert_eq!(ours.ask_bytes(&request).status, status);
    }
    // A response has begun when it turns out to be one.
    let mut tcp = ours.connect();
    let length = 16 << 20;
    let request =
        format!("GET / HTTP/1.1\r\nhost: shop\r\nx-code: gzip\r\nx-length: {length}\r\n\r\n");
    tcp.write_all(request.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let _ = std::io::Read::read_to_end(&mut tcp, &mut seen);
    assert!(seen.starts_with(b"HTTP/1.1 200 "));
    assert!(
        seen.len() < length && !seen.ends_with(b"0\r\n\r\n"),
        "{}",
        seen.len()
    );
}
