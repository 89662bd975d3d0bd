//! `anyam check --pre`.

use anyam_tests_kube::{ApiServer, Channel, Helm, HelmVersion, Kubectl};
use serde_json::{Value, json};

use super::anyam::Anyam;

/// The lines, each as `level: what`.
fn lines(anyam: &Anyam, more: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = anyam.run(&[&["check", "--pre", "-o", "json"], more].concat());
    let found: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let line = |check: &Value| {
        let text = |key: &str| check[key].as_str().unwrap().to_owned();
        let done = text("level") == "ok";
        assert_eq!(
            text("todo").is_empty(),
            done,
            "{check}: a remedy, if there is something to do"
        );
        format!("{}: {}", text("level"), text("what"))
    };
    let all = found["checks"].as_array().unwrap();
    (output.status, all.iter().map(line).collect())
}

fn has(lines: &[String], begins: &str) -> bool {
    lines.iter().any(|line| line.starts_with(begins))
}

#[test]
fn a_cluster_is_looked_at_before_an_installation() {
    let server = ApiServer::start();
    let anyam = Anyam::new(server.kubeconfig());
    let (status, all) = lines(&anyam, &[]);
    assert_eq!(status, Some(0), "{all:#?}");
    for begins in [
        "ok: API server: context anyam-",
        "ok: Kubernetes v1.",
        "ok: APIs: ",
        "ok: aggregation layer: enabled",
        "warning: nodes: there are none",
        "ok: rights: ",
        "ok: earlier installation: none",
        "warning: Gateway API: no CRD for httproutes, grpcroutes",
        "ok: other meshes: none",
        "ok: pod security: ",
    ] {
        assert!(has(&all, begins), "{begins}: {all:#?}");
    }
    let table = anyam.run(&["check", "--pre"]);
    assert_eq!(table.status, Some(0), "{table:?}");
    assert!(
        table.stdout.contains("to do: ")
            && table
                .stdout
                .contains("can be installed into namespace anyam-system"),
        "{table:?}"
    );

    server.install_gateway_api(Channel::Standard);
    server.kubectl(&["create", "namespace", "shop"]);
    let label =
        |labels: &[&str]| server.kubectl(&[&["label", "namespace", "shop"], labels].concat());
    label(&["pod-security.kubernetes.io/enforce=baseline"]);
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "status": {"nodeInfo": {
            "kubeletVersion": "v1.28.3", "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "",
            "osImage": "", "containerRuntimeVersion": "", "kubeProxyVersion": "", "operatingSystem": "linux",
            "architecture": "amd64",
        }},
    });
    server.kubectl_with(&node.to_string(), &["create", "-f", "-"]);
    let injector = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector"},
        "webhooks": [{
            "name": "namespace.sidecar-injector.istio.io", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "failurePolicy": "Ignore",
            "clientConfig": {"url": "https://127.0.0.1:1/inject"},
            "rules": [{"apiGroups": ["x.example"], "apiVersions": ["v1"], "resources": ["none"], "operations": ["CREATE"]}],
        }],
    });
    server.kubectl_with(&injector.to_string(), &["create", "-f", "-"]);
    let (status, all) = lines(&anyam, &[]);
    assert_eq!(status, Some(1), "{all:#?}");
    for begins in [
        "ok: Gateway API: httproutes of v1.",
        "ok: Gateway API: grpcroutes of v1.",
        "warning: other meshes: Istio injects sidecars",
        "warning: pod security: shop enforce",
        "error: nodes: kubelets before 1.29 run no native sidecars: n1 (v1.28.3)",
    ] {
        assert!(has(&all, begins), "{begins}: {all:#?}");
    }
    label(&["istio-injection=enabled", "mesh.anyam.dev/inject=enabled"]);
    let (_, all) = lines(&anyam, &[]);
    let both = "error: other meshes: Istio and this one both inject the pods of shop";
    assert!(has(&all, both), "{all:#?}");
}

#[test]
fn an_earlier_installation_is_found() {
    let server = ApiServer::start();
    server.kubectl(&["create", "namespace", "anyam-system"]);
    let anyam = Anyam::new(server.kubeconfig());
    let helm = Helm::new(HelmVersion::V4);
    let release = |verb: &str| {
        let output = helm.release(server.kubeconfig(), verb, &[]);
        assert_eq!(output.status, Some(0), "{verb}: {output:?}");
    };
    release("install");
    let (status, all) = lines(&anyam, &[]);
    assert_eq!(status, Some(0), "{all:#?}");
    let here =
        "warning: earlier installation: 0.1.0 is the Helm release anyam in namespace anyam-system";
    assert!(has(&all, here), "{all:#?}");
    let (status, all) = lines(&anyam, &["-n", "mesh"]);
    assert_eq!(status, Some(1), "{all:#?}");
    let elsewhere =
        "error: earlier installation: 0.1.0 is the Helm release anyam in namespace anyam-system";
    assert!(has(&all, elsewhere), "{all:#?}");

    release("uninstall");
    let broken = [
        "create",
        "secret",
        "generic",
        "anyam-ca",
        "--namespace=anyam-system",
    ];
    server.kubectl(&broken);
    let (status, all) = lines(&anyam, &[]);
    assert_eq!(status, Some(1), "{all:#?}");
    for begins in [
        "ok: earlier installation: none",
        "ok: CRDs of mesh.anyam.dev: 4 from an earlier installation",
        "error: Secret anyam-system/anyam-ca is no certificate authority",
    ] {
        assert!(has(&all, begins), "{begins}: {all:#?}");
    }
    let (_, all) = lines(&anyam, &["-n", "mesh"]);
    let crds = "error: CRDs of mesh.anyam.dev belong to a Helm release in namespace anyam-system";
    assert!(has(&all, crds), "{all:#?}");
}

#[test]
fn the_rights_of_the_user_are_looked_at() {
    let server = ApiServer::start();
    let robot = Anyam::of_account(&server, "robot");
    let (status, all) = lines(&robot, &[]);
    assert_eq!(status, Some(1), "{all:#?}");
    for begins in [
        "error: rights: you may not create deployments.apps in namespace anyam-system",
        "error: rights: you may not create customresourcedefinitions.apiextensions.k8s.io",
        "error: rights: you may not escalate clusterroles",
        "warning: aggregation layer (ConfigMap kube-system/extension-apiserver-authentication): not looked at",
        "warning: nodes: not looked at",
    ] {
        assert!(has(&all, begins), "{begins}: {all:#?}");
    }
    // Everything in all namespaces is an administrator's.
    let bind = [
        "create",
        "clusterrolebinding",
        "robot",
        "--clusterrole=cluster-admin",
        "--serviceaccount=default:robot",
    ];
    server.kubectl(&bind);
    let (status, all) = lines(&robot, &[]);
    assert_eq!(status, Some(0), "{all:#?}");
    assert!(has(&all, "ok: rights: "), "{all:#?}");
}
