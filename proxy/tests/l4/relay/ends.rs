//! Ends of a relay by the proxy itself: idle time-out, policy, maximum duration.

use std::time::{Duration, Instant};

use anyam_proxy::relay::RelayEnd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Rig, end_of};
use crate::support::{run, sockets};

#[test]
fn idle_relays_end_and_busy_ones_do_not() {
    run(async {
        let mut rig = Rig::new();
        rig.idle = Some(Duration::from_millis(100));
        let (mut client, mut server, done) = rig.plain().await;
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            client.write_all(b"x").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
        }
        assert!(!done.is_finished(), "no pause of the peer was that long");
        assert!(matches!(end_of(done).await, RelayEnd::Idle));
        assert!(client.read(&mut [0]).await.is_err());
    });
}

#[test]
fn a_cut_ends_a_quiet_relay() {
    run(async {
        let rig = Rig::new();
        let (mut client, mut server, done) = rig.plain().await;
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        rig.must_end.set(true);
        rig.timers.wake_all();
        assert!(matches!(end_of(done).await, RelayEnd::Cut));
        assert!(client.read(&mut [0]).await.is_err());
    });
}

#[test]
fn a_relay_that_may_not_begin_moves_no_byte() {
    run(async {
        let rig = Rig::new();
        rig.must_end.set(true);
        let (mut client, down) = sockets().await;
        let (up, mut server) = sockets().await;
        client.write_all(b"more").await.unwrap();
        let done = rig.start_with(down.into(), up.into(), b"early", b"greeting");
        let outcome = done.await.unwrap();
        assert!(matches!(outcome.ended, RelayEnd::Cut));
        assert_eq!((outcome.from_down, outcome.from_up), (0, 0));
        assert!(client.read(&mut [0]).await.is_err());
        assert!(server.read(&mut [0]).await.is_err());
    });
}

#[test]
fn a_relay_ends_when_its_time_is_over_however_busy_it_is() {
    run(async {
        let mut rig = Rig::new();
        rig.until = Some(Instant::now() + Duration::from_millis(50));
        let (mut client, mut server, relay) = rig.plain().await;
        let mut byte = [0; 1];
        while client.write_all(b"x").await.is_ok() && server.read_exact(&mut byte).await.is_ok() {}
        let outcome = relay.await.unwrap();
        assert!(matches!(outcome.ended, RelayEnd::Expired), "{outcome:?}");
        assert!(outcome.from_down > 0);
        assert!(rig.holds_nothing());
    });
}
