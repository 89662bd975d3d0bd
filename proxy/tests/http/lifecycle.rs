//! The end of an HTTP/2 connection, frame by frame: idle, too old, drained, and a peer that does
//! not react to GOAWAY.

use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::endpoint::HealthStatus;
use anyam_proxy::drain::Phase;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::harness::{Proxy, Setup};
use crate::hostile2::{
    END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, head,
};
use crate::peers::{Client, get, h1, listen, ok, read_message};

const ACK: u8 = 1;
const REFUSED_STREAM: u32 = 7;
const MOST: u32 = (1 << 31) - 1;
/// When a connection that is to end must have.
const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// The frames that a client receives, which answers PINGs (`pongs`) or not.
#[derive(Debug, Default, PartialEq)]
struct ReceivedFrames {
    /// Last stream id and error code of each GOAWAY.
    goaways: Vec<(u32, u32)>,
    /// Streams that ended.
    answered: Vec<u32>,
    /// Streams that were reset, and why.
    reset: Vec<(u32, u32)>,
}

impl ReceivedFrames {
    /// Receives one frame; false: the connection has ended.
    async fn frame(&mut self, raw: &mut Raw, pongs: bool) -> bool {
        let Some((kind, flags, stream, payload)) = raw.receive().await else {
            return false;
        };
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            GOAWAY => self.goaways.push((number(0), number(4))),
            RST_STREAM => self.reset.push((stream, number(0))),
            PING if pongs && flags & ACK == 0 => {
                raw.send(PING, ACK, 0, &payload).await;
            }
            SETTINGS if flags & ACK == 0 => {
                raw.send(SETTINGS, ACK, 0, &[]).await;
            }
            _ if flags & END_STREAM != 0 && kind <= HEADERS => self.answered.push(stream),
            _ => {}
        }
        true
    }

    async fn until(&mut self, raw: &mut Raw, pongs: bool, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            assert!(self.frame(raw, pongs).await, "ended after {self:?}");
        }
    }

    async fn then_all(mut self, raw: &mut Raw, pongs: bool) -> Self {
        while self.frame(raw, pongs).await {}
        self
    }
}

async fn begin(raw: &mut Raw, stream: u32) {
    let flags = END_HEADERS | END_STREAM;
    raw.send(HEADERS, flags, stream, &head("/")).await;
}

