//! What is taken off `Host`, beside Envoy.

use std::path::PathBuf;
use std::time::Duration;

use anyam_proxy::config::http::StripPort;
use tokio::net::TcpStream;

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, h1, ok};

/// What the app is called by: rows that hold for Envoy too.
const HOSTS: [(&str, &str, &str, &str); 8] = [
    // As received; any port; the listener's port and trailing dots; trailing dots.
    ("Shop:8080", "Shop", "Shop:8080", "Shop:8080"),
    ("shop:OWN", "shop", "shop", "shop:OWN"),
    ("shop.", "shop.", "shop", "shop"),
    ("shop.:OWN", "shop.", "shop", "shop:OWN"),
    ("shop.:8080", "shop.", "shop:8080", "shop:8080"),
    ("[::1]:OWN", "[::1]", "[::1]", "[::1]:OWN"),
    ("shop:80", "shop", "shop:80", "shop:80"),
    ("shop", "shop", "shop", "shop"),
];

async fn host_seen(address: std::net::SocketAddr, host: &str) -> String {
    let mut client = Client::connect(address).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let answer = client.ask(&request).await;
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn says_its_host() -> std::net::SocketAddr {
    h1(|request| {
        let host = request.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("host").then_some(value)
        });
        ok(host.unwrap())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stripped_of_the_host_the_app_does_not_see() {
    let upstream = says_its_host().await;
    for which in 0..3 {
        let proxy = Proxy::start(Setup::new(upstream).with(|setup| {
            setup.manager.strip_port = match which {
                0 => StripPort::Any,
                1 => StripPort::Matching,
                _ => StripPort::Keep,
            };
            setup.manager.strip_trailing_host_dot = which > 0;
        }));
        let own = proxy.address.port().to_string();
        for (asked, any, matching, dots) in HOSTS {
            let wanted = [any, matching, dots][which].replace("OWN", &own);
            let seen = host_seen(proxy.address, &asked.replace("OWN", &own)).await;
            assert_eq!(seen, wanted, "{asked} {which}");
        }
    }
}

/// The same table before Envoy itself.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_strips_the_same() {
    let envoy = std::env::var_os("ANYAM_ENVOY").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache/venv/bin/envoy"),
        PathBuf::from,
    );
    assert!(
        envoy.exists(),
        "{} is missing: run tests/prerequisites.sh root test",
        envoy.display()
    );
    let upstream = says_its_host().await;
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let folder = tempfile::tempdir().unwrap();
    let bootstrap = folder.path().join("envoy.json");
    std::fs::write(&bootstrap, envoy_bootstrap(upstream.port(), &ports)).unwrap();
    let _envoy = tokio::process::Command::new(envoy)
        .arg("-c")
        .arg(&bootstrap)
        .args(["--concurrency", "1", "-l", "off", "--use-dynamic-base-id"])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for (which, port) in ports.iter().enumerate() {
        let address = ([127, 0, 0, 1], *port).into();
        let serving = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let served = tokio::time::timeout(Duration::from_secs(60), serving).await;
        assert!(served.is_ok(), "Envoy does not serve");
        for (asked, any, matching, dots) in HOSTS {
            let own = port.to_string();
            let wanted = [any, matching, dots][which].replace("OWN", &own);
            let seen = host_seen(address, &asked.replace("OWN", &own)).await;
            assert_eq!(seen, wanted, "{asked} {which}");
        }
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn envoy_bootstrap(upstream: u16, ports: &[u16]) -> String {
    let socket = |port: u16| {
        format!(r#"{{"socket_address":{{"address":"127.0.0.1","port_value":{port}}}}}"#)
    };
    let options = [
        r#""strip_any_host_port":true"#,
        r#""strip_matching_host_port":true,"strip_trailing_host_dot":true"#,
        r#""strip_trailing_host_dot":true"#,
    ];
    let api = "type.googleapis.com/envoy.extensions.filters";
    let listeners = ports.iter().zip(options).map(|(port, options)| {
        format!(
            r#"{{"name":"{port}","address":{},"filter_chains":[{{"filters":[{{"name":"hcm",
            "typed_config":{{"@type":"{api}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix":"x",{options},
            "route_config":{{"virtual_hosts":[{{"name":"all","domains":["*"],
              "routes":[{{"match":{{"prefix":"/"}},"route":{{"cluster":"c"}}}}]}}]}},
            "http_filters":[{{"name":"router",
              "typed_config":{{"@type":"{api}.http.router.v3.Router"}}}}]}}}}]}}]}}"#,
            socket(*port)
        )
    });
    let listeners: Vec<_> = listeners.collect();
    format!(
        r#"{{"static_resources":{{"listeners":[{}],"clusters":[{{"name":"c","connect_timeout":"1s",
        "load_assignment":{{"cluster_name":"c","endpoints":[{{"lb_endpoints":[{{"endpoint":
        {{"address":{}}}}}]}}]}}}}]}}}}"#,
        listeners.join(","),
        socket(upstream)
    )
}
