//! RBAC: rules compiled from what a control plane sends, beside an evaluator that knows one value a
//! header and one reading of the path.

use std::sync::Arc;

use anyam_proxy::config::filter::FilterConfig;
use anyam_proxy::config::listener::TerminalFilter;
use anyam_proxy::config::policy::Rbac;
use anyam_proxy::matcher::HeaderName;
use anyam_proxy::message::path::Readings;
use anyam_proxy::policy::{Facts, RequestFacts, evaluate};
use serde_json::{Value, json};

use super::{compiler, listener};
use crate::rounds::Rounds;

const ROUNDS: usize = 1500;
/// Requests against each filter.
const REQUESTS: usize = 16;
const WORDS: [&str; 6] = ["", "a", "b", "ab", "A", "ba"];
const NAMES: [&str; 2] = ["x-one", "x-two"];
const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/b", "/a;x"];

struct Ask {
    path: &'static str,
    readings: Readings<'static>,
    headers: Vec<(&'static str, &'static str)>,
    port: u16,
}

impl RequestFacts for Ask {
    fn path(&self) -> &Readings<'_> {
        &self.readings
    }

    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        let values = self.headers.iter().filter(|(own, _)| *own == &*name.name);
        values.for_each(|(_, value)| each(value.as_bytes()));
    }
}

fn ask(rng: &mut fastrand::Rng) -> Ask {
    let path = PATHS[rng.usize(..PATHS.len())];
    Ask {
        path,
        readings: Readings::of(path.as_bytes()),
        headers: (0..rng.usize(..4))
            .map(|_| (NAMES[rng.usize(..2)], WORDS[rng.usize(..WORDS.len())]))
            .collect(),
        port: rng.u16(79..82),
    }
}

fn string(rng: &mut fastrand::Rng) -> Value {
    let word = WORDS[rng.usize(1..WORDS.len())];
    let kind = ["exact", "prefix", "suffix", "contains"][rng.usize(..4)];
    json!({(kind): word, "ignore_case": rng.bool()})
}

fn header(rng: &mut fastrand::Rng) -> Value {
    let (name, invert) = (NAMES[rng.usize(..2)], rng.bool());
    let mut header = json!({"name": name, "invert_match": invert});
    match rng.u8(..4) {
        0 => header["present_match"] = rng.bool().into(),
        _ => {
            header["string_match"] = string(rng);
            header["treat_missing_header_as_empty"] = rng.bool().into();
        }
    }
    header
}

/// A permission, or a principal: they differ in the names of their combinations.
fn rule(rng: &mut fastrand::Rng, principal: bool, depth: usize) -> Value {
    let (and, or, not, field) = match principal {
        true => ("and_ids", "or_ids", "not_id", "ids"),
        false => ("and_rules", "or_rules", "not_rule", "rules"),
    };
    let some = |rng: &mut fastrand::Rng| -> Vec<Value> {
        (0..rng.usize(1..4))
            .map(|_| rule(rng, principal, depth - 1))
            .collect()
    };
    match rng.u8(..8) {
        0 if depth > 0 => json!({(and): {(field): some(rng)}}),
        1 if depth > 0 => json!({(or): {(field): some(rng)}}),
        2 if depth > 0 => json!({(not): rule(rng, principal, depth - 1)}),
        3 => json!({"any": true}),
        4 => {
            let path = PATHS[rng.usize(..3)];
            let kind = ["exact", "prefix"][rng.usize(..2)];
            json!({"url_path": {"path": {(kind): path}}})
        }
        5 if !principal => json!({"destination_port": rng.u16(79..82)}),
        _ => json!({"header": header(rng)}),
    }
}

fn rules(rng: &mut fastrand::Rng) -> Value {
    let mut policies = json!({});
    for number in 0..rng.usize(..3) {
        let some = |rng: &mut fastrand::Rng, principal| -> Vec<Value> {
            (0..rng.usize(1..3))
                .map(|_| rule(rng, principal, 3))
                .collect()
        };
        policies[format!("p{number}")] =
            json!({"permissions": some(rng, false), "principals": some(rng, true)});
    }
    let action = ["ALLOW", "DENY"][rng.usize(..2)];
    json!({"action": action, "policies": policies})
}

fn compile(compiler: &anyam_proxy::config::compile::Compiler, rules: &Value) -> Arc<Rbac> {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let manager = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "http",
        "route_config": {"name": "none"},
        "http_filters": [
            {"name": "rbac", "typed_config": {
                "@type": format!("{types}.http.rbac.v3.RBAC"), "rules": rules}},
            {"name": "router", "typed_config": {
                "@type": format!("{types}.http.router.v3.Router")}},
        ],
    });
    let json = json!({
        "name": "rbac",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    let listener = listener(compiler, &json).unwrap_or_else(|| panic!("refused: {rules}"));
    let TerminalFilter::Http(manager) = &listener.def.chains[0].terminal else {
        panic!("no HTTP");
    };
    let FilterConfig::Rbac(rbac) = &manager.filters[0].config else {
        panic!("no RBAC");
    };
    rbac.clone()
}

/// A request with at most one value a header, and one reading of its path.
struct Plain<'a> {
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    port: u16,
}

