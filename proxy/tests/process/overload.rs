//! More connections than the limits allow, in either direction: which are accepted, which are
//! closed for them, and what metrics and health report meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

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
        // As many shells set it.
        soft_descriptors: Some(200),
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
    // Half of what is neither the process's own nor an eighth for pipes, at two a connection.
    assert_eq!((open.len(), refused), (55, 95));
    assert_eq!(proxy.metric("anyam_listener_refused_total"), 95.0);
    assert_eq!(proxy.metric("anyam_listener_accept_errors_total"), 0.0);
    let used = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    assert!(used.count() < descriptors / 2 + 128);
}

/// An app that reads requests and does not answer.
fn silent(mut tcp: TcpStream) {
    while let Ok(1..) = tcp.read(&mut [0; 4096]) {}
}

/// Begins `streams` requests on one connection without sending their bodies, and keeps them open
/// until `over`; counts those that are refused.
async fn withhold(
    to: SocketAddr,
    streams: usize,
    refused: Arc<AtomicUsize>,
    over: watch::Receiver<bool>,
) {
    let tcp = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut send, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut held = Vec::new();
    for _ in 0..streams {
        send = send.ready().await.unwrap();
        let post = http::Request::post("http://app/").body(()).unwrap();
        let (answer, body) = send.send_request(post, false).unwrap();
        let refused = refused.clone();
        held.push(tokio::spawn(async move {
            let _body = body;
            assert_eq!(answer.await.unwrap().status(), 503);
            refused.fetch_add(1, Relaxed);
        }));
    }
    let mut over = over;
    over.wait_for(|over| *over).await.unwrap();
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A stream towards an HTTP/1 app takes a connection, although its client has only one.
#[test]
fn streams_of_one_peer_leave_descriptors_too() {
    const STREAMS: usize = 250;
    /// Of 400 descriptors, as in [`connections_leave_descriptors_for_the_app_s_own`].
    const PLACES: usize = 55;
    let descriptors = 400;
    let settings = Settings {
        filters: &http_manager("", ""),
        bootstrap: &limit(0),
        descriptors: Some(descriptors),
        ..Settings::default()
    };
    let proxy = Proxy::start(upstream(silent), &settings);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (end, over) = watch::channel(false);
    let refused = Arc::new(AtomicUsize::new(0));
    let both = [0, 1].map(|_| {
        let held = withhold(proxy.front, STREAMS, refused.clone(), over.clone());
        runtime.spawn(held)
    });
    // As many as there may be connections to the app; the others wait for a place in vain.
    proxy.until("the rest is refused", |_| {
        refused.load(Relaxed) == 2 * STREAMS - PLACES
    });
    let overflows = "anyam_cluster_overflows_total";
    assert_eq!(proxy.metric(overflows), (2 * STREAMS - PLACES) as f64);
    assert!(proxy.is_ready());
    assert_eq!(proxy.metric("anyam_listener_accept_errors_total"), 0.0);
    let used = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    assert!(used.count() < descriptors / 2 + 128);
    end.send_replace(true);
    for held in runtime.block_on(futures_util::future::join_all(both)) {
        held.unwrap();
    }
    // Their places are free again.
    let dialled = |proxy: &Proxy| proxy.metric("anyam_cluster_connections_total");
    let before = dialled(&proxy);
    let mut client = connect(proxy.front);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")
        .unwrap();
    proxy.until("a request reaches the app", |proxy| dialled(proxy) > before);
}

/// The bytes of a long connection are counted while it is open.
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
