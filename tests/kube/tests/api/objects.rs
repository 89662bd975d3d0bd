use std::time::Duration;

use anyam_tests_kube::{ApiServer, Kubectl};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_watch_reports_each_change_in_order() {
    let server = ApiServer::start();
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    let from = maps.list(&ListParams::default()).await.unwrap();
    let version = from.metadata.resource_version.unwrap();
    let events = maps.watch(&WatchParams::default(), &version).await.unwrap();

    let map =
        serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"k": "1"}})).unwrap();
    let mut map: ConfigMap = maps.create(&PostParams::default(), &map).await.unwrap();
    map.data.as_mut().unwrap().insert("k".into(), "2".into());
    maps.replace("m", &PostParams::default(), &map)
        .await
        .unwrap();
    maps.delete("m", &DeleteParams::default()).await.unwrap();

    let value = |map: ConfigMap| map.data.unwrap().remove("k").unwrap();
    let seen = events
        .map_ok(|event| match event {
            WatchEvent::Added(map) => format!("added {}", value(map)),
            WatchEvent::Modified(map) => format!("modified {}", value(map)),
            WatchEvent::Deleted(map) => format!("deleted {}", value(map)),
            other => format!("{other:?}"),
        })
        .take(3)
        .try_collect::<Vec<_>>();
    let seen = tokio::time::timeout(TIMEOUT, seen).await.unwrap().unwrap();
    assert_eq!(seen, ["added 1", "modified 2", "deleted 2"]);
}

#[tokio::test]
async fn concurrent_updates_of_a_lease_conflict() {
    let server = ApiServer::start();
    let leases: Api<Lease> = Api::namespaced(server.client().await, "default");
    let lease = json!({"metadata": {"name": "leader"}, "spec": {"leaseDurationSeconds": 15}});
    let lease = serde_json::from_value(lease).unwrap();
    let lease = leases.create(&PostParams::default(), &lease).await.unwrap();

    let held_by = |holder: &str| {
        let mut lease: Lease = lease.clone();
        lease.spec.as_mut().unwrap().holder_identity = Some(holder.to_owned());
        lease
    };
    let parameters = PostParams::default();
    leases
        .replace("leader", &parameters, &held_by("a"))
        .await
        .unwrap();
    let refused = leases
        .replace("leader", &parameters, &held_by("b"))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 409),
        "{refused:?}"
    );
    let holder = leases
        .get("leader")
        .await
        .unwrap()
        .spec
        .unwrap()
        .holder_identity;
    assert_eq!(holder.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_service_account_token_is_bound_to_its_audience() {
    let server = ApiServer::start();
    server.kubectl(&["create", "serviceaccount", "caller"]);
    let token = server.kubectl(&["create", "token", "caller", "--audience=anyam"]);
    let reviewed = |audience: &str| {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.trim(), "audiences": [audience]},
        });
        let answer = server.kubectl_with(&review.to_string(), &["create", "-o", "json", "-f", "-"]);
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["status"].clone()
    };
    let status = reviewed("anyam");
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:default:caller"
    );
    assert_eq!(
        reviewed("another")["authenticated"],
        serde_json::Value::Null
    );
}
