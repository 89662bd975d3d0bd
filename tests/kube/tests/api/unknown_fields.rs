//! A policy with a field that is not known, applied without strict validation: its status names the
//! field, and nothing is opened that the field may have narrowed.

use anyam_control::model::manifest::policy::MtlsMode;
use anyam_tests_kube::{ApiServer, Helm, Kubectl, until};
use serde_json::{Value, json};

use super::status::{ControlPlane, TIMEOUT, condition, get};

fn policy(kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "mesh.anyam.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "p", "namespace": "default"}, "spec": spec,
    })
}

fn apply(server: &ApiServer, object: &Value) {
    let unchecked = ["apply", "--validate=false", "-f", "-"];
    server.kubectl_with(&object.to_string(), &unchecked);
}

/// Waits until the status of policy `p` says something of all fields of this generation.
async fn says(server: &ApiServer, resource: &str, expected: Option<&str>) {
    until(
        &format!("{expected:?} of {resource}"),
        TIMEOUT,
        async || {
            let object = get(server, resource, "p");
            let status = &object["status"];
            let accepted = condition(status, "Accepted");
            let fields = condition(status, "mesh.anyam.dev/AllFields");
            let message = fields["message"].as_str().unwrap_or_default();
            let said = match expected {
                Some(path) => fields["reason"] == "FieldLeftOut" && message.starts_with(path),
                None => fields.is_null(),
            };
            let current = accepted["observedGeneration"] == object["metadata"]["generation"];
            match said && current {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_field_of_a_policy_is_named_and_opens_nothing() {
    let server = ApiServer::start();
    let crds = Helm::chart().join("files/crds");
    let crds = crds.to_string_lossy();
    server.kubectl(&["apply", "--server-side", "-f", &crds]);
    let established = "--for=condition=Established";
    server.kubectl(&["wait", established, "--timeout=30s", "-f", &crds]);
    let rules = json!([
        {"from": [{"namespaces": ["a"]}]},
        {"from": [{"namespaces": ["b"], "requestPrincipals": ["x"]}]},
    ]);
    apply(
        &server,
        &policy("AuthorizationPolicy", json!({"rules": rules})),
    );
    let weak = json!({"mtls": {"mode": "Permissive"}, "workloadSelector": {"app": "old"}});
    apply(&server, &policy("MeshPolicy", weak));

    let control = ControlPlane::start(&server, true).await;
    let authorization = "authorizationpolicies.mesh.anyam.dev";
    says(
        &server,
        authorization,
        Some("spec.rules[1].from[0].requestPrincipals: unknown field"),
    )
    .await;
    says(
        &server,
        "meshpolicies.mesh.anyam.dev",
        Some("spec.workloadSelector: unknown field"),
    )
    .await;
    let rules_in_force = || {
        let mesh = control.translator.state().mesh.clone();
        let policies = mesh.authorization.by_namespace.get("default").unwrap();
        policies[0].rules.len()
    };
    assert_eq!(rules_in_force(), 1, "the rule that can be read");
    let mode = || {
        let mesh = control.translator.state().mesh.clone();
        mesh.mtls("default", "any", 80)
    };
    assert_eq!(mode(), MtlsMode::Strict);

    // Without the fields they hold as written.
    let rules = json!([{"from": [{"namespaces": ["a"]}]}, {"from": [{"namespaces": ["b"]}]}]);
    apply(
        &server,
        &policy("AuthorizationPolicy", json!({"rules": rules})),
    );
    apply(
        &server,
        &policy("MeshPolicy", json!({"mtls": {"mode": "Permissive"}})),
    );
    says(&server, authorization, None).await;
    says(&server, "meshpolicies.mesh.anyam.dev", None).await;
    assert_eq!((rules_in_force(), mode()), (2, MtlsMode::Permissive));
}
