//! The compressor. Bodies are compared as they were before they were coded.

use std::io::Write;

use serde_json::{Value, json};

use super::coded::{compare, scripted, value};
use super::side::Side;
use super::{Scenario, filter, route, route_with, typed};

const LIBRARY: &str = "type.googleapis.com/envoy.extensions.compression";

/// A compressor of this name, by `library` (`gzip.compressor.v3.Gzip`).
fn compressor(name: &str, library: &str, mut config: Value) -> Value {
    config["compressor_library"] = json!({
        "name": name,
        "typed_config": {"@type": format!("{LIBRARY}.{library}")},
    });
    filter(name, "compressor.v3.Compressor", config)
}

fn gzip(config: Value) -> Value {
    compressor("gzip", "gzip.compressor.v3.Gzip", config)
}

fn response(config: Value) -> Value {
    json!({"response_direction_config": config})
}

#[test]
fn what_the_client_accepts_and_the_response_is() {
    let scenario = Scenario::new(json!([gzip(json!({}))]));
    compare(
        &scenario,
        r#"
            GET / |  |
            GET / | accept-encoding: gzip | gzip
            GET / | accept-encoding: br, gzip;q=0.1 | gzip
            GET / | accept-encoding: br & accept-encoding: gzip | gzip
            GET / | accept-encoding: * | gzip
            GET / | accept-encoding: br |
            GET / | accept-encoding: gzip;q=0 |
            GET / | accept-encoding: gzip;q=0, * |
            GET / | accept-encoding: identity |
            GET / | accept-encoding: gzip;q=0.5, identity;q=0.7 |
            GET / | accept-encoding: gzip;q=x |
            GET / | accept-encoding:  |
            GET / | accept-encoding: gzip & x-length: 29 |
            GET / | accept-encoding: gzip & x-length: 30 | gzip
            GET / | accept-encoding: gzip & x-length: 0 |
            GET / | accept-encoding: gzip & x-length: 5 & x-chunked: 1 | gzip
            GET / | accept-encoding: gzip & x-length: 300000 | gzip
            GET / | accept-encoding: gzip & x-length: 300000 & x-chunked: 1 | gzip
            GET / | accept-encoding: gzip & x-set: content-type: text/html; charset=utf-8 | gzip
            GET / | accept-encoding: gzip & x-set: content-type: TEXT/html | gzip
            GET / | accept-encoding: gzip & x-set: content-type: application/json | gzip
            GET / | accept-encoding: gzip & x-set: content-type: application/grpc |
            GET / | accept-encoding: gzip & x-set: content-type: image/png |
            GET / | accept-encoding: gzip & x-set: cache-control: no-transform |
            GET / | accept-encoding: gzip & x-set: cache-control: max-age=1, No-Transform |
            GET / | accept-encoding: gzip & x-set: cache-control: max-age=1 | gzip
            GET / | accept-encoding: gzip, br & x-set: content-encoding: x-own | x-own
            GET / | accept-encoding: gzip & x-set: etag: "strong" | gzip
            GET / | accept-encoding: gzip & x-set: etag: W/"weak" | gzip
            GET / | x-set: etag: "strong" |
            GET / | accept-encoding: gzip & x-set: vary: origin | gzip
            GET / | accept-encoding: br & x-set: vary: origin |
            GET / | accept-encoding: gzip & x-set: vary: origin, Accept-Encoding | gzip
            GET / | accept-encoding: gzip & x-status: 404 | gzip
            GET / | accept-encoding: gzip & x-status: 206 & x-set: content-range: bytes 0-999/2000 | gzip
            GET / | accept-encoding: gzip & x-status: 204 |
            GET / | accept-encoding: gzip & x-status: 304 |
            HEAD / | accept-encoding: gzip |
            HEAD / | accept-encoding: gzip & x-length: 5 |
            HEAD / | accept-encoding: gzip & x-chunked: 1 |
        "#,
    );
}

