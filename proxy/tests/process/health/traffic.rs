//! What health does to requests, and requests to health, beside Envoy.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use super::host::flags;
use super::{BOTH, admin_of, bootstrap, check, endpoint, http_check, merge};
use crate::filters::side::Side;

/// A server whose answers to checks are switched, and which names itself in its answers to requests.
struct Server {
    address: SocketAddr,
    healthy: Arc<AtomicBool>,
    /// Its answers to requests say that there are to be no more.
    leaving: Arc<AtomicBool>,
    /// Checks that it has answered.
    checks: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            healthy: Arc::new(AtomicBool::new(true)),
            leaving: Arc::default(),
            checks: Arc::default(),
        };
        let (healthy, leaving) = (server.healthy.clone(), server.leaving.clone());
        let checks = server.checks.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let (tcp, healthy, leaving) = (tcp.unwrap(), healthy.clone(), leaving.clone());
                let checks = checks.clone();
                std::thread::spawn(move || serve(tcp, &healthy, &leaving, &checks));
            }
        });
        server
    }
}

fn serve(tcp: TcpStream, healthy: &AtomicBool, leaving: &AtomicBool, checks: &AtomicUsize) {
    let own = tcp.local_addr().unwrap();
    let mut writer = tcp.try_clone().unwrap();
    let mut is_check = false;
    for line in BufReader::new(tcp).lines() {
        let Ok(line) = line else { return };
        is_check |= line.contains("/healthz");
        if !line.is_empty() {
            continue;
        }
        let (status, more) = match is_check {
            true if healthy.load(SeqCst) => (200, ""),
            true => (503, ""),
            false if leaving.load(SeqCst) => (200, "x-envoy-immediate-health-check-fail: true\r\n"),
            false => (200, ""),
        };
        checks.fetch_add(usize::from(is_check), SeqCst);
        is_check = false;
        let answer =
            format!("HTTP/1.1 {status} A\r\nx-from: {own}\r\n{more}content-length: 0\r\n\r\n");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// The endpoint that answers a request; `None`: the proxy itself does.
fn from(side: &Side) -> Option<String> {
    let seen = side.ask(GET);
    let found = seen.headers.into_iter().find(|(name, _)| name == "x-from");
    found.map(|(_, value)| value)
}

fn until_flags(side: &Side, server: &Server, wanted: &str) {
    let admin = admin_of(side.front());
    side.until(wanted, |_| {
        let flags = flags(admin, server.address)?;
        (flags == wanted).then_some(())
    });
}

fn cluster(more: Value) -> Value {
    let mut cluster = json!({
        "health_checks": [check(http_check(json!({})))],
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
    });
    merge(&mut cluster, &more);
    cluster
}

#[test]
fn requests_go_to_hosts_that_pass() {
    for start in BOTH {
        let servers = [Server::start(), Server::start()];
        servers[0].healthy.store(false, SeqCst);
        let endpoints = servers.each_ref().map(|server| endpoint(server.address));
        let more = cluster(json!({}));
        let side = start(&|front, _| bootstrap(front, &endpoints, &more));
        until_flags(&side, &servers[0], "/failed_active_hc");
        until_flags(&side, &servers[1], "healthy");
        let only = |server: &Server| {
            let own = Some(server.address.to_string());
            side.until("only one", |side| {
                (0..6).all(|_| from(side) == own).then_some(())
            });
        };
        only(&servers[1]);
        servers[0].healthy.store(true, SeqCst);
        servers[1].healthy.store(false, SeqCst);
        until_flags(&side, &servers[0], "healthy");
        until_flags(&side, &servers[1], "/failed_active_hc");
        only(&servers[0]);
        servers[0].healthy.store(false, SeqCst);
        until_flags(&side, &servers[0], "/failed_active_hc");
        side.until("none", |side| (side.ask(GET).status == 503).then_some(()));
    }
}

/// A listener opens once its cluster's hosts have had a result each: no request meets a cluster of
/// which nothing is known, which would be in panic.
#[test]
fn a_start_waits_for_the_first_results() {
    for start in BOTH {
        let servers = [Server::start(), Server::start()];
        servers[0].healthy.store(false, SeqCst);
        let endpoints = servers.each_ref().map(|server| endpoint(server.address));
        let more = cluster(json!({"common_lb_config": {"healthy_panic_threshold": {"value": 50}}}));
        let side = start(&|front, _| bootstrap(front, &endpoints, &more));
        for _ in 0..4 {
            assert_eq!(from(&side), Some(servers[1].address.to_string()));
        }
    }
}

#[test]
fn an_answer_to_a_request_takes_its_host_out() {
    for start in BOTH {
        let servers = [Server::start(), Server::start()];
        servers[0].leaving.store(true, SeqCst);
        // It does not say so to checks, which come later.
        let mut slow = check(json!({"interval": "60s", "no_traffic_interval": "60s"}));
        merge(&mut slow, &http_check(json!({})));
        let endpoints = servers.each_ref().map(|server| endpoint(server.address));
        let more = cluster(json!({"health_checks": [slow]}));
        let side = start(&|front, _| bootstrap(front, &endpoints, &more));
        for _ in 0..2 {
            from(&side);
        }
        until_flags(
            &side,
            &servers[0],
            "/failed_active_hc/excluded_via_immediate_hc_fail",
        );
        side.until("the other one", |side| {
            (0..4)
                .all(|_| from(side) == Some(servers[1].address.to_string()))
                .then_some(())
        });
    }
}

#[test]
fn a_success_ends_an_ejection_unless_it_is_not_to() {
    for start in BOTH {
        for unejects in [true, false] {
            let server = Server::start();
            let more = cluster(json!({"outlier_detection": {
                "consecutive_local_origin_failure": 1, "split_external_local_origin_errors": true,
                "consecutive_5xx": 1, "max_ejection_percent": 100, "base_ejection_time": "60s",
                "successful_active_health_check_uneject_host": unejects,
            }, "health_checks": [check(json!({
                "http_health_check": {"path": "/healthz"},
                "interval": "0.5s", "no_traffic_interval": "0.5s",
            }))]}));
            // Checked at the server, and requests go where there is none.
            let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
            let mut one = endpoint(nowhere);
            one["endpoint"]["health_check_config"] = json!({"port_value": server.address.port()});
            let side = start(&|front, _| bootstrap(front, &[one.clone()], &more));
            let admin = admin_of(side.front());
            let is = |wanted: &str| (flags(admin, nowhere)? == wanted).then_some(());
            side.until("healthy", |_| is("healthy"));
            assert_eq!(side.ask(GET).status, 503);
            match unejects {
                true => {
                    side.until("back", |_| is("healthy"));
                }
                false => {
                    let ejected = "/failed_outlier_check";
                    side.until("ejected", |_| is(ejected));
                    let seen = server.checks.load(SeqCst);
                    let more = || server.checks.load(SeqCst) > seen + 2;
                    side.until("more checks", |_| more().then_some(()));
                    assert!(is(ejected).is_some());
                }
            }
        }
    }
}