impl Plain<'_> {
    fn string(wanted: &Value, value: &str) -> bool {
        let ignore_case = wanted["ignore_case"] == true;
        let fold = |text: &str| match ignore_case {
            true => text.to_ascii_lowercase(),
            false => text.to_owned(),
        };
        let value = fold(value);
        let mut tests = wanted.as_object().unwrap().iter();
        tests.any(|(kind, word)| {
            let word = fold(word.as_str().unwrap_or_default());
            match kind.as_str() {
                "exact" => value == word,
                "prefix" => value.starts_with(&word),
                "suffix" => value.ends_with(&word),
                "contains" => value.contains(&word),
                _ => false,
            }
        })
    }

    fn header(&self, wanted: &Value) -> bool {
        let name = wanted["name"].as_str().unwrap();
        let value = self.headers.iter().find(|(own, _)| *own == name);
        let value = value.map(|(_, value)| *value);
        let invert = wanted["invert_match"] == true;
        if let Some(present) = wanted.get("present_match") {
            return (value.is_some() == (present == true)) != invert;
        }
        let empty = wanted["treat_missing_header_as_empty"] == true;
        match value.or(empty.then_some("")) {
            Some(value) => Self::string(&wanted["string_match"], value) != invert,
            None => false,
        }
    }

    fn rule(&self, rule: &Value) -> bool {
        let (kind, value) = rule.as_object().unwrap().iter().next().unwrap();
        let list = |field: &str| value[field].as_array().unwrap().iter();
        match kind.as_str() {
            "any" => true,
            "and_rules" => list("rules").all(|rule| self.rule(rule)),
            "or_rules" => list("rules").any(|rule| self.rule(rule)),
            "and_ids" => list("ids").all(|rule| self.rule(rule)),
            "or_ids" => list("ids").any(|rule| self.rule(rule)),
            "not_rule" | "not_id" => !self.rule(value),
            "header" => self.header(value),
            "url_path" => Self::string(&value["path"], self.path),
            "destination_port" => value == self.port,
            other => panic!("{other}"),
        }
    }

    fn is_refused(&self, rules: &Value) -> bool {
        let mut policies = rules["policies"].as_object().unwrap().values();
        let any = |list: &Value| list.as_array().unwrap().iter().any(|rule| self.rule(rule));
        let matches =
            policies.any(|policy| any(&policy["permissions"]) && any(&policy["principals"]));
        matches == (rules["action"] == "DENY")
    }
}

/// Every choice of one value a header, and of a reading of the path.
fn choices(ask: &Ask) -> Vec<Plain<'_>> {
    let of = |name: &str| -> Vec<Option<(&str, &str)>> {
        let values = ask.headers.iter().filter(|(own, _)| *own == name);
        let values: Vec<_> = values.map(|pair| Some(*pair)).collect();
        match values.is_empty() {
            true => vec![None],
            false => values,
        }
    };
    let plain = ask.path.split(';').next().unwrap();
    let mut paths = vec![ask.path, plain];
    paths.dedup();
    let mut all = Vec::new();
    for one in of(NAMES[0]) {
        for two in of(NAMES[1]) {
            for path in &paths {
                all.push(Plain {
                    path,
                    headers: one.into_iter().chain(two).collect(),
                    port: ask.port,
                });
            }
        }
    }
    all
}

#[test]
fn no_choice_among_repeated_values_escapes_a_policy() {
    let compiler = compiler();
    let mut rounds = Rounds::new(ROUNDS);
    let mut refusals = 0;
    while let Some(mut rng) = rounds.next() {
        let rules = rules(&mut rng);
        let rbac = compile(&compiler, &rules);
        for _ in 0..REQUESTS {
            let ask = ask(&mut rng);
            let remote = [10, 0, 0, 1].into();
            let facts = Facts {
                tls: None,
                direct_remote: remote,
                remote,
                destination: ([10, 0, 0, 2], ask.port).into(),
                sni: None,
                request: Some(&ask),
                metadata: None,
            };
            let refused = evaluate(&rbac, &facts).denied.is_some();
            let all = choices(&ask);
            let wanted = all.iter().any(|plain| plain.is_refused(&rules));
            let Ask {
                path,
                headers,
                port,
                ..
            } = &ask;
            let shown = || format!("{path} {headers:?} {port} {rules:#}");
            assert!(refused || !wanted, "allowed: {}", shown());
            // Without a choice the answer is the same.
            if all.len() == 1 {
                assert_eq!(refused, wanted, "{}", shown());
            }
            refusals += usize::from(refused);
        }
    }
    assert!(refusals > ROUNDS, "{refusals} refusals");
}
