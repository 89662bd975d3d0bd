//! Pods that are killed, crash, or do not get ready.

use std::time::Duration;

use anyam_tests_kube::{Cluster, Kubectl, until};
use serde_json::Value;

use crate::shop::{Shop, WEB};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Requests to one of two pods that are under way at a time, generously, at 50 a second.
const UNDER_WAY: u64 = 5;

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|one| one["type"] == "Ready");
    ready.any(|one| one["status"] == "True")
}

/// Requests that the app was processing when it was killed fail. A request that did not reach the app
/// is sent to another pod.
#[tokio::test]
async fn a_pod_that_is_killed_costs_only_requests_under_way() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    let load = shop.load(WEB);
    let killed = &shop.pod_names("web")[0];
    let delete = ["delete", "pod", killed, "--force", "--grace-period=0"];
    shop.namespace.kubectl(&delete);
    until("a new pod in its place", TIMEOUT, async || {
        let pods = shop.pods("web");
        let is_new = |pod: &Value| pod["metadata"]["name"] != **killed && is_ready(pod);
        match pods.iter().filter(|pod| is_new(pod)).count() {
            2 => Ok(()),
            _ => Err(format!("{:?}", shop.pod_names("web"))),
        }
    })
    .await;
    let tally = load.end();
    assert!(tally.failed <= UNDER_WAY, "{tally:?}");
    assert!(tally.answered > 50, "{tally:?}");
    shop.requests(WEB, 100).lost_nothing();
}

#[tokio::test]
async fn an_app_that_crashes_costs_only_requests_under_way() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    let load = shop.load(WEB);
    let name = &shop.pod_names("web")[0];
    // It does not answer.
    shop.get_from(&format!("pod/{name}"), "http://127.0.0.1:8080/exit");
    until("the app to run again", TIMEOUT, async || {
        let pods = shop.pods("web");
        let pod = pods
            .iter()
            .find(|pod| pod["metadata"]["name"] == **name)
            .unwrap();
        let status = &pod["status"]["containerStatuses"][0];
        match status["restartCount"] == 1 && status["ready"] == true {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    })
    .await;
    let tally = load.end();
    assert!(tally.failed <= UNDER_WAY, "{tally:?}");
    assert!(tally.answered > 50, "{tally:?}");
    shop.requests(WEB, 100).lost_nothing();
}

#[tokio::test]
async fn a_pod_that_is_not_ready_gets_no_requests_until_it_is_again() {
    let cluster = Cluster::shared();
    let shop = Shop::in_the_mesh(&cluster).await;
    let load = shop.load(WEB);
    let pod = &shop.pod_names("web")[0];
    let say = |what: &str| {
        let url = format!("http://127.0.0.1:8080/readiness/{what}");
        let answer = shop.get_from(&format!("pod/{pod}"), &url);
        assert_eq!(answer.status, Some(0), "{answer:?}");
    };
    let served = |expected: bool| {
        let tally = shop.requests(WEB, 50);
        tally.lost_nothing();
        match tally.by.contains_key(pod) == expected {
            true => Ok(()),
            false => Err(format!("{:?}", tally.by)),
        }
    };
    assert_eq!(served(true), Ok(()));
    say("fail");
    until("requests to go elsewhere", TIMEOUT, async || served(false)).await;
    assert_eq!(served(false), Ok(()));
    say("pass");
    until("requests to come back", TIMEOUT, async || served(true)).await;
    load.end().lost_nothing();
}
