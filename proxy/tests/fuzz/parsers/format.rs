//! Access log formats: what compiles makes one line, whatever peers send.

use std::time::SystemTime;

use anyam_proxy::matcher::HeaderName;
use anyam_proxy::telemetry::format::render_line;
use anyam_proxy::telemetry::{Headers, Record};
use serde_json::{Value, json};

use super::{compiler, listener};
use crate::bootstrap::OPERATORS;
use crate::rounds::Rounds;

const ROUNDS: usize = 1500;

const PIECES: [&str; 22] = [
    "%%",
    "%",
    "(",
    ")",
    ":",
    ":5",
    "?",
    " ",
    "REQ(",
    ")%",
    "%REQ(",
    "a",
    "\"",
    "{",
    "x-b",
    "é",
    "%START_TIME(%Y-%m-%d %H:%M:%S.%3f %%)%",
    "%START_TIME(",
    "%9f",
    ":99999999999999999999",
    "%DYNAMIC_METADATA(a:b:c):3%",
    "%RESP(x?y):0%",
];
/// What peers put into headers.
const VALUES: [&[u8]; 7] = [
    b"plain",
    b"\r\nBEGIN",
    b"\"quoted\\",
    b"\x1b[2J\0",
    "\u{202e}reversed".as_bytes(),
    b"\xff\xfe",
    b"",
];

/// Every header has all of these values.
struct Hostile<'a>(&'a [&'a [u8]]);

impl Headers for Hostile<'_> {
    fn values(&self, _: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        self.0.iter().for_each(|value| each(value));
    }
}

fn text(rng: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(..6) {
        match rng.bool() {
            true => text.push_str(&format!("%{}%", OPERATORS[rng.usize(..OPERATORS.len())])),
            false => text.push_str(PIECES[rng.usize(..PIECES.len())]),
        }
    }
    if rng.u8(..) < 64 && !text.is_empty() {
        let at = rng.usize(..=text.chars().count());
        text = text
            .chars()
            .take(at)
            .chain(text.chars().skip(at + 1))
            .collect();
    }
    text
}

fn with_log(format: Value) -> Value {
    let log = json!({"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": format}});
    let tcp = json!({"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "app"}});
    json!({
        "name": "log",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "access_log": [log],
        "filter_chains": [{"filters": [tcp]}],
    })
}

fn render(listener: &anyam_proxy::snapshot::Listener, values: &[&[u8]]) -> Vec<u8> {
    let hostile = Hostile(values);
    let record = Record {
        protocol: Some("HTTP/1.1"),
        code: 200,
        method: values.first().copied(),
        path: values.first().copied(),
        authority: values.first().copied(),
        scheme: values.first().copied(),
        request: Some(&hostile),
        response: Some(&hostile),
        trailers: Some(&hostile),
        ..Record::begun(SystemTime::UNIX_EPOCH)
    };
    let mut line = Vec::new();
    assert!(render_line(&listener.def.access_log[0], &record, &mut line));
    line
}

#[test]
fn what_compiles_makes_one_line() {
    let compiler = compiler();
    let mut rounds = Rounds::new(ROUNDS);
    let mut compiled = 0;
    while let Some(mut rng) = rounds.next() {
        let text = text(&mut rng);
        let values: Vec<&[u8]> = (0..rng.usize(..3))
            .map(|_| VALUES[rng.usize(..VALUES.len())])
            .collect();
        let as_text = with_log(json!({"text_format_source": {"inline_string": text}}));
        let as_json = with_log(json!({"json_format": {"a": text, "b": [text, {"c": 1.5}]}}));
        let as_text = listener(&compiler, &as_text);
        let as_json = listener(&compiler, &as_json);
        assert_eq!(as_text.is_some(), as_json.is_some(), "{text:?}");
        if let Some(listener) = as_text {
            compiled += 1;
            let line = String::from_utf8(render(&listener, &values)).unwrap();
            let line = line.strip_suffix('\n').unwrap();
            let unsafe_to_print = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!line.contains(unsafe_to_print), "{text:?}: {line:?}");
            // A quote is the format's own.
            assert!(
                !line.contains('"') || text.contains('"'),
                "{text:?}: {line:?}"
            );
        }
        if let Some(listener) = as_json {
            let line = render(&listener, &values);
            let parsed: Result<Value, _> = serde_json::from_slice(&line);
            assert!(parsed.is_ok(), "{text:?}: {}", line.escape_ascii());
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
    }
    assert!(compiled > ROUNDS / 10, "{compiled} compiled");
}
