//! Errors of the API server as messages: what, where, what to do.

use anyam_tests_kube::{ApiServer, Kubectl, NAMESPACE, of_chart, until};
use serde_json::json;

use super::TIMEOUT;
use super::anyam::Anyam;

const API_SERVICE: &str = "v1alpha1.inspect.mesh.anyam.dev";

/// Why the API is not available, once the API server knows.
async fn reason(server: &ApiServer) -> String {
    let path = "--output=jsonpath={.status.conditions[?(@.type=='Available')].reason}";
    until("a condition of the APIService", TIMEOUT, async || {
        let reason = server.kubectl(&["get", "apiservice", API_SERVICE, path]);
        match reason.is_empty() {
            true => Err(reason),
            false => Ok(reason),
        }
    })
    .await
}

#[tokio::test]
async fn a_cluster_without_a_mesh_or_with_half_of_one_is_recognised() {
    let server = ApiServer::start();
    let anyam = Anyam::new(server.kubeconfig());
    anyam.refused(
        &["edges"],
        &[
            "no Anyam",
            API_SERVICE,
            "anyam check --pre",
            "context anyam-",
        ],
    );
    let check = anyam.run(&["check"]);
    assert_eq!(check.status, Some(2), "{check:?}");
    for finding in [
        "the mesh's API is not registered",
        "the control plane is not installed",
        "the webhook that injects sidecars is not registered",
    ] {
        assert!(check.stdout.contains(finding), "{finding}: {check:?}");
    }

    // Installed, and nothing runs.
    server.kubectl(&["create", "namespace", NAMESPACE]);
    let chart = of_chart(&["APIService", "Deployment", "MutatingWebhookConfiguration"]);
    server.kubectl_with(&chart, &["apply", "-f", "-"]);
    let why = reason(&server).await;
    anyam.refused(
        &["edges"],
        &["cannot reach the mesh's control plane", &why, "anyam check"],
    );
    let check = anyam.run(&["check"]);
    assert_eq!(check.status, Some(2), "{check:?}");
    for finding in [
        &*format!("the mesh's API is not available: {why}"),
        "0 of 2 replicas of the control plane are ready",
        "webhook namespace.injector.mesh.anyam.dev has no caBundle",
        "Deployment anyam-system/anyam-control",
    ] {
        assert!(check.stdout.contains(finding), "{finding}: {check:?}");
    }
    let json = anyam.run(&["check", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(found["findings"][0]["severity"], "error", "{found}");
}

#[tokio::test]
async fn credentials_and_rights_that_are_missing_are_named() {
    let server = ApiServer::start();
    let expired = Anyam::of_user(&server, &json!({"token": "nonsense"}));
    expired.refused(
        &["stat"],
        &[
            "does not accept the credentials",
            "context anyam-",
            "log in",
        ],
    );

    // The API server authorises before it forwards.
    let chart = of_chart(&["APIService"]);
    server.kubectl_with(&chart, &["apply", "-f", "-"]);
    reason(&server).await;
    let robot = Anyam::of_account(&server, "robot");
    robot.refused(
        &["stat", "-n", "shop"],
        &[
            "cannot get resource \"workloads/stat\"",
            "kubectl --namespace shop create rolebinding anyam-viewer --clusterrole=anyam-viewer --serviceaccount=default:robot",
        ],
    );
    robot.refused(
        &["stat", "-A"],
        &["name a namespace", "create clusterrolebinding anyam-viewer"],
    );
    for command in [&["tap", "shop/web"][..], &["dump", "shop/web"]] {
        robot.refused(command, &["--clusterrole=anyam-operator"]);
    }
    robot.refused(
        &["tap", "-n", "shop", "deploy/web"],
        &["cannot get resource \"deployments\"", "administrator"],
    );
    let administrator = Anyam::new(server.kubeconfig());
    administrator.refused(
        &["tap", "-n", "shop", "deploy/web"],
        &["deployment/web of namespace shop is not there", "-n"],
    );
    administrator.refused(&["tap", "-A", "deploy/web"], &["-n instead of -A"]);
    // What the user may not see is no error of the mesh.
    let check = robot.run(&["check", "-n", "shop"]);
    assert!(
        check
            .stdout
            .contains("was not looked at: you may not read it"),
        "{check:?}"
    );
}
