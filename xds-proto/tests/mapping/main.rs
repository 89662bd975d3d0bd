//! The proto3 JSON mapping, case by case, as the protobuf specification lists it.

mod time;

use serde_json::{Value, json};
use xds_proto::json::{Names, from_json, to_json, to_json_named};

/// `json` is read and written again as itself.
fn same(name: &str, json: Value) {
    becomes(name, json.clone(), json);
}

/// `json` is read, and written as `canonical`.
fn becomes(name: &str, json: Value, canonical: Value) {
    let bytes = from_json(name, &json).unwrap_or_else(|error| panic!("{name} {json}: {error}"));
    let written = to_json(name, &bytes).unwrap_or_else(|error| panic!("{name} {json}: {error}"));
    assert_eq!(written, canonical, "{name} {json}");
}

/// `json` is refused; the error's text begins with `start`.
fn refused(name: &str, json: Value, start: &str) {
    match from_json(name, &json) {
        Ok(bytes) => panic!("{name} {json} was read as {bytes:?}"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with(start), "{name} {json}: {error}");
        }
    }
}

const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ANY: &str = "google.protobuf.Any";

#[test]
fn fields_go_by_either_name() {
    becomes(
        LISTENER,
        json!({"statPrefix": "a"}),
        json!({"stat_prefix": "a"}),
    );
    same(LISTENER, json!({"stat_prefix": "a"}));
    refused(
        LISTENER,
        json!({"statPrefix": "a", "stat_prefix": "b"}),
        "stat_prefix: given twice",
    );
    let bytes = from_json(LISTENER, &json!({"stat_prefix": "a"})).unwrap();
    assert_eq!(
        to_json_named(LISTENER, &bytes, Names::Json).unwrap(),
        json!({"statPrefix": "a"})
    );
}

#[test]
fn the_order_of_json_does_not_show_on_the_wire() {
    let one = from_json(LISTENER, &json!({"name": "a", "stat_prefix": "b"})).unwrap();
    let other = from_json(LISTENER, &json!({"stat_prefix": "b", "name": "a"})).unwrap();
    assert_eq!(one, other);
}

#[test]
fn unknown_fields_are_refused_with_their_path_and_a_hint() {
    refused(
        LISTENER,
        json!({"filter_chains": [{}, {"filterz": []}]}),
        "filter_chains[1].filterz: envoy.config.listener.v3.FilterChain has no such field; did you mean `filters`?",
    );
    refused(
        "envoy.config.core.v3.Metadata",
        json!({"filter_metadata": {"a.b": 3}}),
        "filter_metadata[\"a.b\"]: expected an object, found 3",
    );
    refused(
        "no.such.Message",
        json!({}),
        "the message type no.such.Message is not known",
    );
}

#[test]
fn null_is_absence_except_where_it_is_a_value() {
    becomes(
        LISTENER,
        json!({"name": null, "address": null, "filter_chains": null}),
        json!({}),
    );
    same("google.protobuf.Struct", json!({"a": null}));
    same("google.protobuf.ListValue", json!([null]));
    refused(
        LISTENER,
        json!({"filter_chains": [null]}),
        "filter_chains[0]: expected",
    );
    refused(
        "anyam.inspect.v1.Edge",
        json!({"response_flags": {"UF": null}}),
        "response_flags[\"UF\"]: expected a value",
    );
}

#[test]
fn one_case_of_a_oneof_at_most() {
    let name = "envoy.config.core.v3.DataSource";
    same(name, json!({"filename": "a"}));
    // Absent and empty differ in a oneof.
    same(name, json!({"inline_string": ""}));
    refused(
        name,
        json!({"filename": "a", "inline_string": "b"}),
        "inline_string: only one of `filename` and this",
    );
    becomes(
        name,
        json!({"filename": null, "inline_string": "b"}),
        json!({"inline_string": "b"}),
    );
    // On the wire the last case wins.
    let mut bytes = from_json(name, &json!({"filename": "a"})).unwrap();
    bytes.extend(from_json(name, &json!({"inline_string": "b"})).unwrap());
    assert_eq!(
        to_json(name, &bytes).unwrap(),
        json!({"inline_string": "b"})
    );
}

