//! Brings the dashboard out of the control plane's namespace: a listener on the machine's
//! loopback whose connections are dialled inside.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpStream;

use super::netns::Namespace;

/// Accepts at `listen` and relays to `target` as seen from within `namespace`, for as long as the
/// process lives. Gives back the address that was bound.
///
/// # Errors
/// When the address is taken or the namespace cannot be entered.
pub fn start(
    listen: SocketAddr,
    namespace: Namespace,
    target: SocketAddr,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let (entered, answer) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("relay".into())
        .spawn(move || {
            // A socket belongs to the namespace it was made in: the listener stays outside, what is
            // dialled from here on is inside.
            let runtime = namespace.enter().and_then(|()| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()
            });
            match runtime {
                Ok(runtime) => {
                    let _ = entered.send(Ok(()));
                    runtime.block_on(accept(listener, target));
                }
                Err(error) => {
                    let _ = entered.send(Err(error));
                }
            }
        })?;
    answer.recv().map_err(io::Error::other)??;
    Ok(bound)
}

async fn accept(listener: TcpListener, target: SocketAddr) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((mut outside, _)) = listener.accept().await {
        tokio::spawn(async move {
            let Ok(mut inside) = TcpStream::connect(target).await else {
                return;
            };
            // Either side going away ends the relay.
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}
