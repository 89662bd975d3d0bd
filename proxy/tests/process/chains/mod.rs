//! Which filter chain a connection gets: Envoy's nine steps as a table, held against Envoy itself.
//!
//! Each case is a listener. Its chains lead to backends that answer with the chain's name.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

mod table;

use table::{BOUND, Case, OWN, Probe};

use crate::envoy;
use crate::ports::free_port;
use crate::running::{Running, TIMEOUT};

const CHAINS: [&str; 4] = ["a", "b", "c", "d"];

/// A backend that answers each connection with `name`.
fn backend(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            std::thread::spawn(move || {
                let _ = tcp.write_all(name.as_bytes());
                let _ = tcp.read_to_end(&mut Vec::new());
            });
        }
    });
    port
}

fn socket(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}

fn chain(name: &str, mut matches: Value, own: u16, bound: u16) -> Value {
    for (_, value) in matches.as_object_mut().unwrap() {
        if *value == json!(OWN) {
            *value = json!(own);
        } else if *value == json!([BOUND]) {
            *value = json!([bound]);
        }
    }
    let api = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    json!({
        "name": name,
        "filter_chain_match": matches,
        "filters": [{ "name": "tcp", "typed_config":
            { "@type": api, "stat_prefix": name, "cluster": name } }],
    })
}

fn bootstrap(cases: &[Case], ports: &[(u16, u16)], backends: &[u16]) -> Value {
    let inspector = |name: &str, message: &str| {
        let api =
            format!("type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{message}");
        json!({ "name": name, "typed_config": { "@type": api } })
    };
    let listeners = cases.iter().zip(ports).map(|(case, (own, bound))| {
        let chains = CHAINS.iter().zip(&case.chains);
        let chains: Vec<_> = chains
            .map(|(name, matches)| chain(name, matches.clone(), *own, *bound))
            .collect();
        let mut listener = json!({
            "name": case.step,
            "address": socket("0.0.0.0", *own),
            "listener_filters": [
                inspector("tls_inspector", "TlsInspector"),
                inspector("http_inspector", "HttpInspector"),
            ],
            "filter_chains": chains,
        });
        if case.default {
            listener["default_filter_chain"] = chain("d", json!({}), *own, *bound);
        }
        listener
    });
    let listeners: Vec<_> = listeners.collect();
    let clusters = CHAINS.iter().zip(backends).map(|(name, port)| {
        let endpoint = json!({ "endpoint": { "address": socket("127.0.0.1", *port) } });
        json!({
            "name": name,
            "connect_timeout": "5s",
            "load_assignment":
                { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
        })
    });
    let clusters: Vec<_> = clusters.collect();
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

/// The chain that a connection gets.
fn ask(probe: &Probe, port: u16, bound: u16) -> Option<String> {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_reuse_address(true).unwrap();
    // A port that was bound can be again, for the next proxy.
    client.set_linger(Some(Duration::ZERO)).unwrap();
    let own = if probe.bound { bound } else { 0 };
    let from = SocketAddr::from((Ipv4Addr::from(probe.from), own));
    client.bind(&from.into()).unwrap();
    let to = SocketAddr::from((Ipv4Addr::from(probe.to), port));
    client.connect(&to.into()).unwrap();
    let mut tcp = TcpStream::from(client);
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    tcp.write_all(&probe.says).unwrap();
    let mut name = [0];
    match tcp.read(&mut name) {
        Ok(1) => Some(String::from_utf8_lossy(&name).into_owned()),
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("no answer: {error}"),
    }
}

/// Starts a proxy and waits until all of its listeners are open.
fn run(command: &mut Command, ports: &[(u16, u16)]) -> Running {
    let running = Running::start(
        command
            .args(["--concurrency", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null()),
    );
    for (port, _) in ports {
        running.until("listening", || {
            TcpStream::connect(("127.0.0.1", *port)).ok()
        });
    }
    running
}

fn hold(who: &str, cases: &[Case], ports: &[(u16, u16)]) {
    for (case, (port, bound)) in cases.iter().zip(ports) {
        for (number, (probe, wanted)) in case.probes.iter().enumerate() {
            let got = ask(probe, *port, *bound);
            let step = case.step;
            assert_eq!(got.as_deref(), *wanted, "{who}, {step}, probe {number}");
        }
    }
}

#[test]
fn nine_steps_as_envoy_takes_them() {
    let mut cases = table::by_destination();
    cases.extend(table::by_source());
    cases.extend(table::by_first_bytes());
    cases.extend(table::by_order_of_steps());
    let ports: Vec<_> = cases.iter().map(|_| (free_port(), free_port())).collect();
    let backends = CHAINS.map(backend);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.json");
    std::fs::write(&path, bootstrap(&cases, &ports, &backends).to_string()).unwrap();
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"));
        command.arg("-c").arg(&path);
        let _proxy = run(&mut command, &ports);
        hold("Anyam", &cases, &ports);
    }
    let mut command = Command::new(envoy::program());
    command
        .arg("-c")
        .arg(&path)
        .args(["-l", "off", "--use-dynamic-base-id"]);
    let _envoy = run(&mut command, &ports);
    hold("Envoy", &cases, &ports);
}
