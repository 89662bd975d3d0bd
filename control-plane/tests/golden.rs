//! Folders of manifests and the resources they must become.
//!
//! Each folder of `golden/` has manifests, `ask.txt` with one question a line, and `answers.json`.
//! A question is `<type> <name> <namespace>/<workload>[ envoy]`, or `status`, or `errors`.
//! `UPDATE_GOLDEN=1` writes the answers anew; read the difference before you keep it.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::fs;
use std::path::{Path, PathBuf};

use anyam_control::ads::resources::{Scope, TlsFiles, View};
use anyam_control::declared;
use anyam_control::model::MeshOptions;
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::change::{ObjectDelta, Origin};
use anyam_control::model::mesh::status::{Condition, ObjectStatus, ParentStatus};
use anyam_control::model::mesh::vip::Vips;
use anyam_control::source::{Observed, yaml};
use anyam_control::translate::Translator;
use anyam_control::translate::view::State;
use serde_json::{Map, Value, json};
use xds_proto::type_url;

#[test]
fn manifests_become_the_resources_written_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|path| path.is_dir()) {
        let answers = answer(case);
        let path = case.join("answers.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(
                &path,
                serde_json::to_string_pretty(&answers).unwrap() + "\n",
            )
            .unwrap();
        }
        let known = fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
        let known: Value = serde_json::from_str(&known).unwrap();
        for (question, answer) in answers.as_object().unwrap() {
            if known.get(question) != Some(answer) {
                let expected = known.get(question).cloned().unwrap_or_default();
                wrong.push(format!(
                    "{}: {question}\nexpected {expected:#}\nbut is {answer:#}",
                    case.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn answer(case: &Path) -> Value {
    let state_dir = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
    let folder = if case.ends_with("demo") {
        demo
    } else {
        case.to_owned()
    };
    let (translator, _) =
        declared::open(&folder, state_dir.path(), MeshOptions::default()).unwrap();
    let state = translator.state();
    let questions = fs::read_to_string(case.join("ask.txt")).unwrap();
    let mut answers = Map::new();
    for question in questions
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let answer = match question {
            "status" => status(&state),
            "errors" => state
                .file_errors
                .iter()
                .map(|error| Value::from(error.to_string()))
                .collect(),
            _ => resource(&state, question),
        };
        answers.insert(question.to_owned(), answer);
    }
    Value::Object(answers)
}

/// Conditions that are not simply true.
fn status(state: &State) -> Value {
    let mut all = Map::new();
    let mut statuses: Vec<_> = state.mesh.statuses.values().collect();
    statuses.sort_by(|a, b| a.id.cmp(&b.id));
    for status in statuses {
        for condition in &status.conditions {
            if !condition.status || !condition.message.is_empty() {
                let text = format!(
                    "{}={} {}: {}",
                    condition.kind, condition.status, condition.reason, condition.message
                );
                all.insert(format!("{} {}", status.id, condition.kind), text.into());
            }
        }
        // Where one alone does not say the same.
        if status.parents.len() > 1 {
            all.insert(format!("{} parents", status.id), parents(status));
        }
    }
    Value::Object(all)
}

fn parents(status: &ObjectStatus) -> Value {
    let condition = |condition: &Condition| {
        format!(
            "{}={} {}: {}",
            condition.kind, condition.status, condition.reason, condition.message
        )
    };
    let parent = |it: &ParentStatus| {
        let conditions: Vec<String> = it.conditions.iter().map(condition).collect();
        json!({ "name": it.parent.name, "port": it.parent.port, "conditions": conditions })
    };
    status.parents.iter().map(parent).collect()
}

fn resource(state: &State, question: &str) -> Value {
    let mut words = question.split(' ');
    let kind = match words.next().unwrap() {
        "listener" => type_url::LISTENER,
        "route" => type_url::ROUTE,
        "cluster" => type_url::CLUSTER,
        "endpoint" => type_url::ENDPOINT,
        "workload" => type_url::WORKLOAD,
        "name" => type_url::NAME,
        other => panic!("{other} is no type"),
    };
    let name = words.next().unwrap();
    let (namespace, workload) = words.next().unwrap().split_once('/').unwrap();
    let envoy = words.next() == Some("envoy");
    let scope = Scope {
        namespace: namespace.into(),
        workload: workload.into(),
        service_account: workload.into(),
        trust_domain: "anyam.local".into(),
        anyam: !envoy,
        tls_files: envoy.then(|| TlsFiles {
            certificate_chain: "/etc/cert.pem".into(),
            private_key: "/etc/key.pem".into(),
            root_certificate: "/etc/root.pem".into(),
        }),
        ..Scope::default()
    };
    match state.get(kind, name, &scope) {
        None => Value::Null,
        Some(resource) => {
            let name = kind.trim_start_matches(type_url::PREFIX);
            let unknown = xds_proto::unknown::unknown_fields(name, &resource.body);
            assert_eq!(unknown, Vec::<String>::new(), "{question}");
            xds_proto::json::to_json(name, &resource.body)
                .unwrap_or_else(|error| json!(error.to_string()))
        }
    }
}

#[test]
fn services_have_their_names_in_the_cluster_s_domain() {
    let options = MeshOptions {
        cluster_domain: "k8s.example".to_owned(),
        ..MeshOptions::default()
    };
    let translator = Translator::new(Builder::new(options, Vips::new()));
    let text = "apiVersion: v1\nkind: Service\nmetadata: { name: web, namespace: shop }\n\
        spec: { clusterIP: 10.0.0.1, ports: [{ name: http, port: 80 }] }\n";
    let read = yaml::parse("mesh.yaml", text).unwrap().into_iter();
    let delta = ObjectDelta {
        set: read
            .map(|it| (it.object, Origin::cluster("Service")))
            .collect(),
        removed: Vec::new(),
    };
    let errors = None;
    translator.apply(Observed { delta, errors });
    let state = translator.state();
    let there = |kind: &str, name: &str| state.get(kind, name, &Scope::default()).is_some();
    for name in [
        "web.shop.svc.k8s.example",
        "_http._tcp.web.shop.svc.k8s.example",
    ] {
        assert!(there(type_url::NAME, name), "{name}");
    }
    assert!(there(
        type_url::CLUSTER,
        "outbound|80||web.shop.svc.k8s.example"
    ));
    assert!(!there(type_url::NAME, "web.shop.svc.cluster.local"));
}
