use std::time::{Duration, Instant};

use anyam_tests_kube::{Kubectl, until};

use super::harness::{Bench, Control, NAMESPACE, TIMEOUT};

/// The pod that holds the Lease; empty: none.
fn holder(bench: &Bench) -> String {
    let get = ["get", "lease", "anyam-control", "--namespace", NAMESPACE];
    let path = ["--output=jsonpath={.spec.holderIdentity}"];
    let found = bench.server.try_kubectl(&[&get[..], &path].concat()).stdout;
    found.split('_').next().unwrap_or_default().to_owned()
}

async fn leads(bench: &Bench, control: &Control) {
    until(&format!("{} to lead", control.name), TIMEOUT, async || {
        let now = holder(bench);
        if now == control.name {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
}

/// Waits for a write that only the leader does.
async fn writes(bench: &Bench, namespace: &str) {
    bench.namespace(namespace, &[]);
    bench.root(namespace).await;
}

#[tokio::test]
async fn another_replica_leads_after_the_lease_or_at_once_after_a_shutdown() {
    let bench = Bench::start();
    let mut first = bench.control("first", &[]).await;
    leads(&bench, &first).await;
    let mut second = bench.control("second", &[]).await;
    writes(&bench, "a").await;
    assert_eq!(holder(&bench), "first");

    first.kill();
    let killed = Instant::now();
    leads(&bench, &second).await;
    // Not before the Lease is over, which was renewed at most two seconds and a call before.
    assert!(
        killed.elapsed() > Duration::from_secs(10),
        "{:?}",
        killed.elapsed()
    );
    writes(&bench, "b").await;

    let third = bench.control("third", &[]).await;
    assert_eq!(holder(&bench), "second");
    second.terminate();
    let released = Instant::now();
    leads(&bench, &third).await;
    // A retry period with its jitter, not the Lease's duration.
    assert!(
        released.elapsed() < Duration::from_secs(10),
        "{:?}",
        released.elapsed()
    );
    writes(&bench, "c").await;
    // The first was killed, the second removed its own.
    assert_eq!(bench.temporary_folders(), 1);
    for control in [&first, &second, &third] {
        control.assert_rights();
    }
}

/// A leader that cannot renew must stop before another may begin.
#[tokio::test]
async fn a_leader_without_the_api_server_steps_down_and_leads_again() {
    let bench = Bench::start();
    let control = bench.control("first", &[]).await;
    leads(&bench, &control).await;
    bench.server.stop("apiserver");
    let stopped = Instant::now();
    control.logs("leads no more").await;
    assert!(
        stopped.elapsed() < Duration::from_secs(14),
        "{:?}",
        stopped.elapsed()
    );
    bench.server.resume("apiserver");
    until("the API server", TIMEOUT, async || {
        let found = bench.server.try_kubectl(&["get", "namespaces"]);
        if found.status == Some(0) {
            Ok(())
        } else {
            Err(found.stderr)
        }
    })
    .await;
    writes(&bench, "a").await;
}
