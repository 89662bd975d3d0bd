//! More connections than the limits allow: which are accepted, which are closed for them, and
//! what metrics and health show meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::proxy::{Proxy, Settings, echo, http_manager, tcp_proxy, upstream};
use crate::running::TIMEOUT;

/// The extension that `anyam-proxy sidecar` writes; 0: as many as fit.
fn limit(most: u64) -> String {
    format!(
        r#"bootstrap_extensions: [{{ name: limit, typed_config: {{
          "@type": type.googleapis.com/anyam.bootstrap.v1.ConnectionLimit,
          listener: front, max_connections: {most} }} }}]"#
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    tcp
}

/// Answers, except to requests that ask it to wait.
fn app(mut tcp: TcpStream) {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = tcp.read(&mut piece) {
        head.extend(&piece[..count]);
        if head.ends_with(b"\r\n\r\n") && !head.starts_with(b"GET /wait") {
            head.clear();
            if tcp
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .is_err()
            {
                return;
            }
        }
    }
}

fn request(tcp: &mut TcpStream) -> std::io::Result<()> {
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut piece = [0; 1024];
        match tcp.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => answer.extend(&piece[..count]),
        }
    }
    Ok(())
}

/// Whether the other side has ended it.
fn is_over(tcp: &mut TcpStream) -> bool {
    tcp.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match tcp.read(&mut [0]) {
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        Ok(count) => count == 0,
    }
}

#[test]
fn idle_connections_make_room_the_oldest_first_and_busy_ones_stay() {
    let settings = Settings {
        filters: &http_manager("", ""),
        bootstrap: &limit(20),
        ..Settings::default()
    };
    let proxy = Proxy::start(upstream(app), &settings);
    let mut busy = connect(proxy.front);
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: app\r\n\r\n")
        .unwrap();
    let mut idle: Vec<_> = (0..17).map(|_| connect(proxy.front)).collect();
    for tcp in &mut idle {
        request(tcp).unwrap();
    }
    // New connections are served, however many are idle.
    proxy.until("idle connections make room", |proxy| {
        request(&mut connect(proxy.front)).unwrap();
        proxy.metric("anyam_listener_idle_closed_total") > 0.0
    });
    proxy.until("the oldest is closed", |_| is_over(&mut idle[0]));
    assert!(!is_over(&mut busy), "a request was cut");
    assert!(idle.iter_mut().any(|tcp| !is_over(tcp)), "all were closed");
}

#[test]
fn connections_leave_descriptors_for_the_app_s_own() {
    let descriptors = 400;
    let settings = Settings {
        filters: &tcp_proxy(""),
        bootstrap: &limit(0),
        descriptors: Some(descriptors),
        ..Settings::default()
    };
    let proxy = Proxy::start(upstream(echo), &settings);
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..150 {
        let mut tcp = connect(proxy.front);
        let served = tcp
            .write_all(b"ping")
            .and_then(|()| tcp.read_exact(&mut [0; 4]));
        match served {
            Ok(()) => open.push(tcp),
            Err(_) => refused += 1,
        }
    }
    // Half of what is not the process's own, at two a connection.
    assert_eq!((open.len(), refused), (68, 82));
    assert_eq!(proxy.metric("anyam_listener_refused_total"), 82.0);
    assert_eq!(proxy.metric("anyam_listener_accept_errors_total"), 0.0);
    let used = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    assert!(used.count() < descriptors / 2 + 128);
}

/// What a database connection carries shows while it is open.
#[test]
fn bytes_of_an_open_connection_show() {
    let settings = Settings {
        filters: &tcp_proxy(""),
        ..Settings::default()
    };
    let proxy = Proxy::start(upstream(echo), &settings);
    let mut open = connect(proxy.front);
    for round in 1..=2 {
        open.write_all(b"ping").unwrap();
        open.read_exact(&mut [0; 4]).unwrap();
        proxy.until("its bytes show", |proxy| {
            let names = ["sent_bytes", "received_bytes", "connections_opened"];
            let [sent, received, opened] =
                names.map(|name| proxy.metric(&format!("istio_tcp_{name}_total")));
            sent == 4.0 * f64::from(round) && received == sent && opened == 1.0
        });
    }
    assert_eq!(proxy.metric("istio_tcp_connections_closed_total"), 0.0);
    drop(open);
    proxy.until("it is closed", |proxy| {
        proxy.metric("istio_tcp_connections_closed_total") == 1.0
    });
    assert_eq!(proxy.metric("istio_tcp_sent_bytes_total"), 8.0);
}