#[test]
fn what_is_configured() {
    let config = response(json!({
        "common_config": {
            "min_content_length": 100,
            "content_type": ["text/plain", "Application/Own"],
        },
        "disable_on_etag_header": true,
        "remove_accept_encoding_header": true,
        "uncompressible_response_codes": [206, 404],
    }));
    compare(
        &Scenario::new(json!([gzip(config)])),
        r#"
            GET / | accept-encoding: gzip | gzip
            GET / | accept-encoding: gzip & x-length: 99 |
            GET / | accept-encoding: gzip & x-set: content-type: text/plain | gzip
            GET / | accept-encoding: gzip & x-set: content-type: application/own | gzip
            GET / | accept-encoding: gzip & x-set: content-type: text/html |
            GET / | accept-encoding: gzip & x-set: etag: W/"weak" |
            GET / | accept-encoding: gzip & x-status: 206 |
            GET / | accept-encoding: gzip & x-status: 404 |
            GET / | accept-encoding: gzip & x-status: 500 | gzip
        "#,
    );
    let config = response(json!({
        "common_config": {"content_type_matcher": [{"prefix": "text/"}]},
        "disable_on_etag_header": true,
        "weaken_etag_on_compress": true,
    }));
    compare(
        &Scenario::new(json!([gzip(config)])),
        r#"
            GET / | accept-encoding: gzip & x-set: content-type: text/own | gzip
            GET / | accept-encoding: gzip & x-set: content-type: application/json |
            GET / | accept-encoding: gzip & x-set: etag: "strong" | gzip
            GET / | accept-encoding: gzip & x-set: etag: W/"weak" | gzip
        "#,
    );
    // The fields of old configurations.
    let config = json!({
        "content_length": 50,
        "content_type": ["text/own"],
        "disable_on_etag_header": true,
        "remove_accept_encoding_header": true,
    });
    compare(
        &Scenario::new(json!([gzip(config)])),
        r#"
            GET / | accept-encoding: gzip & x-length: 49 |
            GET / | accept-encoding: gzip & x-length: 50 | gzip
            GET / | accept-encoding: gzip & x-set: content-type: text/html |
            GET / | accept-encoding: gzip & x-set: etag: "strong" |
        "#,
    );
}

#[test]
fn one_of_several_compressors() {
    let brotli = |config| compressor("br", "brotli.compressor.v3.Brotli", config);
    let zstd = |config| compressor("zstd", "zstd.compressor.v3.Zstd", config);
    let only_json = response(json!({"common_config": {"content_type": ["application/json"]}}));
    let filters = json!([
        gzip(json!({})),
        brotli(json!({"choose_first": true})),
        zstd(only_json)
    ]);
    compare(
        &Scenario::new(filters),
        r#"
            GET / | accept-encoding: gzip | gzip
            GET / | accept-encoding: br | br
            GET / | accept-encoding: zstd & x-set: content-type: application/json | zstd
            GET / | accept-encoding: zstd & x-set: content-type: text/html |
            GET / | accept-encoding: gzip, br | br
            GET / | accept-encoding: gzip, br;q=0.9 | gzip
            GET / | accept-encoding: gzip, zstd, br | br
            GET / | accept-encoding: zstd, gzip & x-set: content-type: application/json | zstd
            GET / | accept-encoding: zstd, gzip & x-set: content-type: text/html | gzip
            GET / | accept-encoding: * | gzip
            GET / | accept-encoding: gzip;q=0, * | br
            GET / | accept-encoding: br & x-length: 400000 | br
            GET / | accept-encoding: zstd & x-length: 400000 | zstd
            GET / | accept-encoding: zstd, gzip | zstd
        "#,
    );
}

