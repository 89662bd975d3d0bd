//! SIGTERM: inbound connections end in order, outbound ones work until the app has ended. `anyam-proxy
//! drain`, before it: the same, and the process stays.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::namespace::run_in_namespace;
use crate::ports::free_port;
use crate::proxy::{Proxy, Settings, echo, http_manager, mirror, tcp_proxy, upstream};
use crate::running::TIMEOUT;

/// A proxy whose front is inbound, and the address of its outbound listener.
fn sidecar(app: SocketAddr, filters: &str, arguments: &[&str]) -> (Proxy, SocketAddr) {
    let outbound = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listener = format!(
        "traffic_direction: INBOUND
    - name: out
      traffic_direction: OUTBOUND
      address: {{ socket_address: {{ address: {}, port_value: {} }} }}
      filter_chains: [{{ filters: [{filters}] }}]",
        outbound.ip(),
        outbound.port()
    );
    let settings = Settings {
        filters,
        listener: &listener,
        arguments,
        ..Settings::default()
    };
    (Proxy::start(app, &settings), outbound)
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(to: SocketAddr) -> Self {
        let tcp = TcpStream::connect(to).unwrap();
        tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(BufReader::new(tcp))
    }

    fn send(&mut self) {
        let request = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n";
        self.0.get_mut().write_all(request).unwrap();
    }

    /// The head of the next response; its body is read too.
    fn receive(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "ended: {head}");
        }
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.lines().next().unwrap().parse().unwrap();
        self.0.read_exact(&mut vec![0; length]).unwrap();
        head
    }

    fn ask(&mut self) -> String {
        self.send();
        self.receive()
    }

    /// Waits for the connection's end.
    fn is_closed(&mut self) {
        assert_eq!(self.0.read(&mut [0; 1]).unwrap(), 0);
    }
}

/// Reads the head of a connection's only request.
fn read_head(tcp: &mut TcpStream) {
    let mut byte = [0; 1];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(tcp.read(&mut byte).unwrap(), 1);
        head.push(byte[0]);
    }
}

/// Reads a request's head, waits at `meeting`, and answers after it has waited there again.
fn slow(mut tcp: TcpStream, meeting: &Barrier) {
    read_head(&mut tcp);
    meeting.wait();
    meeting.wait();
    let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
}

const CLOSES: &str = "connection: close\r\n";

#[test]
fn inbound_drains_and_outbound_continues() {
    let (mut proxy, outbound) = sidecar(upstream(mirror), &http_manager("", ""), &[]);
    let mut idle_in = Client::connect(proxy.front);
    let mut idle_out = Client::connect(outbound);
    for client in [&mut idle_in, &mut idle_out] {
        assert!(!client.ask().contains(CLOSES));
    }
    proxy.signal(Signal::TERM);
    // Idle inbound connections are closed; later ones are served and then closed.
    idle_in.is_closed();
    assert!(!proxy.is_ready());
    for _ in 0..3 {
        let mut late = Client::connect(proxy.front);
        assert!(late.ask().contains(CLOSES));
        late.is_closed();
    }
    // The app's own calls work as before, on old and on new connections.
    let mut late_out = Client::connect(outbound);
    for _ in 0..3 {
        assert!(!idle_out.ask().contains(CLOSES));
        assert!(!late_out.ask().contains(CLOSES));
    }
    // The process ends with the last connection.
    drop((idle_out, late_out));
    assert_eq!(proxy.ended().code(), Some(0));
    assert!(TcpStream::connect(outbound).is_err());
}

/// A port of 127.0.0.1, where the command looks for a sidecar, that leads to the proxy's admin.
fn admin_on_loopback(proxy: &Proxy) -> u16 {
    let admin = proxy.admin;
    let relayed = move |mut from: TcpStream| {
        let mut to = TcpStream::connect(admin).unwrap();
        let (mut answer, mut asker) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut answer, &mut asker);
        let _ = asker.shutdown(std::net::Shutdown::Both);
    };
    upstream(relayed).port()
}