/// An upstream that answers each request when notified.
async fn on_demand() -> (std::net::SocketAddr, Arc<Notify>) {
    let answer = Arc::new(Notify::new());
    let wait = answer.clone();
    let upstream = listen(move |mut tcp, _| {
        let wait = wait.clone();
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut tcp, &mut buffer).await.is_some() {
                wait.notified().await;
                if tcp.write_all(ok("late").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    (upstream.await, answer)
}

/// What the worker uses of its processor in a second: far below what a loop takes.
async fn assert_quiet(proxy: &Proxy) {
    let before = proxy.cpu_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = proxy.cpu_time() - before;
    assert!(used < Duration::from_millis(50), "{used:?} in a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_receives_goaway_before_it_is_closed() {
    for pongs in [true, false] {
        let setup = Setup::new(h1(|_| ok("fine")).await).with(|setup| {
            setup.manager.idle_timeout = Some(SHORT);
            setup.manager.drain_timeout = SHORT;
        });
        let proxy = Proxy::start(setup);
        let mut raw = Raw::connect(proxy.address).await;
        begin(&mut raw, 1).await;
        let received = ReceivedFrames::default().then_all(&mut raw, pongs).await;
        assert_eq!(received.goaways, [(MOST, 0), (1, 0)], "pongs: {pongs}");
        assert_eq!(received.answered, [1]);
        // The same for a connection without any request.
        let mut raw = Raw::connect(proxy.address).await;
        let received = ReceivedFrames::default().then_all(&mut raw, pongs).await;
        assert_eq!(received.goaways, [(MOST, 0), (0, 0)], "pongs: {pongs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_its_connections_time_and_costs_nothing_meanwhile() {
    for pongs in [true, false] {
        let (upstream, answer) = on_demand().await;
        let setup = Setup::new(upstream).with(|setup| {
            setup.manager.max_connection_duration = Some(SHORT);
            setup.manager.drain_timeout = SHORT;
        });
        let proxy = Proxy::start(setup);
        let mut raw = Raw::connect(proxy.address).await;
        begin(&mut raw, 1).await;
        let mut received = ReceivedFrames::default();
        received
            .until(&mut raw, pongs, |received| !received.goaways.is_empty())
            .await;
        assert_quiet(&proxy).await;
        answer.notify_one();
        let received = received.then_all(&mut raw, pongs).await;
        assert_eq!(received.goaways, [(MOST, 0), (1, 0)], "pongs: {pongs}");
        assert_eq!(received.answered, [1]);
        assert_eq!(received.reset, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_once_the_last_stream_has_and_takes_no_new_ones_after_its_time() {
    let (upstream, answer) = on_demand().await;
    let setup = Setup::new(upstream).with(|setup| setup.manager.drain_timeout = SHORT);
    let proxy = Proxy::start(setup);
    let mut raw = Raw::connect(proxy.address).await;
    begin(&mut raw, 1).await;
    let mut received = ReceivedFrames::default();
    // After the first response the connection counts as used.
    received.until(&mut raw, false, |_| true).await;
    proxy.drain.send_replace(Phase::Draining);
    received
        .until(&mut raw, false, |received| !received.goaways.is_empty())
        .await;
    assert_quiet(&proxy).await;
    begin(&mut raw, 3).await;
    received
        .until(&mut raw, false, |received| !received.reset.is_empty())
        .await;
    assert_eq!(received.reset, [(3, REFUSED_STREAM)]);
    answer.notify_one();
    let received = received.then_all(&mut raw, false).await;
    assert_eq!(received.answered, [1]);
    assert_eq!(received.goaways.first(), Some(&(MOST, 0)));
    assert_eq!(received.goaways.len(), 2, "{received:?}");
}

/// A client that stays on its connection would stay with the host, which is about to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_in_order_when_only_a_draining_host_is_left() {
    let setup =
        Setup::new(h1(|_| ok("fine")).await).with(|setup| setup.health = HealthStatus::Draining);
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let answer = client.ask(&get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
    assert_eq!(client.rest().await, "");

    let mut raw = Raw::connect(proxy.address).await;
    begin(&mut raw, 1).await;
    let received = ReceivedFrames::default().then_all(&mut raw, true).await;
    assert_eq!(received.answered, [1]);
    assert_eq!(received.goaways.first(), Some(&(MOST, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_when_only_draining_hosts_are_left() {
    let upstream = h1(|_| ok("fine")).await;
    let setup = |health| {
        Setup::new(upstream).with(|setup| {
            setup.health = health;
            // Nothing else ends them.
            setup.manager.idle_timeout = None;
        })
    };
    let proxy = Proxy::start(setup(HealthStatus::Healthy));
    let mut client = Client::connect(proxy.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    let mut received = ReceivedFrames::default();
    // A new version of the same configuration ends nothing.
    for (generation, stream) in [(2, 1), (3, 3)] {
        assert!(client.ask(&get("/")).await.ends_with("fine"));
        begin(&mut raw, stream).await;
        let answered = |received: &ReceivedFrames| received.answered.contains(&stream);
        received.until(&mut raw, true, answered).await;
        assert_eq!(received.goaways, []);
        let same = setup(HealthStatus::Healthy).snapshot(generation);
        proxy.store.publish(same);
    }
    let drains = setup(HealthStatus::Draining).snapshot(4);
    proxy.store.publish(drains);
    let ends = async { (client.rest().await, received.then_all(&mut raw, true).await) };
    let (rest, received) = tokio::time::timeout(SOON, ends).await.unwrap();
    assert_eq!(rest, "");
    assert_eq!(received.goaways.first(), Some(&(MOST, 0)));
}
