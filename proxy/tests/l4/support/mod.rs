//! What tests over real sockets share.

pub mod pki;

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limit = Duration::from_secs(60);
    tokio::task::LocalSet::new()
        .block_on(&runtime, async { tokio::time::timeout(limit, test).await })
        .expect("the test hangs")
}

/// The two ends of a connection over loopback.
pub async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), accepted.unwrap().0)
}

/// Writes to a connection until it accepts nothing more for a moment.
pub async fn fill(stream: &mut TcpStream) {
    let piece = vec![7; 1 << 16];
    let moment = Duration::from_millis(300);
    while tokio::time::timeout(moment, stream.write_all(&piece))
        .await
        .is_ok()
    {}
}
