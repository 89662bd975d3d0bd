use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyam_tests_kube::{ApiServer, Helm, HelmVersion, Kubectl, Output, program, succeed, until};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);
const OURS: &str = "app.kubernetes.io/part-of=anyam";

/// The chart in a cluster with controllers, in a namespace that enforces restricted pod security.
struct Release {
    server: ApiServer,
    helm: Helm,
}

impl Release {
    fn new(version: HelmVersion) -> Self {
        let server = ApiServer::start_with_controllers();
        server.kubectl(&["create", "namespace", "anyam-system"]);
        server.kubectl(&["create", "namespace", "shop"]);
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        server.kubectl(&["label", "namespace", "anyam-system", restricted]);
        Release {
            server,
            helm: Helm::new(version),
        }
    }

    fn try_helm(&self, verb: &str, more: &[&str]) -> Output {
        self.helm.release(self.server.kubeconfig(), verb, more)
    }

    fn helm(&self, verb: &str, more: &[&str]) -> String {
        let output = self.try_helm(verb, more);
        assert_eq!(output.status, Some(0), "{verb} {more:?}: {output:?}");
        output.stdout
    }

    /// Objects with our label, by kind and name. An error: a kind was deleted meanwhile.
    fn ours(&self) -> Result<BTreeSet<String>, Output> {
        // It names what it finds, and fails for an aggregated API that no pod serves here.
        let kinds = ["api-resources", "--verbs=list", "-o", "name"];
        let kinds = self.server.try_kubectl(&kinds).stdout;
        let kinds: Vec<_> = kinds
            .lines()
            .filter(|kind| *kind != "componentstatuses")
            .collect();
        let kinds = kinds.join(",");
        let found = self
            .server
            .try_kubectl(&["get", &kinds, "-A", "-l", OURS, "-o", "name"]);
        match found.status {
            Some(0) => Ok(found.stdout.lines().map(str::to_owned).collect()),
            _ => Err(found),
        }
    }

