//! Conditions are written into the status of objects, beside those of other controllers.

use std::sync::Arc;
use std::time::Duration;

use anyam_control::declared;
use anyam_control::model::{Kind, MeshOptions, ObjectId};
use anyam_control::source::kubernetes::Cluster;
use anyam_control::source::kubernetes::status::document::CONTROLLER;
use anyam_control::source::kubernetes::status::writer::StatusWriter;
use anyam_control::translate::Translator;
use anyam_tests_kube::{ApiServer, Channel, Kubectl, until};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A status that is written again and again waits up to a minute.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// A control plane's source, model and writer of statuses.
pub struct ControlPlane {
    pub translator: Arc<Translator>,
    leads: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl ControlPlane {
    pub async fn start(server: &ApiServer, leads: bool) -> Self {
        let client = server.client().await;
        let cluster = Cluster::new(client.clone(), "test");
        let statuses = cluster.statuses();
        let (translator, cluster) = declared::list(cluster, MeshOptions::default())
            .await
            .unwrap();
        let follow = declared::follow(translator.clone(), cluster, Some(statuses.clone()));
        let state = translator.clone();
        let lookup = move |id: &ObjectId| state.state().mesh.statuses.get(id).cloned();
        let writer = StatusWriter::new(client, statuses, Box::new(lookup));
        let leads = watch::Sender::new(leads);
        ControlPlane {
            translator,
            tasks: [
                tokio::spawn(follow),
                tokio::spawn(writer.run(leads.subscribe())),
            ],
            leads,
        }
    }

    fn knows(&self, kind: Kind, name: &str) -> bool {
        let state = self.translator.state();
        let mut ids = state.mesh.statuses.keys();
        ids.any(|id| id.kind == kind && id.key.name == name)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub(super) fn apply(server: &ApiServer, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    server.kubectl_with(&list.to_string(), &arguments);
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    })
}

fn route(name: &str, parents: Value, rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"parentRefs": parents, "rules": rules},
    })
}

pub fn get(server: &ApiServer, resource: &str, name: &str) -> Value {
    serde_json::from_str(&server.kubectl(&["get", resource, name, "-o", "json"])).unwrap()
}

/// The entries of a route's status: ours, and those of other controllers.
fn entries(route: &Value) -> (Vec<Value>, Vec<Value>) {
    let all = route["status"]["parents"].as_array().cloned();
    let all = all.unwrap_or_default().into_iter();
    all.partition(|entry| entry["controllerName"] == CONTROLLER)
}