#[test]
fn routes_switch_compression_off_and_on() {
    let of_route =
        |config: Value| json!({"gzip": typed("compressor.v3.CompressorPerRoute", config)});
    let overrides =
        |config: Value| of_route(json!({"overrides": {"response_direction_config": config}}));
    let direct = json!({
        "match": {"prefix": "/direct"},
        "direct_response": {"status": 200, "body": {"inline_string": "of a direct response ".repeat(9)}},
    });
    let routes = json!([
        route_with("/off", of_route(json!({"disabled": true}))),
        route_with("/on", overrides(json!({}))),
        route_with(
            "/kept",
            overrides(json!({"remove_accept_encoding_header": false}))
        ),
        direct,
        route("/"),
    ]);
    let own = |enabled: bool| {
        gzip(response(json!({
            "common_config": {"enabled": {"default_value": enabled, "runtime_key": "x"}},
            "remove_accept_encoding_header": true,
        })))
    };
    compare(
        &Scenario::with_routes(json!([own(true)]), routes.clone()),
        r#"
            GET / | accept-encoding: gzip | gzip
            GET /off | accept-encoding: gzip |
            GET /kept | accept-encoding: gzip | gzip
            GET /direct | accept-encoding: gzip | gzip
            HEAD /direct | accept-encoding: gzip |
            GET /direct |  |
        "#,
    );
    compare(
        &Scenario::with_routes(json!([own(false)]), routes),
        r#"
            GET / | accept-encoding: gzip |
            GET /on | accept-encoding: gzip | gzip
            GET /off | accept-encoding: gzip |
        "#,
    );
}

#[test]
fn requests_are_compressed_where_that_is_configured() {
    let config = json!({
        "request_direction_config": {"common_config": {"min_content_length": 50}},
        "response_direction_config": {"common_config": {
            "enabled": {"default_value": false, "runtime_key": "x"},
        }},
    });
    let buffer = || {
        filter(
            "buffer",
            "buffer.v3.Buffer",
            json!({"max_request_bytes": 200_000}),
        )
    };
    for filters in [
        json!([gzip(config.clone())]),
        json!([buffer(), gzip(config.clone())]),
        json!([gzip(config), buffer()]),
    ] {
        let upstream = crate::proxy::upstream(scripted);
        let scenario = Scenario::new(filters);
        let ours = Side::anyam(&scenario, upstream);
        let stock = Side::envoy(&scenario, upstream);
        let long = "of a long body, ".repeat(10_000);
        let sized = |fields: &str, body: &str| {
            let length = body.len();
            format!(
                "POST / HTTP/1.1\r\nhost: shop\r\n{fields}content-length: {length}\r\n\r\n{body}"
            )
        };
        let chunks = format!(
            "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        );
        for (request, coding) in [
            (sized("", &long), "gzip"),
            (sized("", &long[..50]), "gzip"),
            (sized("", &long[..49]), ""),
            (sized("content-type: image/png\r\n", &long), ""),
            (sized("content-type: text/plain\r\n", &long), "gzip"),
            (sized("content-encoding: x-own\r\n", &long), "x-own"),
            (chunks, "gzip"),
            (super::get("/", ""), ""),
        ] {
            let (ours, stock) = (ours.ask(&request), stock.ask(&request));
            assert_eq!(ours, stock, "Anyam | Envoy");
            assert_eq!(value(&ours, "x-coding"), coding);
        }
    }
}

/// An HTTP/1.0 client has the end of the connection for the body's.
#[test]
fn a_client_without_chunks_gets_the_whole_body() {
    let mut scenario = Scenario::new(json!([gzip(json!({}))]));
    scenario.manager = json!({"http_protocol_options": {"accept_http_10": true}});
    let upstream = crate::proxy::upstream(scripted);
    let ours = Side::anyam(&scenario, upstream);
    let mut tcp = ours.connect();
    let request =
        "GET / HTTP/1.0\r\nhost: shop\r\naccept-encoding: gzip\r\nx-length: 50000\r\n\r\n";
    tcp.write_all(request.as_bytes()).unwrap();
    let seen = Side::until_closed(tcp);
    let fields: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(fields.contains(&"content-encoding"), "{seen:?}");
    assert_eq!(seen.body.len(), 50_000);
    assert!(seen.body.starts_with("all of the same text, all"));
}
