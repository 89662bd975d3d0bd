//! Durations, timestamps and field masks.

use super::*;

#[test]
fn durations() {
    let name = "google.protobuf.Duration";
    for text in [
        "0s",
        "1s",
        "-1s",
        "1.500s",
        "0.000001s",
        "-0.000000001s",
        "315576000000s",
    ] {
        same(name, json!(text));
    }
    becomes(name, json!("0.25s"), json!("0.250s"));
    becomes(name, json!("-1.5s"), json!("-1.500s"));
    for wrong in [
        "1",
        "1ms",
        "s",
        ".5s",
        "1.s",
        "1.0000000001s",
        "--1s",
        "+1s",
        "1 s",
        "",
        "1e3s",
    ] {
        refused(name, json!(wrong), "expected a duration");
    }
    refused(
        name,
        json!(5),
        "expected a duration such as \"1.5s\", found 5",
    );
    refused(name, json!("315576000001s"), "\"315576000001s\" is longer");
    refused(
        name,
        json!("99999999999999999999s"),
        "\"99999999999999999999s\" is longer",
    );
}

#[test]
fn timestamps() {
    let name = "google.protobuf.Timestamp";
    for text in [
        "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
        "2024-02-29T12:30:45.120Z",
    ] {
        same(name, json!(text));
    }
    becomes(
        name,
        json!("2026-01-01T01:00:00.5+01:00"),
        json!("2026-01-01T00:00:00.500Z"),
    );
    for wrong in [
        "2026-02-30T00:00:00Z",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "now",
    ] {
        refused(name, json!(wrong), "expected a time");
    }
    refused(name, json!("9999-12-31T23:59:59-01:00"), "");
}

#[test]
fn field_masks() {
    let name = "google.protobuf.FieldMask";
    same(name, json!("fooBar,baz.quxQuux"));
    same(name, json!(""));
    refused(
        name,
        json!("foo_bar"),
        "\"foo_bar\" is not in lowerCamelCase",
    );
}