    async fn left(&self, expected: &BTreeSet<String>) {
        until("the rest to be gone", TIMEOUT, async || match self.ours() {
            Ok(left) if left == *expected => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    fn webhook(&self) -> Value {
        let configuration = "mutatingwebhookconfiguration/anyam-injector";
        let text = self.server.kubectl(&["get", configuration, "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the controllers have made the Deployment's pods: their security passed.
    async fn pods(&self, expected: usize) {
        until("the pods to be made", TIMEOUT, async || {
            let pods = ["-n", "anyam-system", "get", "pods", "-o", "name"];
            let pods = self.server.kubectl(&pods);
            match pods.lines().count() == expected {
                true => Ok(()),
                false => {
                    let sets = ["-n", "anyam-system", "get", "replicasets", "-o", "yaml"];
                    Err(format!("{pods}{}", self.server.kubectl(&sets)))
                }
            }
        })
        .await;
    }
}

fn definitions() -> BTreeSet<String> {
    let all = anyam_control::crd::all();
    let name = |one: &anyam_control::crd::Definition| {
        format!("customresourcedefinition.apiextensions.k8s.io/{}", one.name)
    };
    all.iter().map(name).collect()
}

async fn lives(version: HelmVersion) {
    let release = Release::new(version);
    let server = &release.server;
    let notes = release.helm("install", &[]);
    assert!(notes.contains("mesh.anyam.dev/inject=enabled"), "{notes}");
    assert!(notes.contains("no Gateway API"), "{notes}");
    release.pods(2).await;
    let installed = release.ours().unwrap();
    assert!(installed.is_superset(&definitions()), "{installed:?}");
    let established = [
        "wait",
        "--for=condition=Established",
        "crd",
        "-l",
        OURS,
        "--timeout=30s",
    ];
    server.kubectl(&established);
    let policy = "{apiVersion: mesh.anyam.dev/v1alpha1, kind: MeshPolicy, metadata: {name: strict, namespace: shop}, spec: {mtls: {mode: Strict}}}";
    server.kubectl_with(policy, &["create", "-f", "-"]);

    // The control plane writes it; no Helm command may remove it.
    let bundle = "Y2VydGlmaWNhdGU=";
    let patch = format!(
        r#"[{{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "{bundle}"}}]"#
    );
    let configuration = "mutatingwebhookconfiguration/anyam-injector";
    server.kubectl(&[
        "patch",
        configuration,
        "--type=json",
        "-p",
        &patch,
        "--field-manager=anyam-control",
    ]);
    let kept = || {
        let first = &release.webhook()["webhooks"][0];
        assert_eq!(first["clientConfig"]["caBundle"], bundle, "{first:#}");
    };

    let scaler = ["-n", "anyam-system", "get", "hpa/anyam-control"];
    assert_ne!(server.try_kubectl(&scaler).status, Some(0));
    let notes = release.helm("upgrade", &["-f", "values-production.yaml"]);
    assert!(notes.contains("is upgraded"), "{notes}");
    server.kubectl(&scaler);
    server.kubectl(&["get", "priorityclass/anyam-control"]);
    kept();

    release.helm("rollback", &["1"]);
    assert_ne!(server.try_kubectl(&scaler).status, Some(0));
    assert_ne!(
        server
            .try_kubectl(&["get", "priorityclass/anyam-control"])
            .status,
        Some(0)
    );
    let replicas = [
        "-n",
        "anyam-system",
        "get",
        "deployment/anyam-control",
        "-o",
        "jsonpath={.spec.replicas}",
    ];
    assert_eq!(server.kubectl(&replicas), "2");
    kept();

    release.helm("uninstall", &[]);
    // CRDs and policies stay after an uninstall, and a new release adopts them.
    release.left(&definitions()).await;
    server.kubectl(&["-n", "shop", "get", "amp/strict"]);
    release.helm("install", &[]);
    server.kubectl(&["-n", "shop", "get", "amp/strict"]);
    release.helm("upgrade", &["--set", "crds.keep=false"]);
    release.helm("uninstall", &[]);
    release.left(&BTreeSet::new()).await;
}

#[tokio::test]
async fn the_life_of_a_release_with_helm_4() {
    lives(HelmVersion::V4).await;
}

#[tokio::test]
async fn the_life_of_a_release_with_helm_3() {
    lives(HelmVersion::V3).await;
}

/// The API server accepts all optional objects, without those of the Prometheus operator.
#[tokio::test]
async fn everything_is_accepted() {
    let release = Release::new(HelmVersion::V4);
    let values = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/everything.yaml");
    release.helm(
        "install",
        &[
            "-f",
            values,
            "--set",
            "monitoring.serviceMonitor.enabled=false,monitoring.podMonitor.enabled=false",
        ],
    );
    release.pods(2).await;
    let quota = [
        "-n",
        "shop",
        "get",
        "quota/anyam",
        "limitrange/anyam",
        "networkpolicy/anyam-control-plane",
    ];
    release.server.kubectl(&quota);
    release.helm("uninstall", &[]);
    release.left(&BTreeSet::new()).await;
}

/// A second mesh would overwrite the first one's objects, whose names are fixed.
#[test]
fn a_second_release_is_refused() {
    let release = Release::new(HelmVersion::V4);
    release.helm("install", &[]);
    let other = release.helm.try_run(&[
        "install",
        "other",
        ".",
        "--namespace",
        "shop",
        "--kubeconfig",
        &release.server.kubeconfig().to_string_lossy(),
    ]);
    assert_ne!(other.status, Some(0));
    assert!(
        other.stderr.contains("exists and cannot be imported"),
        "{other:?}"
    );
}

/// While no control plane answers, only pods that would be injected are refused: the cluster's own,
/// the mesh's and those of others are created.
#[tokio::test]
async fn a_webhook_that_does_not_answer_holds_up_no_other_namespace() {
    let release = Release::new(HelmVersion::V4);
    let server = &release.server;
    // The controllers have no scheduler, so no pod of the control plane ever runs.
    release.helm("install", &[]);
    server.kubectl(&["create", "namespace", "other"]);
    let inject = "mesh.anyam.dev/inject=enabled";
    server.kubectl(&["label", "namespace", "shop", inject]);
    for namespace in ["kube-system", "anyam-system", "other", "shop"] {
        until("the namespace's service account", TIMEOUT, async || {
            let get = ["get", "serviceaccount", "default", "-n", namespace];
            let output = server.try_kubectl(&get);
            match output.status {
                Some(0) => Ok(()),
                _ => Err(output.stderr),
            }
        })
        .await;
    }
    let create = |namespace: &str, label: &str| {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a, namespace: {namespace}, labels: {{{label}}}}}, \
             spec: {{automountServiceAccountToken: false, containers: [{{name: app, image: x, \
             securityContext: {{allowPrivilegeEscalation: false, runAsNonRoot: true, \
             capabilities: {{drop: [ALL]}}, seccompProfile: {{type: RuntimeDefault}}}}}}]}}}}"
        );
        server.try_kubectl_with(&pod, &["create", "--dry-run=server", "-f", "-"])
    };
    for namespace in ["kube-system", "anyam-system", "other"] {
        let output = create(namespace, "");
        assert_eq!(output.status, Some(0), "{namespace}: {output:?}");
    }
    let refused = create("shop", "");
    assert!(
        refused.stderr.contains("failed calling webhook"),
        "{refused:?}"
    );
    let opted_out = create("shop", "mesh.anyam.dev/inject: disabled");
    assert_eq!(opted_out.status, Some(0), "{opted_out:?}");
    let opted_in = create("other", "mesh.anyam.dev/inject: enabled");
    assert!(
        opted_in.stderr.contains("failed calling webhook"),
        "{opted_in:?}"
    );
}

/// `anyam install` on an API server: applied twice, it changes nothing and takes nothing away, and
/// what it printed removes it.
#[tokio::test]
async fn the_life_of_what_anyam_install_prints() {
    let release = Release::new(HelmVersion::V4);
    let server = &release.server;
    let printed = |more: &[&str]| {
        let mut install = Command::new(program("anyam"));
        succeed(install.arg("install").args(more), "")
    };
    let apply = ["apply", "--server-side", "-f", "-"];
    server.kubectl_with(&printed(&[]), &apply);
    release.pods(2).await;
    let installed = release.ours().unwrap();
    let bundle = "Y2VydGlmaWNhdGU=";
    let patch = format!(
        r#"[{{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "{bundle}"}}]"#
    );
    server.kubectl(&[
        "patch",
        "mutatingwebhookconfiguration/anyam-injector",
        "--type=json",
        "-p",
        &patch,
        "--field-manager=anyam-control",
    ]);
    server.kubectl_with(&printed(&[]), &apply);
    assert_eq!(release.ours().unwrap(), installed);
    let first = &release.webhook()["webhooks"][0];
    assert_eq!(first["clientConfig"]["caBundle"], bundle, "{first:#}");

    let delete = ["delete", "--wait=false", "-f", "-"];
    server.kubectl_with(&printed(&["--skip-crds"]), &delete);
    release.left(&definitions()).await;
}
