//! Keys that are fetched.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use super::{bearer, rule};
use crate::filters::side::Side;
use crate::filters::tokens::Issuer;
use crate::filters::upstream::Reflector;
use crate::filters::{Scenario, cluster, get};

/// Serves a key set over HTTP/1, from the second request on, and counts requests.
fn key_server(issuer: &Issuer) -> (SocketAddr, Arc<AtomicUsize>) {
    let (jwks, count) = (issuer.jwks(), Arc::<AtomicUsize>::default());
    let counted = count.clone();
    let address = crate::proxy::upstream(move |tcp| {
        let mut writer = tcp.try_clone().unwrap();
        let mut lines = BufReader::new(tcp).lines();
        while let Some(Ok(start)) = lines.next() {
            let mut host = String::new();
            for line in lines.by_ref().map_while(Result::ok) {
                match line.strip_prefix("host: ") {
                    Some(value) => value.clone_into(&mut host),
                    None if line.is_empty() => break,
                    None => {}
                }
            }
            let first = counted.fetch_add(1, SeqCst) == 0;
            let is_right = start == "GET /keys?v=1 HTTP/1.1" && host == "keys.test:81";
            let status = if first || !is_right { 503 } else { 200 };
            let length = jwks.len();
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{jwks}");
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (address, count)
}

fn remote(more: Value) -> Value {
    let mut remote = json!({
        "http_uri": {"uri": "http://keys.test:81/keys?v=1", "cluster": "keys", "timeout": "5s"},
        "cache_duration": "600s",
    });
    for (field, value) in more.as_object().unwrap() {
        remote[field] = value.clone();
    }
    json!({"issuer": "shop", "remote_jwks": remote, "failed_status_in_metadata": "failed"})
}

fn remote_scenario(provider: Value, keys: SocketAddr) -> Scenario {
    let mut scenario = super::scenario(json!({
        "providers": {"one": provider},
        "rules": [rule("/", json!({"provider_name": "one"}))],
    }));
    scenario.clusters = json!([cluster("keys", keys)]);
    scenario
}

#[test]
fn keys_are_fetched_when_they_are_needed_and_kept() {
    let issuer = Issuer::new();
    let upstream = Reflector::start();
    let token = bearer(&issuer.token(json!({})));
    let mut seen = Vec::new();
    for start in [Side::anyam, Side::envoy] {
        let (keys, count) = key_server(&issuer);
        let side = start(&remote_scenario(remote(json!({})), keys), upstream.address);
        let mut answers = Vec::new();
        for (headers, fetched) in [
            ("", 0),
            ("authorization: Bearer x\r\n", 0),
            (&*token, 1),
            (&*token, 2),
            (&*token, 2),
        ] {
            answers.push(side.ask(&get("/", headers)));
            assert_eq!(count.load(SeqCst), fetched, "{headers}");
        }
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [401, 401, 401, 200, 200]);
        seen.push((answers, side.log(5)));
    }
    assert_eq!(seen[0], seen[1], "Anyam | Envoy");
}

/// With `async_fetch`, and retries, the keys are there, or soon, without a request that needs them.
#[test]
fn keys_are_fetched_ahead_and_again_after_a_failure() {
    let issuer = Issuer::new();
    let upstream = Reflector::start();
    let token = bearer(&issuer.token(json!({})));
    for more in [
        json!({"async_fetch": {"failed_refetch_duration": "0.05s", "fast_listener": true}}),
        json!({"retry_policy": {"num_retries": 2, "retry_back_off": {"base_interval": "0.02s"}}}),
    ] {
        let is_ahead = more.get("async_fetch").is_some();
        for is_ours in [true, false] {
            let (keys, count) = key_server(&issuer);
            let start = if is_ours { Side::anyam } else { Side::envoy };
            let side = start(
                &remote_scenario(remote(more.clone()), keys),
                upstream.address,
            );
            if is_ahead {
                side.until("fetched", |_| (count.load(SeqCst) >= 2).then_some(()));
                side.until("verified", |side| {
                    (side.ask(&get("/", &token)).status == 200).then_some(())
                });
            }
            assert_eq!(side.ask(&get("/", &token)).status, 200);
            let fetched = count.load(SeqCst);
            // Envoy fetches once more at times.
            assert!(fetched == 2 || !is_ours, "{fetched}");
        }
    }
}

/// A key server that does not answer fails the request in the time that is configured, and a cluster
/// that is not there fails it at once.
#[test]
fn without_keys_requests_are_refused() {
    let issuer = Issuer::new();
    let upstream = Reflector::start();
    let token = bearer(&issuer.token(json!({})));
    let silent = crate::proxy::upstream(|tcp| {
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut &tcp, &mut all);
    });
    let mut slow = remote(json!({}));
    slow["remote_jwks"]["http_uri"]["timeout"] = "0.2s".into();
    let mut unknown = remote(json!({}));
    unknown["remote_jwks"]["http_uri"]["cluster"] = "unknown".into();
    for provider in [slow, unknown] {
        let scenario = remote_scenario(provider, silent);
        let ours = Side::anyam(&scenario, upstream.address);
        let stock = Side::envoy(&scenario, upstream.address);
        let (ours, stock) = (ours.ask(&get("/", &token)), stock.ask(&get("/", &token)));
        assert_eq!(ours, stock, "Anyam | Envoy");
        assert_eq!(
            (ours.status, &*ours.body),
            (401, "Jwks remote fetch is failed")
        );
    }
}