#[test]
fn whole_numbers() {
    let name = "google.protobuf.UInt32Value";
    for five in [
        json!(5),
        json!("5"),
        json!(5.0),
        json!("5.0"),
        json!("5e0"),
        json!(0.5e1),
    ] {
        becomes(name, five, json!(5));
    }
    same(name, json!(0));
    for wrong in [
        json!(5.5),
        json!("5.5"),
        json!(" 5"),
        json!("5 "),
        json!("+5"),
        json!(""),
        json!(true),
        json!("0x5"),
        json!([5]),
    ] {
        refused(name, wrong, "expected a whole number");
    }
    refused(name, json!(-1), "-1 is out of range for u32");
    refused(
        name,
        json!(4_294_967_296_u64),
        "4294967296 is out of range for u32",
    );
    same("google.protobuf.Int32Value", json!(-2_147_483_648_i64));
    refused(
        "google.protobuf.Int32Value",
        json!(2_147_483_648_i64),
        "2147483648 is out of range",
    );
    becomes(
        "google.protobuf.UInt64Value",
        json!(u64::MAX),
        json!("18446744073709551615"),
    );
    same("google.protobuf.UInt64Value", json!("18446744073709551615"));
    refused(
        "google.protobuf.UInt64Value",
        json!("18446744073709551616"),
        "18446744073709551616 is out",
    );
    same("google.protobuf.Int64Value", json!("-9223372036854775808"));
    becomes("google.protobuf.Int64Value", json!(-9), json!("-9"));
}

#[test]
fn real_numbers() {
    let name = "google.protobuf.DoubleValue";
    for number in [
        json!(1.5),
        json!("NaN"),
        json!("Infinity"),
        json!("-Infinity"),
        json!(1e300),
    ] {
        same(name, number);
    }
    becomes(name, json!("1.5"), json!(1.5));
    becomes(name, json!(5.0), json!(5));
    becomes(name, json!(-0.0), json!(-0.0));
    for wrong in [
        json!("inf"),
        json!("nan"),
        json!("1e999"),
        json!("+1"),
        json!(" 1"),
        json!(true),
    ] {
        refused(name, wrong, "expected a number");
    }
    same("google.protobuf.FloatValue", json!(0.1));
    refused("google.protobuf.FloatValue", json!(1e39), "1");
}

#[test]
fn strings_and_bools_are_not_guessed() {
    refused(
        LISTENER,
        json!({"name": 5}),
        "name: expected a string, found 5",
    );
    refused(
        "google.protobuf.BoolValue",
        json!("true"),
        "expected true or false",
    );
    refused(
        "google.protobuf.BoolValue",
        json!(1),
        "expected true or false",
    );
    same("google.protobuf.BoolValue", json!(false));
    same("google.protobuf.StringValue", json!(""));
}

#[test]
fn bytes_are_base64_of_either_alphabet_padded_or_not() {
    let name = "google.protobuf.BytesValue";
    for spelling in ["+/+/AQ==", "-_-_AQ==", "+/+/AQ", "-_-_AQ"] {
        becomes(name, json!(spelling), json!("+/+/AQ=="));
    }
    refused(name, json!("a b"), "expected bytes as base64");
}

#[test]
fn enums_go_by_name_or_number() {
    let name = "envoy.config.core.v3.SocketAddress";
    same(
        name,
        json!({"protocol": "UDP", "address": "::", "port_value": 0}),
    );
    becomes(name, json!({"protocol": 1}), json!({"protocol": "UDP"}));
    becomes(name, json!({"protocol": "TCP"}), json!({}));
    // Numbers from a newer schema are kept.
    same(name, json!({"protocol": 77}));
    refused(
        name,
        json!({"protocol": "SCTP"}),
        "protocol: expected envoy.config.core.v3.SocketAddress.Protocol, found \"SCTP\"; it is one of TCP, UDP",
    );
}

