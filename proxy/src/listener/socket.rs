//! Listening sockets, and the original destination of redirected connections.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// How a listening socket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindOptions {
    pub backlog: u32,
    /// Accept connections to any address (TPROXY); needs `CAP_NET_ADMIN`.
    pub transparent: bool,
}

/// Binds with `SO_REUSEPORT`, so that every worker has a queue of its own.
///
/// # Errors
/// As `bind(2)` and `listen(2)`: the port is taken, or low and not allowed.
pub fn bind(address: SocketAddr, options: &BindOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if options.transparent {
        match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    if address.is_ipv6() {
        // `[::]:15001` and `0.0.0.0:15001` are two listeners.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// The address a client dialled before netfilter's REDIRECT; `None` when it was not redirected.
///
/// `local`: the socket's own end.
pub fn original_destination(tcp: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(tcp);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    // ENOENT and ENOPROTOOPT: netfilter has no entry for this connection.
    let original = original.ok()?.as_socket()?;
    (original != local).then_some(original)
}