pub fn condition(of: &Value, kind: &str) -> Value {
    let all = of["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|it| it["type"] == kind);
    found.unwrap_or_default()
}

/// Waits until the route has one entry of ours that meets the condition, and returns it.
async fn entry(
    server: &ApiServer,
    name: &str,
    what: &str,
    is: impl Fn(&Value) -> bool,
) -> (Value, Value) {
    until(what, TIMEOUT, async || {
        let route = get(server, "httproute", name);
        match entries(&route).0.as_slice() {
            [ours] if is(ours) => Ok((route.clone(), ours.clone())),
            _ => Err(route["status"].to_string()),
        }
    })
    .await
}

fn has(kind: &'static str, status: &'static str, reason: &'static str) -> impl Fn(&Value) -> bool {
    move |entry| {
        let condition = condition(entry, kind);
        condition["status"] == status && condition["reason"] == reason
    }
}

const FOREIGN: &str = "other.example/gateways";

/// Overwrites the status as another controller would.
fn write_foreign(server: &ApiServer, name: &str) {
    let status = json!({"status": {"parents": [{
        "controllerName": FOREIGN,
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "edge",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        }],
    }]}});
    let patch = status.to_string();
    server.kubectl(&[
        "patch",
        "httproute",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
}

/// A rule with an unsupported filter fails and is named; the other rules work.
fn with_an_unsupported_filter() -> Value {
    json!([
        {"backendRefs": [{"name": "web", "port": 80}]},
        {
            "matches": [{"path": {"value": "/x"}}],
            "filters": [{"type": "ExtensionRef", "extensionRef": {"group": "x.example", "kind": "X", "name": "x"}}],
            "backendRefs": [{"name": "web", "port": 80}],
        },
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_have_our_entries_beside_those_of_other_controllers() {
    let server = ApiServer::start();
    server.install_gateway_api(Channel::Experimental);
    let web = json!({"group": "", "kind": "Service", "name": "web"});
    let parents = json!([{"name": "edge"}, web]);
    let rules = json!([
        {"backendRefs": [{"name": "web", "port": 80}]},
        {"matches": [{"path": {"value": "/v2"}}], "backendRefs": [{"name": "v2", "port": 80}]},
    ]);
    apply(
        &server,
        &[service("web"), route("r", parents.clone(), rules.clone())],
    );
    write_foreign(&server, "r");
    let control = ControlPlane::start(&server, false).await;
    until("the route in the model", TIMEOUT, async || {
        let known = control.knows(Kind::HttpRoute, "r");
        known.then_some(()).ok_or_else(String::new)
    })
    .await;
    let before = get(&server, "httproute", "r");
    assert!(entries(&before).0.is_empty(), "written by no leader");

    control.leads.send_replace(true);
    let missing = has("ResolvedRefs", "False", "BackendNotFound");
    let (route_now, ours) = entry(&server, "r", "a leader's entry", missing).await;
    assert_eq!(ours["parentRef"], web);
    let accepted = condition(&ours, "Accepted");
    assert_eq!(accepted["status"], "True", "{ours:#}");
    assert_eq!(
        accepted["observedGeneration"],
        route_now["metadata"]["generation"]
    );
    let message = condition(&ours, "ResolvedRefs")["message"].to_string();
    assert!(message.contains("default/v2"), "{message}");
    assert_eq!(
        entries(&route_now).1,
        entries(&before).1,
        "another controller's"
    );

    // A change of another object changes one condition, and no other.
    apply(&server, &[service("v2")]);
    let resolved = has("ResolvedRefs", "True", "ResolvedRefs");
    let (_, ours) = entry(&server, "r", "the backend that came", resolved).await;
    assert_eq!(condition(&ours, "Accepted"), accepted);

    // A new generation with a field that is not supported.
    let sticky = json!([{"backendRefs": [{"name": "web", "port": 80}], "sessionPersistence": {"type": "Cookie", "cookie": {"name": "c"}}}]);
    apply(&server, &[route("r", parents.clone(), sticky)]);
    let named = has("mesh.anyam.dev/AllFields", "False", "FieldLeftOut");
    let (route_now, ours) = entry(&server, "r", "the unsupported field", named).await;
    let left_out = condition(&ours, "mesh.anyam.dev/AllFields");
    let message = left_out["message"].as_str().unwrap();
    assert!(
        message.contains("spec.rules[0].sessionPersistence"),
        "{message}"
    );
    let accepted = condition(&ours, "Accepted");
    assert_eq!(accepted["status"], "True", "the rest is in effect");
    let generation = &route_now["metadata"]["generation"];
    assert!(generation.as_i64() > before["metadata"]["generation"].as_i64());
    for condition in ours["conditions"].as_array().unwrap() {
        assert_eq!(&condition["observedGeneration"], generation, "{condition}");
    }

    // Another controller overwrites our entry.
    write_foreign(&server, "r");
    let (route_now, _) = entry(&server, "r", "our entry again", |_| true).await;
    assert_eq!(entries(&route_now).1, entries(&before).1);

    rule_is_dropped(&server, parents).await;

    // Our parent is removed, and with it our entry.
    apply(&server, &[route("r", json!([{"name": "edge"}]), rules)]);
    entry_gone(&server, "r", &entries(&before).1).await;
}

/// The entry of a route `r` that has a rule with an unsupported filter.
async fn rule_is_dropped(server: &ApiServer, parents: Value) {
    let extended = with_an_unsupported_filter();
    apply(server, &[route("r", parents, extended)]);
    let partially = has("PartiallyInvalid", "True", "UnsupportedValue");
    let (_, ours) = entry(server, "r", "the rule that fails", partially).await;
    let message = condition(&ours, "PartiallyInvalid")["message"].to_string();
    assert!(
        message.contains("Dropped Rule: spec.rules[1].filters[0].extensionRef"),
        "{message}"
    );
    assert!(condition(&ours, "mesh.anyam.dev/AllFields").is_object());
}

/// Waits until a route's status has other controllers' entries alone.
async fn entry_gone(server: &ApiServer, name: &str, others: &[Value]) {
    until("our entry gone", TIMEOUT, async || {
        let route = get(server, "httproute", name);
        let (ours, left) = entries(&route);
        match ours.is_empty() && left == *others {
            true => Ok(()),
            false => Err(route["status"].to_string()),
        }
    })
    .await;
}

/// A CRD of one of our kinds, with or without a status subresource.
fn crd(kind: &str, plural: &str, subresources: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.mesh.anyam.dev")},
        "spec": {
            "group": "mesh.anyam.dev", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": subresources,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// BackendPolicy with a status, MeshPolicy without.
fn establish(server: &ApiServer) {
    let crds = [
        crd("BackendPolicy", "backendpolicies", json!({"status": {}})),
        crd("MeshPolicy", "meshpolicies", json!({})),
    ];
    apply(server, &crds);
    for crd in ["backendpolicies", "meshpolicies"] {
        let name = format!("crd/{crd}.mesh.anyam.dev");
        server.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            &name,
        ]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_kinds_have_conditions_and_many_routes_are_all_written() {
    let server = ApiServer::start();
    server.install_gateway_api(Channel::Standard);
    establish(&server);
    let policy = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "mesh.anyam.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "p", "namespace": "default"}, "spec": spec,
        })
    };
    let target = json!([{"group": "", "kind": "Service", "name": "web"}]);
    let parents = json!([{"group": "", "kind": "Service", "name": "web"}]);
    let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
    let mut all = vec![
        // Without a status subresource: not written, and not retried.
        policy("MeshPolicy", json!({"mtls": {"mode": "Strict"}})),
        policy(
            "BackendPolicy",
            json!({"targetRefs": target, "connectTimeout": "1s", "later": 1}),
        ),
    ];
    // More than a burst.
    let names: Vec<String> = (0..80).map(|index| format!("r{index}")).collect();
    let routes = names
        .iter()
        .map(|name| route(name, parents.clone(), rules.clone()));
    all.extend(routes);
    apply(&server, &all);
    let _control = ControlPlane::start(&server, true).await;
    until("the policy's conditions", TIMEOUT, async || {
        let policy = get(&server, "backendpolicies.mesh.anyam.dev", "p");
        let not_found = condition(&policy["status"], "Accepted");
        let fields = condition(&policy["status"], "mesh.anyam.dev/AllFields");
        let names = fields["message"]
            .as_str()
            .unwrap_or_default()
            .contains("spec.later");
        match not_found["reason"] == "TargetNotFound" && names {
            true => Ok(()),
            false => Err(policy["status"].to_string()),
        }
    })
    .await;
    let all_say = |status: &'static str, reason: &'static str| {
        let routes = server.kubectl(&["get", "httproutes", "-o", "json"]);
        let routes: Value = serde_json::from_str(&routes).unwrap();
        let has = has("Accepted", status, reason);
        let done = |route: &&Value| entries(route).0.first().is_some_and(&has);
        let done = routes["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(done)
            .count();
        match done == names.len() {
            true => Ok(()),
            false => Err(format!("{done} of {}", names.len())),
        }
    };
    until("routes without a parent", TIMEOUT, async || {
        all_say("False", "NoMatchingParent")
    })
    .await;
    apply(&server, &[service("web")]);
    until("routes with one", TIMEOUT, async || {
        all_say("True", "Accepted")
    })
    .await;
    let mesh_policy = get(&server, "meshpolicies.mesh.anyam.dev", "p");
    assert!(mesh_policy["status"].is_null(), "{mesh_policy:#}");
}
