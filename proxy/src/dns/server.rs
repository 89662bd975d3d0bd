//! The sockets. Messages and connections are bounded in number, size and time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::DnsSettings;
use super::forward::DnsTransport;
use super::question::{ParsedQuery, parse};
use super::resolve::resolve;
use crate::config::demand::OnDemandClient;

/// Questions served at once; more are dropped, and clients retry.
const MAX_QUESTIONS: usize = 1024;
const MAX_CONNECTIONS: usize = 128;
/// Time after which a silent TCP client is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A UDP question is no longer.
const MAX_DATAGRAM: usize = 4096;

/// UDP and TCP on one port, of both families where the address is loopback.
pub struct DnsServer {
    sockets: Vec<Sockets>,
    shared: Arc<DnsServerState>,
}

struct Sockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Sockets {
    async fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        let udp = Arc::new(udp);
        Ok(Sockets { udp, tcp })
    }
}

struct DnsServerState {
    settings: DnsSettings,
    demand: Option<OnDemandClient>,
    questions: Arc<Semaphore>,
}

impl DnsServer {
    /// # Errors
    /// As `bind(2)`.
    pub async fn bind(settings: DnsSettings, demand: Option<OnDemandClient>) -> io::Result<Self> {
        let first = Sockets::bind(settings.listen).await?;
        let bound = first.tcp.local_addr()?;
        let mut sockets = vec![first];
        if let Some(twin) = twin(bound) {
            match Sockets::bind(twin).await {
                Ok(more) => sockets.push(more),
                // The kernel lacks this address family, so no client can use it.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrNotAvailable
                        || error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(DnsServer {
            sockets,
            shared: Arc::new(DnsServerState {
                settings,
                demand,
                questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            }),
        })
    }

    /// Where it listens, as configured first.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        let mut all = self.sockets.iter();
        all.try_fold(Vec::new(), |mut addresses, sockets| {
            addresses.push(sockets.tcp.local_addr()?);
            Ok(addresses)
        })
    }

    /// Serves as long as the process.
    pub async fn run(&self) {
        let shared = &self.shared;
        let serving = self.sockets.iter().map(|Sockets { udp, tcp }| async {
            tokio::join!(
                serve_udp(udp, shared.clone()),
                serve_tcp(tcp, shared.clone())
            );
        });
        join_all(serving).await;
    }
}

/// Loopback of the other family, to which netfilter redirects the questions of that family.
fn twin(address: SocketAddr) -> Option<SocketAddr> {
    let twin: IpAddr = match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(twin, address.port()))
}

async fn serve_udp(socket: &Arc<UdpSocket>, shared: Arc<DnsServerState>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // A client's port that is closed comes back as an error of our socket.
                tracing::debug!(%error, "DNS over UDP");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Ok(permit) = shared.questions.clone().try_acquire_owned() else {
            continue;
        };
        let query = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            if let Some(answer) = shared.answer(&query, DnsTransport::Udp).await {
                // The client may have closed its socket.
                let _ = socket.send_to(&answer, client).await;
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: &TcpListener, shared: Arc<DnsServerState>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // Whatever ends a client's connection ends only that.
                    let _ = serve_stream(stream, &shared).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "DNS over TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One question after the other.
async fn serve_stream(mut stream: TcpStream, shared: &DnsServerState) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let reading = async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; usize::from(length)];
            stream.read_exact(&mut query).await?;
            io::Result::Ok(query)
        };
        let query = tokio::time::timeout(IDLE, reading).await??;
        let Some(answer) = shared.answer(&query, DnsTransport::Tcp).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let framed = [&length.to_be_bytes(), &answer[..]].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

impl DnsServerState {
    async fn answer(&self, query: &[u8], transport: DnsTransport) -> Option<Vec<u8>> {
        match parse(query) {
            ParsedQuery::Question(question) => {
                let demand = self.demand.as_ref();
                resolve(&self.settings, demand, &question, query, transport).await
            }
            ParsedQuery::Error(answer) => Some(answer),
            ParsedQuery::Drop => None,
        }
    }
}
