//! YAML: what comes back from what was written, where things stand, and what is refused.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use xds_proto::yaml::{self, Place};

fn error(text: &str) -> String {
    yaml::to_json(text).unwrap_err().to_string()
}

#[test]
fn what_people_write() {
    for (text, expected) in [
        ("", json!(null)),
        ("# nothing\n---\n...\n", json!(null)),
        ("\u{feff}a: 1\n", json!({"a": 1})),
        (
            "\u{feff}{\"a\": [1, null, \"x\"]}",
            json!({"a": [1, null, "x"]}),
        ),
        (
            "a: 1\r\nb:\r\n- x\r\n- 'y z'\r\n",
            json!({"a": 1, "b": ["x", "y z"]}),
        ),
        (
            "a: |\n  two\n  lines\nb: >-\n  one\n  line\n",
            json!({"a": "two\nlines\n", "b": "one line"}),
        ),
        (
            "1: a\ntrue: b\n~x: c\n",
            json!({"1": "a", "true": "b", "~x": "c"}),
        ),
        (
            "a: !!str 80\nb: !!int \"80\"\nc: ! 80\n",
            json!({"a": "80", "b": 80, "c": "80"}),
        ),
        (
            "a: [.inf, -.inf, .nan]",
            json!({"a": ["Infinity", "-Infinity", "NaN"]}),
        ),
        (
            "a: &x {b: 1}\nc: *x\n",
            json!({"a": {"b": 1}, "c": {"b": 1}}),
        ),
        (
            "base: &x {a: 1, b: 2}\nmore: &y {c: 3}\none: {<<: *x, b: 9}\nall: {<<: [*y, *x]}\n",
            json!({
                "base": {"a": 1, "b": 2}, "more": {"c": 3},
                "one": {"b": 9, "a": 1}, "all": {"c": 3, "a": 1, "b": 2},
            }),
        ),
        ("a: \"<<\"\n\"<<\": b\n", json!({"a": "<<", "<<": "b"})),
    ] {
        assert_eq!(yaml::to_json(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn what_is_refused_is_named_with_its_place() {
    for (text, expected) in [
        (
            "a: 1\nb:\n  c: 1\n  c: 2\n",
            "c: the key `c` is there twice at line 4 column 3",
        ),
        (
            "{\"a\": 1, \"a\": 2}",
            "a: the key `a` is there twice at line 1 column 10",
        ),
        (
            "a: !include b\n",
            "the tag !include is not supported at line 1 column 13",
        ),
        (
            "? [a, b]\n: c\n",
            "a key must be a scalar at line 1 column 3",
        ),
        (
            "a: &x [*x]\n",
            "an alias stands inside of what it names at line 1 column 8",
        ),
        (
            "<<: 1\n",
            "`<<` takes a mapping or a list of mappings at line 1 column 5",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "a second document begins here; there may be one at line 3 column 1",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    for broken in [
        "a: [",
        "a: *x",
        "a: b: c",
        "{a",
        "\t- a\n\tb",
        "a: \"x",
        "%YAML 9.9\na",
        "@a",
    ] {
        let error = yaml::to_json(broken).unwrap_err();
        assert!(error.place.line > 0, "{broken:?}: {error}");
    }
}

/// A few lines that stand for billions of values, and depths that a reader's stack could not bear.
#[test]
fn what_grows_without_end_is_refused_soon() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    let mut merges = String::from("a0: &a0 {x: y}\n");
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..200 {
        let last = level - 1;
        let ten = vec![format!("*a{last}"); 10].join(", ");
        laughs += &format!("a{level}: &a{level} [{ten}]\n");
        chain += &format!("a{level}: &a{level} [*a{last}]\n");
        merges += &format!("a{level}: &a{level}\n  <<: *a{last}\n  l{level}: {{<<: *a{last}}}\n");
    }
    assert!(error(&laughs).contains("repeat more than"));
    assert!(error(&merges).contains("deeper than") || error(&merges).contains("repeat more than"));
    assert!(error(&chain).contains("deeper than 128"));
    let mut nested = String::from("a:\n");
    for depth in 1..2_000 {
        nested += &format!("{}a:\n", " ".repeat(depth));
    }
    for deep in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        nested,
    ] {
        assert!(yaml::to_json(&deep).is_err());
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sample {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
enum Mode {
    #[default]
    On,
    Off,
}

fn sample(text: &str) -> Result<Sample, yaml::Error> {
    let node = yaml::documents(text).next().unwrap()?;
    Sample::deserialize(&node)
}

#[test]
fn types_are_read_as_kubernetes_reads_them() {
    let read = sample("name: 1.0\nlabels:\nports: ~\ntime: null\nmode: Off\n").unwrap();
    let expected = Sample {
        name: "1.0".into(),
        labels: BTreeMap::new(),
        ports: Vec::new(),
        time: None,
        mode: Mode::Off,
    };
    assert_eq!(read, expected);
    for (text, expected) in [
        (
            "name: a\nports: [1, 70000]",
            "ports[1]: invalid value: integer `70000`, expected u16 at line 2 column 12",
        ),
        (
            "name: a\nports: [\"1\"]",
            "ports[0]: invalid type: string \"1\", expected u16 at line 2 column 9",
        ),
        (
            "name: a\nlabels: {a.b/c: [x]}",
            "labels.a.b/c: invalid type: sequence, expected a string at line 2 column 17",
        ),
        (
            "name: a\nmode: off",
            "mode: unknown variant `off`, expected `On` or `Off` at line 2 column 7",
        ),
        (
            "name: a\nnome: b",
            "nome: unknown field `nome`, expected one of `name`, `labels`, `ports`, `time`, `mode` at line 2 column 1",
        ),
        ("ports: []", "missing field `name` at line 1 column 1"),
        ("[name]", "invalid type: sequence"),
        (
            "name: {a: b}",
            "name: invalid type: map, expected a string at line 1 column 7",
        ),
    ] {
        let error = sample(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn places_of_paths() {
    let text = "spec:\n  labels: {a.b: x, a: {b: y}}\n  ports:\n    - port: 1\n    - port: 2\n";
    let node = yaml::documents(text).next().unwrap().unwrap();
    for (path, line, column) in [
        ("", 1, 1),
        ("spec.ports[1].port", 5, 13),
        ("spec.ports[1].missing.more", 5, 7),
        ("spec.ports[7].port", 4, 5),
        ("spec.labels.a.b", 2, 17),
        ("spec.labels.a", 2, 23),
        ("spec.lab", 2, 3),
    ] {
        assert_eq!(node.place_of(path), Place { line, column }, "{path}");
    }
}

#[test]
fn the_value_at_a_path_can_be_removed() {
    let text = "spec: { labels: { a.b: x, a: { b: y } }, ports: [{ port: 1 }, { port: 2 }] }\n";
    let mut node = yaml::documents(text).next().unwrap().unwrap();
    for missing in [
        "",
        "spec.none",
        "spec.ports[2]",
        "spec.ports[x]",
        "spec.ports[0].port.x",
    ] {
        assert!(!node.remove(missing), "{missing}");
    }
    assert!(node.remove("spec.labels.a.b") && node.remove("spec.ports[0]"));
    let port = node.at_mut("spec.ports[0].port").unwrap();
    assert_eq!(port.text(), "2");
    port.value = yaml::Value::Sequence(Vec::new());
    assert!(node.at_mut("spec.labels.a.b.c").is_none());
    let left = json!({ "spec": { "labels": { "a": { "b": "y" } }, "ports": [{ "port": [] }] } });
    assert_eq!(node.to_json(), left);
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        any::<String>(),
        Just("yes".to_owned()),
        Just("- a: b # c".to_owned()),
        "[-+]?[0-9._xobe]{1,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e15..1e15f64).prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let map = prop::collection::vec((text.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            map.prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_json()) {
        let text = yaml::write(&value);
        prop_assert_eq!(yaml::to_json(&text).unwrap(), value.clone(), "{}", text);
        // JSON is YAML.
        let json = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(yaml::to_json(&json).unwrap(), value);
    }

    /// Whatever the text: an end, and places that are in it.
    #[test]
    fn any_text_ends_well(text in prop_oneof![
        any::<String>(),
        "[-?:,\\[\\]{}#&*!|>'\"%@` \t\r\na-c0-9<~.\u{feff}]{0,80}",
        "(([a-c]|- |\\? |: |\n|  |\\[|\\]|\\{|\\}|&a |\\*a|<<: |---\n|!!str |'|\"|#){0,40})",
    ]) {
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        for document in yaml::documents(&text) {
            let place = document.as_ref().map_or_else(|error| error.place, |node| node.place);
            prop_assert!(place.line <= lines + 1, "{:?} of {:?}", place, text);
            if let Ok(node) = document {
                let _ = Sample::deserialize(&node);
                let _ = node.to_json();
            }
        }
    }
}
