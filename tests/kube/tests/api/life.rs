use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyam_tests_kube::{ApiServer, Kubectl, until};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, WatchParams};

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn objects_survive_a_restart_of_the_api_server_and_clients_reconnect() {
    let server = ApiServer::start();
    server.kubectl(&["create", "configmap", "kept", "--from-literal=k=v"]);
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    let version = maps.list(&ListParams::default()).await.unwrap();
    let version = version.metadata.resource_version.unwrap();
    let events = maps.watch(&WatchParams::default(), &version).await.unwrap();

    server.stop("apiserver");
    // The API server was stopped, so the stream ends, with an error or without.
    let rest = events
        .filter(|event| std::future::ready(event.is_ok()))
        .count();
    assert_eq!(tokio::time::timeout(TIMEOUT, rest).await.unwrap(), 0);
    assert!(maps.get("kept").await.is_err());

    server.resume("apiserver");
    let map = until("the API server to answer again", TIMEOUT, async || {
        maps.get("kept").await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(map.data.unwrap()["k"], "v");
}

#[test]
fn two_api_servers_at_once_are_independent() {
    let (one, other) = (ApiServer::start(), ApiServer::start());
    one.kubectl(&["create", "namespace", "mine"]);
    assert_eq!(
        one.try_kubectl(&["get", "namespace", "mine"]).status,
        Some(0)
    );
    let missing = other.try_kubectl(&["get", "namespace", "mine"]);
    assert!(missing.stderr.contains("NotFound"), "{missing:?}");
}

/// The folder of an API server, whose kubeconfig is in `etc`.
fn folder(server: &ApiServer) -> &Path {
    server.kubeconfig().parent().unwrap().parent().unwrap()
}

fn pids(folder: &Path) -> Vec<String> {
    let pid = |name: &str| {
        let file = std::fs::read_to_string(folder.join("run").join(name)).unwrap();
        file.split(' ').next().unwrap().to_owned()
    };
    vec![pid("etcd.pid"), pid("apiserver.pid")]
}

fn runs(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

#[test]
fn nothing_is_left_of_one_that_was_dropped() {
    let server = ApiServer::start();
    let folder = folder(&server).to_owned();
    let pids = pids(&folder);
    assert!(pids.iter().all(|pid| runs(pid)), "{pids:?}");
    drop(server);
    assert!(!pids.iter().any(|pid| runs(pid)), "{pids:?}");
    assert!(!folder.exists());
}

/// A test that was killed cannot end its API server: the next start does.
#[tokio::test]
async fn nothing_is_left_of_one_whose_owner_was_killed() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster.sh");
    let name = format!("orphan-{}", std::process::id());
    let mut owner = Command::new("sleep").arg("600").spawn().unwrap();
    let up = Command::new(script)
        .args(["up", "--api-only"])
        .env("ANYAM_KUBE_NAME", &name)
        .env("ANYAM_KUBE_OWNER", owner.id().to_string())
        .stderr(Stdio::inherit())
        .status();
    let folder = |of: &Path| of.parent().unwrap().join(&name);
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(up.unwrap().success());

    let next = ApiServer::start();
    let orphan = folder(self::folder(&next));
    assert!(!orphan.exists(), "{} is still there", orphan.display());
}
