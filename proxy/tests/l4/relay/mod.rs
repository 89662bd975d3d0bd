//! The L4 relay between real sockets, and peers that misbehave in every state.

#[path = "../../../../benches/tests/counters/budgets.rs"]
mod budgets;
mod bulk;
mod ends;

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::{fill, run, sockets};
use anyam_proxy::dispatcher::buffer::Pool;
use anyam_proxy::dispatcher::pipe::Pipes;
use anyam_proxy::dispatcher::timer::{TimerFd, Timers};
use anyam_proxy::metrics::{Registry, SpliceMetrics};
use anyam_proxy::overload::Overload;
use anyam_proxy::relay::{
    Buffered, RelayContext, RelayEnd, RelayOptions, RelayOutcome, Side, relay,
};
use anyam_proxy::socket::reset_on_close;
use anyam_proxy::stream::Stream;
use anyam_proxy::tls::{Dial, Handshaker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};

/// What a relay under test works with, and the way to end it.
struct Rig {
    pool: Pool,
    pipes: Pipes,
    timers: Timers,
    overload: Rc<Overload>,
    must_end: Rc<Cell<bool>>,
    /// The byte counts that the relay last reported.
    reported: Rc<Cell<(u64, u64)>>,
    idle: Option<Duration>,
    until: Option<Instant>,
    buffer: usize,
}

impl Rig {
    fn new() -> Self {
        let timers = Timers::new();
        let driver = timers.clone();
        spawn_local(async move { driver.drive(&TimerFd::new().unwrap()).await });
        Rig {
            pool: Pool::default(),
            pipes: Pipes::new(SpliceMetrics::new(&Registry::new().unwrap()).unwrap()),
            timers,
            overload: Rc::default(),
            must_end: Rc::default(),
            reported: Rc::default(),
            idle: None,
            until: None,
            buffer: 1 << 20,
        }
    }

    fn start(&self, down: Stream, up: Stream) -> JoinHandle<RelayOutcome> {
        self.start_with(down, up, b"", b"")
    }

    fn start_with(
        &self,
        down: Stream,
        up: Stream,
        from_down: &'static [u8],
        from_up: &'static [u8],
    ) -> JoinHandle<RelayOutcome> {
        let (buffers, pipes, timers) = (self.pool.clone(), self.pipes.clone(), self.timers.clone());
        let (must_end, idle, overload) = (self.must_end.clone(), self.idle, self.overload.clone());
        let reported = self.reported.clone();
        let (until, buffer) = (self.until, self.buffer);
        spawn_local(async move {
            let means = RelayContext {
                buffers: &buffers,
                pipes: &pipes,
                timers: &timers,
                stalled: &overload.stalled,
                most: buffer,
            };
            let options = RelayOptions {
                idle,
                until,
                must_end: |_: &Stream| must_end.get(),
                flow: |to_server, to_client| reported.set((to_server, to_client)),
            };
            let (mut down, mut up) = (down, up);
            relay(
                means,
                &mut down,
                &mut up,
                Buffered {
                    from_down: from_down.into(),
                    from_up: from_up.into(),
                },
                options,
            )
            .await
        })
    }

    /// A client and a server with a relay of plain sockets between them.
    async fn plain(&self) -> (TcpStream, TcpStream, JoinHandle<RelayOutcome>) {
        let (client, down) = sockets().await;
        let (up, server) = sockets().await;
        (client, server, self.start(down.into(), up.into()))
    }

    fn holds_nothing(&self) -> bool {
        self.pool.blocks_in_use() == 0 && self.pipes.in_use() == 0
    }
}

async fn end_of(relay: JoinHandle<RelayOutcome>) -> RelayEnd {
    relay.await.unwrap().ended
}

/// Bytes are reported while the connection is open, in both directions, each once.
#[test]
fn bytes_are_reported_while_they_flow() {
    run(async {
        let rig = Rig::new();
        let (mut client, mut server, done) = rig.plain().await;
        for round in 1..=2u64 {
            client.write_all(&[1; 100]).await.unwrap();
            let mut got = [0; 100];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(&got[..50]).await.unwrap();
            client.read_exact(&mut got[..50]).await.unwrap();
            let reports = async {
                while rig.reported.get() != (100 * round, 50 * round) {
                    tokio::task::yield_now().await;
                }
            };
            assert!(
                rig.timers
                    .timeout(Duration::from_secs(5), reports)
                    .await
                    .is_ok()
            );
        }
        drop((client, server));
        let outcome = done.await.unwrap();
        assert_eq!((outcome.from_down, outcome.from_up), (200, 100));
    });
}

#[test]
fn messages_go_back_and_forth_and_nothing_is_held_in_between() {
    run(async {
        let rig = Rig::new();
        let (mut client, mut server, done) = rig.plain().await;
        for round in 0..50u8 {
            client.write_all(&[round; 100]).await.unwrap();
            let mut got = [0; 100];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [round; 100]);
            server.write_all(&got[..50]).await.unwrap();
            client.read_exact(&mut got[..50]).await.unwrap();
        }
        tokio::task::yield_now().await;
        assert!(rig.holds_nothing());
        drop(client);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        drop(server);
        let outcome = done.await.unwrap();
        assert_eq!((outcome.from_down, outcome.from_up), (5000, 2500));
        assert!(matches!(
            outcome.ended,
            RelayEnd::Clean { first: Side::Down }
        ));
    });
}

