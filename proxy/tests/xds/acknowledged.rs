//! A control plane whose response is acknowledged can rely on it being in force.

use xds_proto::type_url;

use crate::ads::{ControlPlane, http_listener, listener, rds, routes};
use crate::ports::free_port;
use crate::process::{Proxy, status};

#[tokio::test]
async fn an_acknowledged_change_is_what_the_next_request_meets() {
    let mut control = ControlPlane::start().await;
    let _proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    stream.asked_for(type_url::LISTENER, "*").await;
    for round in 0..10u16 {
        let version = round.to_string();
        let port = free_port();
        let name = format!("in-{round}");
        let table = format!("routes-{round}");
        let value = http_listener(&name, port, rds(&table, "60s"));
        // Taken, but it waits for its routes: the listener is open once those are acknowledged.
        stream.give(listener(&version, &value)).await;
        stream.give(routes(&table, &version, 200)).await;
        assert_eq!(status(port).await, Some(200));
        for status_now in 201..205 {
            stream
                .give(routes(&table, &status_now.to_string(), status_now))
                .await;
            assert_eq!(status(port).await, Some(status_now));
        }
    }
}
