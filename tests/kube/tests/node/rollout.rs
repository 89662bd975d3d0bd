//! Pods that come and go under load lose no request.

use anyam_tests_kube::{Cluster, Kubectl};

use crate::shop::{self, Shop, WEB};

#[tokio::test]
async fn a_rolling_update_loses_no_request() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    let load = shop.load(WEB);
    for _ in 0..2 {
        shop.namespace.restart("web");
    }
    load.end().lost_nothing();
}

#[tokio::test]
async fn pods_that_come_and_go_lose_no_request() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    let load = shop.load(WEB);
    for replicas in ["4", "1", "2"] {
        let scale = ["scale", "deployment/web", "--replicas", replicas];
        shop.namespace.kubectl(&scale);
        shop.namespace.rolled_out("web");
    }
    let name = &shop.pod_names("web")[0];
    shop.namespace.kubectl(&["delete", "pod", name, "--wait"]);
    shop.namespace.rolled_out("web");
    load.end().lost_nothing();
}

/// Callers in the mesh find another pod where one that has no sidecar cannot be connected to.
#[tokio::test]
async fn pods_without_sidecars_are_replaced_without_loss_for_the_mesh() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    let outside = Shop::open(&cluster, false);
    let url = format!("http://web.{}/", outside.namespace.name);
    shop.answers(&url, "web\n").await;
    let load = shop.load(&url);
    outside.namespace.restart("web");
    load.end().lost_nothing();
}

/// A caller outside cannot try another pod: the app is to serve until no caller is sent to it any
/// more, with or without a mesh.
#[tokio::test]
async fn callers_without_sidecars_lose_nothing_where_the_app_serves_on() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    let outside = Shop::open(&cluster, false);
    let serves_on = ", lifecycle: {preStop: {sleep: {seconds: 5}}}";
    let patient = [
        shop::deployment("patient", 2, serves_on),
        shop::service("patient"),
    ]
    .concat();
    shop.namespace.apply(&patient);
    shop.namespace.rolled_out("patient");
    let url = format!("http://patient.{}/", shop.namespace.name);
    outside.answers(&url, "patient\n").await;
    let load = outside.load(&url);
    shop.namespace.restart("patient");
    load.end().lost_nothing();
}
