//! Each right that the chart grants is used: what the API server's audit log has of the control
//! plane, compared with the rules of its roles.

use std::collections::BTreeSet;

use anyam_tests_kube::{Channel, Helm, Kubectl, until};
use serde_json::Value;
use xds_proto::yaml;

use super::aggregated::{NAME, ask_as_admin, available, free_port, register};
use super::harness::{Bench, NAMESPACE, TIMEOUT, of_chart};

/// One object of each kind whose status is written.
const OBJECTS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{name: grpc, port: 80}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop},
  spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: web, namespace: shop},
  spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: web, namespace: shop},
  spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: TLSRoute, metadata: {name: web, namespace: shop},
  spec: {parentRefs: [{group: '', kind: Service, name: web}], hostnames: [web.example],
    rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: web, namespace: shop},
  spec: {targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: web.example,
    caCertificateRefs: [{group: '', kind: ConfigMap, name: web-ca}]}}}
---
{apiVersion: mesh.anyam.dev/v1alpha1, kind: MeshPolicy, metadata: {name: all, namespace: shop}, spec: {mtls: {mode: Strict}}}
---
{apiVersion: mesh.anyam.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {name: all, namespace: shop},
  spec: {action: Allow, rules: [{}]}}
---
{apiVersion: mesh.anyam.dev/v1alpha1, kind: BackendPolicy, metadata: {name: web, namespace: shop},
  spec: {targetRefs: [{kind: Service, name: web}], retry: {attempts: 1}}}
---
{apiVersion: mesh.anyam.dev/v1alpha1, kind: Workload, metadata: {name: vm, namespace: shop},
  spec: {addresses: [10.9.9.9], serviceAccount: web, ports: [{name: http, port: 80}]}}
";

/// `verb group/resource/subresource name`, the name only where a rule limits names.
type Right = (String, String, String);

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What the roles of the control plane grant, one entry for each verb, resource and name.
fn granted() -> BTreeSet<Right> {
    let roles = of_chart(&["Role", "ClusterRole"]);
    let mut rights = BTreeSet::new();
    for role in yaml::documents(&roles).map(|role| role.unwrap().to_json()) {
        let name = role["metadata"]["name"].as_str().unwrap();
        if !name.starts_with("anyam-control") {
            continue;
        }
        for rule in role["rules"].as_array().unwrap() {
            let mut names = words(&rule["resourceNames"]);
            if names.is_empty() {
                names.push(String::new());
            }
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        for name in &names {
                            let resource = format!("{group}/{resource}");
                            rights.insert((verb.clone(), resource, name.clone()));
                        }
                    }
                }
            }
        }
    }
    assert!(rights.len() > 30, "{rights:?}");
    rights
}

/// The requests of the control plane that the API server let through and answered.
fn used(bench: &Bench) -> BTreeSet<Right> {
    let log = std::fs::read_to_string(bench.server.audit_log()).unwrap();
    let mut rights = BTreeSet::new();
    // The last line may be half written.
    for event in log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        // "Not found" is an answer, too: a definition is asked for to see whether it is gone.
        let code = event["responseStatus"]["code"].as_u64();
        if !code.is_some_and(|code| code < 400 || code == 404) {
            continue;
        }
        let of = |field: &str| event["objectRef"][field].as_str().unwrap_or_default();
        let resource = match of("subresource") {
            "" => of("resource").to_owned(),
            sub => format!("{}/{sub}", of("resource")),
        };
        let resource = format!("{}/{resource}", of("apiGroup"));
        let verb = event["verb"].as_str().unwrap().to_owned();
        rights.insert((verb.clone(), resource.clone(), of("name").to_owned()));
        rights.insert((verb, resource, String::new()));
    }
    rights
}

#[tokio::test]
async fn each_right_of_the_chart_is_used() {
    let bench = Bench::start();
    bench.server.install_gateway_api(Channel::Standard);
    let webhooks = of_chart(&["MutatingWebhookConfiguration"]);
    bench.server.kubectl_with(&webhooks, &["create", "-f", "-"]);
    let definitions = Helm::chart().join("files/crds");
    let definitions = definitions.to_string_lossy();
    bench.server.kubectl(&["create", "-f", &definitions]);
    let established = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=30s",
    ];
    bench.server.kubectl(&established);
    bench.namespace("shop", &["web"]);
    bench.server.kubectl_with(OBJECTS, &["create", "-f", "-"]);

    let webhook = ["--webhook-listen", "127.0.0.1:0"];
    let port = free_port();
    let aggregated = format!("127.0.0.1:{port}");
    let with_api = [
        &webhook[..],
        &["--aggregated-listen", &aggregated, "--name", NAME],
    ]
    .concat();
    let mut first = bench.control("first", &with_api).await;
    register(&bench, port);
    available(&bench).await;
    // Its answer depends on the user's rights.
    ask_as_admin(&bench, "/namespaces/shop/workloads/-/proxies");
    // A pod joins.
    bench.pod("web-0", "web");
    let root = bench.root("shop").await;
    let token = bench.token("web-0", "web", "anyam-ca");
    let xds = first.xds().await;
    let sidecar = bench.sidecar("web-0", "web", xds, &[]).start(&token, &root);
    sidecar.certificate().await;
    // What others change is restored.
    let change = r#"--patch={"data": {"ca.crt": "changed"}}"#;
    let patch = [
        "patch",
        "configmap",
        "anyam-ca-root-cert",
        "--namespace=shop",
        change,
    ];
    bench.server.kubectl(&patch);
    bench.root("shop").await;
    // Another replica waits for the Lease, and takes it.
    let second = bench.control("second", &webhook).await;
    first.terminate();

    let granted = granted();
    // Asked for only once a kind is gone.
    let definitions = "apiextensions.k8s.io/customresourcedefinitions";
    let missing = |late: bool| {
        let used = used(&bench);
        let missing = granted.difference(&used);
        let missing = missing.filter(|(_, resource, _)| late || resource != definitions);
        missing.cloned().collect::<Vec<_>>()
    };
    let all_used = async |late: bool| {
        until("each right to be used", TIMEOUT, async || {
            match missing(late) {
                missing if missing.is_empty() => Ok(()),
                missing => Err(format!("not used: {missing:#?}")),
            }
        })
        .await;
    };
    all_used(false).await;
    let delete = ["delete", "crd", "--all", "--wait=false"];
    bench.server.kubectl(&delete);
    all_used(true).await;
    second.assert_rights();
    bench.server.kubectl(&["get", "namespace", NAMESPACE]);
}
