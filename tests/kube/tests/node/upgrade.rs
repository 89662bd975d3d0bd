//! The mesh is upgraded under load, as `docs/kubernetes.md` says.

use anyam_tests_kube::{APP_IMAGE, Cluster, Kubectl};
use serde_json::Value;

use crate::mesh::{self, NEXT};
use crate::shop::{Shop, WEB};

/// A Deployment whose program calls `web` from its first to its last moment.
fn caller() -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: caller}}
spec:
  selector: {{matchLabels: {{app: caller}}}}
  template:
    metadata: {{labels: {{app: caller}}}}
    spec:
      containers:
        - {{name: app, image: '{APP_IMAGE}', imagePullPolicy: Never, args: [load, -without-input, '{WEB}']}}
"
    )
}

/// Whether each image, and there is one, has this tag.
fn tagged(images: &[&str], tag: &str) -> bool {
    let end = format!(":{tag}");
    !images.is_empty() && images.iter().all(|image| image.ends_with(&end))
}

fn control_plane_is(cluster: &Cluster, tag: &str) -> bool {
    mesh::rolled_out(cluster);
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    let get = ["get", "deployment/anyam-control", "--output", image];
    tagged(&[&mesh::kubectl(cluster, &get)], tag)
}

fn sidecars_are(shop: &Shop<'_>, deployment: &str, tag: &str) -> bool {
    let pods = shop.pods(deployment);
    let containers = pods
        .iter()
        .filter_map(|pod| pod["spec"]["initContainers"].as_array());
    let images: Vec<_> = containers
        .flatten()
        .filter_map(|one| one["image"].as_str())
        .collect();
    tagged(&images, tag)
}

#[tokio::test]
async fn an_upgrade_of_the_control_plane_and_of_sidecars_loses_no_request() {
    let cluster = Cluster::alone();
    let shop = Shop::in_the_mesh(&cluster).await;
    shop.namespace.apply(&caller());
    shop.namespace.rolled_out("caller");
    let load = shop.load(WEB);
    let caller = || shop.follow(&shop.pod_names("caller")[0]);
    let first_caller = caller();
    assert!(!sidecars_are(&shop, "web", NEXT));

    let tag = format!("image.tag={NEXT}");
    let upgrade = ["--reset-then-reuse-values", "--set", &tag];
    mesh::helm(&cluster, "upgrade", &upgrade);
    mesh::old_replicas_ended(&cluster).await;
    assert!(!sidecars_are(&shop, "web", NEXT), "not before a restart");
    for deployment in ["web", "caller"] {
        shop.namespace.restart(deployment);
        assert!(
            sidecars_are(&shop, deployment, NEXT),
            "{:#?}",
            shop.pods(deployment)
        );
    }
    first_caller.end().lost_nothing();
    assert!(control_plane_is(&cluster, NEXT));

    // Sidecars are newer than the control plane then.
    let second_caller = caller();
    mesh::helm(&cluster, "rollback", &[]);
    shop.namespace
        .kubectl(&["scale", "deployment/caller", "--replicas=0"]);
    second_caller.end().lost_nothing();
    load.end().lost_nothing();
    assert!(!control_plane_is(&cluster, NEXT));
}

/// A NetworkPolicy selects pods and ports by name: what it names is there. (The cluster of the tests
/// has no network that would apply it.)
#[tokio::test]
async fn the_network_policy_selects_the_control_plane() {
    let cluster = Cluster::shared();
    mesh::install(&cluster);
    let read = |what: &[&str]| -> Value {
        let get = [&["get", "--output", "json"][..], what].concat();
        serde_json::from_str(&mesh::kubectl(&cluster, &get)).unwrap()
    };
    let policy = read(&["networkpolicy/anyam-control"]);
    let labels = policy["spec"]["podSelector"]["matchLabels"]
        .as_object()
        .unwrap();
    let labels: Vec<_> = labels
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap()))
        .collect();
    let pods = read(&["pods", "--selector", &labels.join(",")]);
    let pods = pods["items"].as_array().unwrap();
    assert!(pods.len() >= 2, "{pods:#?}");
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let ports = rules
        .iter()
        .filter_map(|rule| rule["ports"].as_array())
        .flatten();
    let mut admitted = 0;
    for port in ports {
        for pod in pods {
            let declared = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
            assert!(
                declared.iter().any(|one| one["name"] == port["port"]),
                "{port}: {declared:?}"
            );
        }
        admitted += 1;
    }
    assert!(admitted >= 2, "{policy:#}");
}
