//! Clusters whose endpoints are names.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::publishing::Bench;
use crate::upstream::cluster::PickFor;
use crate::upstream::dns::Resolver;

#[test]
fn dns_clusters_are_resolved_and_ejections_end() {
    const DNS: &str = r#"
name: dns
type: STRICT_DNS
dns_refresh_rate: 1s
dns_lookup_family: V4_ONLY
outlier_detection:
  consecutive_5xx: 1
  interval: 0.3s
  base_ejection_time: 0.3s
  max_ejection_percent: 100
load_assignment:
  cluster_name: dns
  endpoints:
  - lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 7}}}}]
"#;
    let mut bench = Bench::new();
    bench.cluster(DNS);
    let store = Arc::new(bench.store);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cluster = store.load().clusters["dns"].clone();
    let mut random = fastrand::Rng::with_seed(1);
    let until = |done: &dyn Fn() -> bool| {
        runtime.block_on(async {
            let wait = async {
                while !done() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), wait)
                .await
                .unwrap();
        });
    };
    let maintenance = runtime.spawn(async move {
        crate::app::maintenance::run(&store, &Resolver::default()).await;
    });
    until(&|| cluster.endpoints.load().ready);
    let picked = cluster
        .pick(PickFor::default(), &mut random)
        .unwrap()
        .endpoint;
    assert_eq!(picked.address.to_string(), "127.0.0.1:7");
    cluster.report(
        &picked,
        crate::upstream::outlier::AttemptResult::Status(500),
        &mut random,
    );
    assert!(picked.state.is_ejected());
    until(&|| !picked.state.is_ejected());
    maintenance.abort();
}

/// The cluster `dns` whose endpoints have these names, in order.
fn with_names(names: impl IntoIterator<Item = String>) -> String {
    let host = |name: String| {
        format!("{{endpoint: {{address: {{socket_address: {{address: {name}, port_value: 7}}}}}}}}")
    };
    let hosts: Vec<_> = names.into_iter().map(host).collect();
    format!(
        "
name: dns
type: STRICT_DNS
dns_lookup_family: V4_ONLY
load_assignment:
  cluster_name: dns
  endpoints:
  - lb_endpoints: [{}]
",
        hosts.join(", ")
    )
}

#[test]
fn names_of_a_cluster_have_no_effect_on_each_other() {
    let mut bench = Bench::new();
    bench.cluster(&with_names(["bad", "slow", "good"].map(str::to_owned)));
    let cluster = bench.store.load().clusters["dns"].clone();
    let (release, released) = std::sync::mpsc::channel();
    let released = Mutex::new(released);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolver = Resolver::new(move |host| match host {
        "good" if count.fetch_add(1, Relaxed) == 0 => Ok(BTreeSet::from([[10, 0, 0, 1].into()])),
        "slow" => {
            let _ = released.lock().unwrap().recv();
            Ok(BTreeSet::from([[10, 0, 0, 2].into()]))
        }
        _ => Err(std::io::Error::other("no such name")),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let addresses = || -> Vec<String> {
        let endpoints = cluster.endpoints.load();
        endpoints
            .all()
            .map(|e| e.address.ip().to_string())
            .collect()
    };
    let soon = Duration::from_millis(50);
    runtime.block_on(async {
        resolver.warm([(cluster.clone(), None)], soon).await;
        // One name has failed and one is still looked up.
        assert_eq!(addresses(), ["10.0.0.1"]);
        release.send(()).unwrap();
        drop(release);
        while addresses().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The good one has failed as well since: its last addresses stay.
        while asked.load(Relaxed) < 2 {
            resolver.refresh(&cluster, None).await;
        }
        assert_eq!(addresses(), ["10.0.0.2", "10.0.0.1"]);
    });
}

/// A resolver that does not answer holds a lookup for 5 s and more.
#[test]
fn unanswered_names_do_not_hold_up_others() {
    const HANGING: usize = 60;
    let hanging = (0..HANGING).map(|n| format!("hangs-{n}"));
    let mut bench = Bench::new();
    bench.cluster(&with_names(hanging.chain(["good".to_owned()])));
    let cluster = bench.store.load().clusters["dns"].clone();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let resolver = Resolver::new(move |host| match host {
        "good" => Ok(BTreeSet::from([[10, 0, 0, 1].into()])),
        _ => {
            let _ = released.lock().unwrap().recv();
            Err(std::io::Error::other("no answer"))
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let known = cluster.clone();
    let found = runtime.block_on(async {
        let resolving = tokio::spawn(async move { resolver.refresh(&known, None).await });
        let waiting = async {
            while cluster.endpoints.load().all().next().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(crate::upstream::dns::FIRST, waiting).await;
        drop(release);
        resolving.await.unwrap();
        found
    });
    assert!(found.is_ok(), "the resolvable name waits for the others");
}
