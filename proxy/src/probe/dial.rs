//! Connections to the app.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

/// Source addresses of deliveries to the app, which the netfilter rules do not redirect.
const DELIVERY_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const DELIVERY_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Connects to the app directly, and not through the inbound listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialer {
    pub(super) app: IpAddr,
}

impl Dialer {
    pub(super) fn new(app: IpAddr) -> Self {
        Dialer { app }
    }

    /// # Errors
    /// Why the app does not accept the connection, as text.
    pub(super) async fn connect(self, port: u16) -> Result<TcpStream, String> {
        let to = SocketAddr::new(self.app, port);
        let (socket, source): (_, IpAddr) = match self.app {
            IpAddr::V4(_) => (TcpSocket::new_v4(), DELIVERY_V4.into()),
            IpAddr::V6(_) => (TcpSocket::new_v6(), DELIVERY_V6.into()),
        };
        let attempt = async {
            let socket = socket?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(to).await
        };
        attempt
            .await
            .map_err(|error| format!("connecting to {to}: {error}"))
    }
}
