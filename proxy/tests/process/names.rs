//! STRICT_DNS and LOGICAL_DNS: what is ready has its names, and a name has no effect on another.

use std::time::{Duration, Instant};

use crate::proxy::{Proxy, Settings, ask, discovery, http_manager, mirror, upstream};

/// A label may have 63 bytes: every resolver refuses it without asking.
const BAD: &str = "a0123456789012345678901234567890123456789012345678901234567890123456789.invalid";
/// Names are resolved again every second.
const ROUNDS: Duration = Duration::from_millis(2500);

fn start(kind: &str, hosts: &[&str]) -> Proxy {
    let app = upstream(mirror);
    let hosts: Vec<_> = hosts.iter().map(|host| (*host, app.port())).collect();
    let settings = Settings {
        filters: &http_manager("", ""),
        discovery: &discovery(kind, &hosts),
        ..Settings::default()
    };
    Proxy::start(app, &settings)
}

fn status(proxy: &Proxy) -> String {
    let request = "GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n";
    let answer = ask(proxy.front, request).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn ready_means_that_names_are_known() {
    for kind in ["STRICT_DNS", "LOGICAL_DNS"] {
        assert_eq!(status(&start(kind, &["localhost"])), "200", "{kind}");
    }
}

#[test]
fn a_name_that_does_not_resolve_leaves_the_other_s_endpoints() {
    for hosts in [[BAD, "localhost"], ["localhost", BAD]] {
        let proxy = start("STRICT_DNS", &hosts);
        assert_eq!(status(&proxy), "200", "{hosts:?}");
        // Resolved again, it is still so.
        let began = Instant::now();
        while began.elapsed() < ROUNDS {
            assert_eq!(status(&proxy), "200", "{hosts:?}");
        }
    }
}

#[test]
fn a_name_that_never_resolves_does_not_hold_up_the_start() {
    assert_eq!(status(&start("STRICT_DNS", &[BAD])), "503");
}