#[test]
fn the_hook_of_a_native_sidecar_drains_before_the_signal() {
    let (mut proxy, outbound) = sidecar(upstream(mirror), &http_manager("", ""), &[]);
    let mut idle_in = Client::connect(proxy.front);
    let mut idle_out = Client::connect(outbound);
    for client in [&mut idle_in, &mut idle_out] {
        assert!(!client.ask().contains(CLOSES));
    }
    let drain = |port: u16| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"));
        command
            .arg("drain")
            .env("ANYAM_ADMIN_PORT", port.to_string());
        command.output().unwrap()
    };
    let done = drain(admin_on_loopback(&proxy));
    assert!(done.status.success(), "{done:?}");
    idle_in.is_closed();
    // Until the signal it serves on, in both directions.
    assert!(Client::connect(proxy.front).ask().contains(CLOSES));
    assert!(!idle_out.ask().contains(CLOSES));
    drop(idle_out);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
    let port = free_port();
    let done = drain(port);
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        said.contains(&port.to_string()) && said.contains("does not drain"),
        "{said}"
    );
}

#[test]
fn a_request_in_progress_is_answered_before_the_end() {
    let meeting = Arc::new(Barrier::new(2));
    let with_app = meeting.clone();
    let app = upstream(move |tcp| slow(tcp, &with_app));
    let (mut proxy, _) = sidecar(app, &http_manager("", ""), &[]);
    let mut client = Client::connect(proxy.front);
    client.send();
    meeting.wait();
    proxy.signal(Signal::TERM);
    proxy.until("draining", |proxy| !proxy.is_ready());
    meeting.wait();
    assert!(client.receive().contains(CLOSES));
    client.is_closed();
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn what_the_app_keeps_open_is_cut_after_the_drain_time() {
    let arguments = ["--drain-time-s", "1"];
    let (mut proxy, outbound) = sidecar(upstream(mirror), &http_manager("", ""), &arguments);
    let mut client = Client::connect(outbound);
    client.ask();
    let began = Instant::now();
    proxy.signal(Signal::TERM);
    client.is_closed();
    assert_eq!(proxy.ended().code(), Some(0));
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "cut before its time"
    );
}

#[test]
fn relays_go_on_in_both_directions_until_they_end() {
    let (mut proxy, outbound) = sidecar(upstream(echo), &tcp_proxy(""), &[]);
    let mut both = [proxy.front, outbound].map(|to| TcpStream::connect(to).unwrap());
    let mut round_trip = || {
        for tcp in &mut both {
            tcp.write_all(b"ping").unwrap();
            tcp.read_exact(&mut [0; 4]).unwrap();
        }
    };
    round_trip();
    proxy.signal(Signal::TERM);
    proxy.until("draining", |proxy| !proxy.is_ready());
    round_trip();
    drop(both);
    assert_eq!(proxy.ended().code(), Some(0));
}

/// Runs the test below in a network namespace where nothing else listens.
#[test]
fn the_proxy_runs_until_the_app_stops_listening() {
    run_in_namespace("shutdown::beside_an_app");
}

#[test]
#[ignore = "run by the_proxy_runs_until_the_app_stops_listening"]
fn beside_an_app() {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let app = listener.local_addr().unwrap();
    let arguments = ["--wait-for-app", "true"];
    let (mut proxy, outbound) = sidecar(app, &http_manager("", ""), &arguments);
    proxy.signal(Signal::TERM);
    proxy.until("draining", |proxy| !proxy.is_ready());
    // No connection is open; new ones are served in both directions until the drain ends.
    for to in [proxy.front, outbound] {
        let mut client = Client::connect(to);
        client.send();
        let (mut tcp, _) = listener.accept().unwrap();
        read_head(&mut tcp);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        tcp.write_all(answer).unwrap();
        assert!(client.receive().starts_with("http/1.1 200 "));
    }
    // The app stops listening.
    drop(listener);
    assert_eq!(proxy.ended().code(), Some(0));
}
