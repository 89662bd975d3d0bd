//! Connections to the app.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

/// The source of connections that the netfilter rules leave alone: inbound deliveries come from it.
const DELIVERY_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const DELIVERY_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Connects to the app, past the mesh's inbound listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialer {
    pub(super) app: IpAddr,
}

impl Dialer {
    pub(super) fn new(app: IpAddr) -> Self {
        Dialer { app }
    }

    /// # Errors
    /// The app does not accept, in words.
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