#[test]
fn structs_hold_any_json() {
    let all = json!({"a": [1, "b", null, true, {"c": {}}, [], -1.5], "": 0});
    same("google.protobuf.Struct", all.clone());
    same("google.protobuf.Value", all);
    same("google.protobuf.Value", json!(null));
    same("google.protobuf.ListValue", json!([]));
    refused("google.protobuf.Struct", json!([]), "expected an object");
}

#[test]
fn maps_have_string_keys_whatever_they_mean() {
    let name = "anyam.inspect.v1.Edge";
    same(name, json!({"response_flags": {"UF": "3", "": "0"}}));
    refused(
        name,
        json!({"response_flags": {"UF": -3}}),
        "response_flags[\"UF\"]: -3 is out of range",
    );
}

#[test]
fn lists_of_numbers_are_packed_and_read_either_way() {
    let name = "anyam.inspect.v1.Edge";
    same(name, json!({"latency": ["1", "300", "0"]}));
    // Field 27, wire type 0, twice.
    let loose = [0xd8, 0x01, 5, 0xd8, 0x01, 6];
    assert_eq!(
        to_json(name, &loose).unwrap(),
        json!({"latency": ["5", "6"]})
    );
    refused(
        name,
        json!({"latency": [1, "x"]}),
        "latency[1]: expected a whole number",
    );
}

#[test]
fn a_message_in_parts_is_merged() {
    let name = "envoy.config.core.v3.Node";
    let mut bytes = from_json(name, &json!({"locality": {"region": "a", "zone": "b"}})).unwrap();
    bytes.extend(from_json(name, &json!({"locality": {"zone": "c"}})).unwrap());
    let merged = json!({"locality": {"region": "a", "zone": "c"}});
    assert_eq!(to_json(name, &bytes).unwrap(), merged);
}

#[test]
fn any_goes_by_its_type() {
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    same(ANY, json!({"@type": router, "start_child_span": true}));
    same(ANY, json!({"@type": router}));
    same(ANY, json!({}));
    same(
        ANY,
        json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}),
    );
    same(
        ANY,
        json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 1}}),
    );
    same(
        ANY,
        json!({"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": router}}),
    );
    refused(ANY, json!({"@type": router, "nope": 1}), "nope: envoy");
    refused(
        ANY,
        json!({"start_child_span": true}),
        "expected an object with \"@type\"",
    );
    refused(ANY, json!({"@type": 5}), "@type: expected a type URL");
    refused(
        ANY,
        json!({"@type": "x.y/no.such.Type"}),
        "@type: the message type no.such.Type is not supported",
    );
    refused(
        ANY,
        json!({"@type": "google.protobuf.Duration", "value": "1s"}),
        "@type: \"google.protobuf.Duration\" is no type URL; did you mean type.googleapis.com/google.protobuf.Duration?",
    );
    refused(
        ANY,
        json!({"@type": "type.googleapis.com/google.protobuf.Duration", "seconds": 1}),
        "seconds: google.protobuf.Duration in an Any has only `value`",
    );
    // A type that is not in our schema is shown as it is.
    let bytes = [b"\x0a\x05a/b.c".as_slice(), b"\x12\x01\x01"].concat();
    assert_eq!(
        to_json(ANY, &bytes).unwrap(),
        json!({"@type": "a/b.c", "value": "AQ=="})
    );
}

#[test]
fn empty_is_an_object() {
    let url = "type.googleapis.com/google.protobuf.Empty";
    same("google.protobuf.Empty", json!({}));
    same(ANY, json!({"@type": url}));
    becomes(
        ANY,
        json!({"@type": url, "value": {}}),
        json!({"@type": url}),
    );
}