#[test]
fn half_close_in_either_order() {
    run(async {
        let rig = Rig::new();
        for client_first in [true, false] {
            let (client, server, done) = rig.plain().await;
            let (mut first, mut second) = if client_first {
                (client, server)
            } else {
                (server, client)
            };
            first.write_all(b"question").await.unwrap();
            first.shutdown().await.unwrap();
            let mut got = Vec::new();
            second.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"question");
            // The other direction is still open, for as long as it takes.
            second.write_all(b"long ").await.unwrap();
            tokio::task::yield_now().await;
            second.write_all(b"answer").await.unwrap();
            second.shutdown().await.unwrap();
            got.clear();
            first.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"long answer");
            let side = if client_first { Side::Down } else { Side::Up };
            assert!(matches!(end_of(done).await, RelayEnd::Clean { first } if first == side));
        }
        assert!(rig.holds_nothing());
    });
}

#[test]
fn a_reset_is_forwarded_in_both_directions() {
    run(async {
        let rig = Rig::new();
        for by in [Side::Down, Side::Up] {
            let (client, server, done) = rig.plain().await;
            let (mut culprit, mut victim) = if by == Side::Down {
                (client, server)
            } else {
                (server, client)
            };
            culprit.write_all(b"x").await.unwrap();
            victim.read_exact(&mut [0]).await.unwrap();
            reset_on_close(&culprit);
            drop(culprit);
            let error = victim.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert!(matches!(end_of(done).await, RelayEnd::Reset { by: b } if b == by));
        }
        assert!(rig.holds_nothing());
    });
}

#[test]
fn a_reset_after_the_other_side_finished_is_passed_on() {
    run(async {
        let rig = Rig::new();
        let (mut client, mut server, done) = rig.plain().await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        reset_on_close(&server);
        drop(server);
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(
            end_of(done).await,
            RelayEnd::Reset { by: Side::Up }
        ));
    });
}

#[test]
fn a_reset_crosses_two_relays_and_tls() {
    run(async {
        let rig = Rig::new();
        let handshaker = Handshaker::new(rig.pool.clone(), 4);
        let (server_context, client_context) = crate::support::pki::pair();
        let (mut client, down) = sockets().await;
        let (near, far) = sockets().await;
        let (up, mut server) = sockets().await;
        let dial = Dial::default();
        let (near, far) = tokio::join!(
            handshaker.connect(near, &client_context, &dial),
            handshaker.accept(far, &[], &server_context)
        );
        rig.start(down.into(), near.unwrap().into());
        rig.start(far.unwrap().into(), up.into());
        client.write_all(b"hello").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        tokio::task::yield_now().await;
        assert!(rig.holds_nothing(), "idle TLS connections hold buffers");
        reset_on_close(&client);
        drop(client);
        let error = server.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_client_that_never_reads_costs_a_bounded_amount() {
    run(async {
        let rig = Rig::new();
        let (client, mut server, done) = rig.plain().await;
        fill(&mut server).await;
        assert!(rig.pool.blocks_in_use() + rig.pipes.in_use() <= 2);
        drop(server);
        drop(client);
        assert!(matches!(end_of(done).await, RelayEnd::Reset { .. }));
        assert!(rig.holds_nothing());
    });
}

#[test]
fn a_reset_is_noticed_while_the_other_side_does_not_read() {
    run(async {
        let rig = Rig::new();
        let (client, mut server, done) = rig.plain().await;
        fill(&mut server).await;
        // The relay cannot write to the client, so it does not read from the server.
        reset_on_close(&server);
        drop(server);
        assert!(matches!(
            end_of(done).await,
            RelayEnd::Reset { by: Side::Up }
        ));
        assert!(rig.holds_nothing());
        drop(client);
    });
}

#[test]
fn early_bytes_come_first() {
    run(async {
        let rig = Rig::new();
        let (mut client, down) = sockets().await;
        let (up, mut server) = sockets().await;
        rig.start_with(down.into(), up.into(), b"GET ", b"220 ");
        client.write_all(b"/").await.unwrap();
        server.write_all(b"ready").await.unwrap();
        let mut got = [0; 5];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"GET /");
        let mut got = [0; 9];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"220 ready");
    });
}

#[test]
fn a_relay_is_small() {
    run(async {
        let rig = Rig::new();
        let (_client, down) = sockets().await;
        let (up, _server) = sockets().await;
        let means = RelayContext {
            buffers: &rig.pool,
            pipes: &rig.pipes,
            timers: &rig.timers,
            stalled: &rig.overload.stalled,
            most: rig.buffer,
        };
        let options = RelayOptions {
            idle: None,
            until: None,
            must_end: |_: &Stream| false,
            flow: |_, _| {},
        };
        let (mut down, mut up) = (down.into(), up.into());
        let future = relay(means, &mut down, &mut up, Buffered::default(), options);
        let size = std::mem::size_of_val(&future);
        let most = budgets::of("size")["l4-relay"];
        assert!(
            size as f64 <= most,
            "a relay is {size} bytes, at most {most}"
        );
    });
}
