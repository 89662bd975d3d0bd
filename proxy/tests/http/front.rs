//! The harness's listener: one chain, connections of HTTP.

use std::rc::Rc;

use anyam_proxy::config::listener::TerminalFilter;
use anyam_proxy::http::connection::serve::{self, HttpConnection};
use anyam_proxy::listener::ListenerContext;
use anyam_proxy::metrics::OpenConnection;
use anyam_proxy::policy::DetectedProtocol;
use anyam_proxy::stream::Stream;
use bytes::BytesMut;
use tokio::net::TcpListener;

pub async fn accept(context: Rc<ListenerContext>, sockets: TcpListener) {
    let (worker, pools) = (&context.worker, &context.pools);
    loop {
        let (tcp, peer) = sockets.accept().await.unwrap();
        let local = tcp.local_addr().unwrap();
        let listener = worker.store.load().listeners["front"].clone();
        let chain = listener.def.chains[0].clone();
        let TerminalFilter::Http(manager) = &chain.terminal else {
            panic!("not HTTP");
        };
        let manager = manager.clone();
        let open = OpenConnection::of(&listener.def.metrics);
        let (worker, pools) = (worker.clone(), pools.clone());
        tokio::task::spawn_local(async move {
            let stream = match &chain.tls {
                None => Stream::from(tcp),
                Some(context) => match worker.tls.accept(tcp, &[], context).await {
                    Ok(stream) => Stream::from(stream),
                    Err(_) => return,
                },
            };
            let connection = HttpConnection {
                readmit: anyam_proxy::listener::readmit,
                stream,
                prefix: BytesMut::new(),
                manager,
                listener,
                chain,
                protocol: DetectedProtocol::Tcp,
                peer,
                local,
                original_dst: None,
                pools,
            };
            serve::serve(&worker, connection, open);
        });
    }
}
