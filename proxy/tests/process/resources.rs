//! Descriptors run out, and are freed; a process gets SIGTERM, and a second one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::proxy::{Proxy, Settings, echo, tcp_proxy, upstream};
use crate::running::TIMEOUT;

/// Enough for the process itself and some ten relayed connections.
const DESCRIPTORS: usize = 64;
const CLIENTS: usize = 60;

fn connect(to: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    tcp
}

fn round_trip(tcp: &mut TcpStream) -> std::io::Result<()> {
    tcp.write_all(b"ping")?;
    tcp.read_exact(&mut [0; 4])
}

#[test]
fn without_descriptors_open_connections_continue_and_new_ones_wait() {
    let settings = Settings {
        filters: &tcp_proxy(""),
        descriptors: Some(DESCRIPTORS),
        ..Settings::default()
    };
    let proxy = Proxy::start(upstream(echo), &settings);
    let mut first = connect(proxy.front);
    round_trip(&mut first).unwrap();
    // All of these are established by the kernel; only some can be accepted.
    let waiting: Vec<_> = (0..CLIENTS).map(|_| connect(proxy.front)).collect();
    proxy.until("there are no descriptors", |proxy| {
        proxy.metric("anyam_listener_accept_errors_total") > 0.0
    });
    for _ in 0..20 {
        round_trip(&mut first).unwrap();
        // Probes use descriptors of their own.
        assert!(proxy.is_ready());
    }
    drop(waiting);
    // Descriptors are free: new connections are served, and the pause was counted.
    proxy.until("a new connection is served", |proxy| {
        round_trip(&mut connect(proxy.front)).is_ok()
    });
    round_trip(&mut first).unwrap();
    let pauses = proxy.metric("anyam_listener_accept_errors_total");
    // One that spins would count thousands.
    assert!((1.0..100.0).contains(&pauses), "{pauses} pauses");
}

/// A proxy that received `signal`, and a connection that was open before and still works.
fn draining(signal: Signal) -> (Proxy, TcpStream) {
    let settings = Settings {
        filters: &tcp_proxy(""),
        ..Settings::default()
    };
    let proxy = Proxy::start(upstream(echo), &settings);
    let mut open = connect(proxy.front);
    round_trip(&mut open).unwrap();
    proxy.signal(signal);
    proxy.until("draining", |proxy| !proxy.is_ready());
    round_trip(&mut open).unwrap();
    (proxy, open)
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let (mut proxy, mut open) = draining(signals[0]);
        proxy.signal(signals[1]);
        assert_eq!(proxy.ended().code(), Some(143));
        assert!(!matches!(open.read(&mut [0]), Ok(1..)));
    }
}

#[test]
fn a_drain_ends_by_itself_when_nothing_is_left() {
    let (mut proxy, open) = draining(Signal::TERM);
    drop(open);
    assert_eq!(proxy.ended().code(), Some(0));
}
