//! Pings on an idle connection, which show that its peer is gone.

use std::time::Duration;

use crate::config::http::Http2Options;
use crate::dispatcher::timer::Timers;

/// Returns when the peer stopped answering pings; never without an interval.
pub async fn keepalive(ping: Option<h2::PingPong>, timers: &Timers, options: &Http2Options) {
    let (Some(mut ping), Some(interval)) = (ping, options.keepalive_interval) else {
        return std::future::pending().await;
    };
    loop {
        timers.sleep(interval.max(Duration::from_millis(10))).await;
        let answer = ping.ping(h2::Ping::opaque());
        match timers.timeout(options.keepalive_timeout, answer).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
