//! Upstream resolvers. Against forged answers each query has a random id and its own socket (and so
//! a random port), and only a response with the same id and question is accepted.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::question;

/// How long one attempt waits for its answer, as in stub resolvers (resolv.conf(5), `timeout`).
const TIMEOUT: Duration = Duration::from_secs(5);
/// Without an answer within this time the next resolver is tried as well; the first may still
/// answer.
const NEXT: Duration = Duration::from_secs(2);
/// Over all resolvers.
const TRIES: usize = 4;

/// The client's transport, which the query upstream uses too: after a truncated answer the client
/// retries over TCP, which has no such limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DnsTransport {
    Udp,
    Tcp,
}

/// Queries the resolvers in turn, each beside those that have not answered yet, so that a slow
/// resolver's answer still counts. The answer carries the client's id.
///
/// # Errors
/// When none of them answered; the last one's reason.
pub(super) async fn forward(
    resolvers: &[SocketAddr],
    query: &[u8],
    transport: DnsTransport,
) -> io::Result<Vec<u8>> {
    let tries = TRIES.max(resolvers.len());
    let mut left = resolvers.iter().cycle().take(tries);
    let mut asked = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let more = match left.next() {
            Some(resolver) => {
                asked.push(ask(*resolver, query, transport));
                true
            }
            None => false,
        };
        let answered = tokio::select! {
            answered = asked.next() => answered,
            () = tokio::time::sleep(NEXT), if more => continue,
        };
        match answered {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => last = error,
            None => return Err(last),
        }
    }
}

/// One attempt.
async fn ask(resolver: SocketAddr, query: &[u8], transport: DnsTransport) -> io::Result<Vec<u8>> {
    let (id, mut asked) = (random_id()?, query.to_vec());
    let place = asked.first_chunk_mut().ok_or(io::ErrorKind::InvalidInput)?;
    *place = id;
    let asking = async {
        match transport {
            DnsTransport::Udp => udp(resolver, &asked).await,
            DnsTransport::Tcp => tcp(resolver, &asked).await,
        }
    };
    let mut answer = tokio::time::timeout(TIMEOUT, asking).await??;
    let (Some(id), Some(asked)) = (answer.first_chunk_mut::<2>(), query.first_chunk()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    *id = *asked;
    Ok(answer)
}

fn random_id() -> io::Result<[u8; 2]> {
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(id)
}

async fn udp(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel drops what comes from elsewhere.
    socket.connect(resolver).await?;
    socket.send(query).await?;
    loop {
        // No buffer while nothing has come.
        socket.readable().await?;
        let mut answer = vec![0; 64 << 10];
        let length = match socket.try_recv(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            received => received?,
        };
        if is_answer(query, answer.get(..length).unwrap_or_default()) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn tcp(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    stream.set_nodelay(true)?;
    let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    match is_answer(query, &answer) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn is_answer(query: &[u8], answer: &[u8]) -> bool {
    answer.get(..2) == query.get(..2) && question::answers(query, answer)
}
