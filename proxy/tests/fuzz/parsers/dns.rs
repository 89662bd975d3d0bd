//! The resolver: messages that are mutated, over UDP and TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::demand::{OnDemandClient, OnDemandResponse};
use anyam_proxy::config::name::{NameRecords, Srv};
use anyam_proxy::dns::DnsSettings;
use anyam_proxy::dns::server::DnsServer;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::rounds::Rounds;

const ROUNDS: usize = 60;
/// Messages before a question that has to be answered.
const BATCH: usize = 50;
const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "cart.shop.svc.cluster.local.";

async fn server() -> SocketAddr {
    let (demand, mut wants) = OnDemandClient::new(1024, SOON);
    tokio::spawn(async move {
        while let Some(wanted) = wants.recv().await {
            let address = [240, 240, 0, 1].into();
            let answer = OnDemandResponse::Name(Arc::new(NameRecords {
                addresses: vec![address],
                services: vec![Srv {
                    target: "cart.shop.svc.cluster.local".to_owned(),
                    port: 80,
                    weight: 100,
                    addresses: vec![address],
                }],
                ttl: Duration::from_secs(30),
            }));
            // What asked may have given up.
            let _ = wanted.answer.send(answer);
        }
    });
    let listen = "127.0.0.1:0".parse().unwrap();
    let settings = DnsSettings::new(listen, Vec::new(), ("shop", "cluster.local"), &[]);
    let server = DnsServer::bind(settings, Some(demand)).await.unwrap();
    let address = server.local_addrs().unwrap()[0];
    tokio::spawn(async move { server.run().await });
    address
}

fn question(rng: &mut fastrand::Rng) -> Message {
    let kinds = [
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::ANY,
        RecordType::TXT,
    ];
    let mut query = Query::query(
        Name::from_ascii(NAME).unwrap(),
        kinds[rng.usize(..kinds.len())],
    );
    if rng.u8(..) < 16 {
        query.set_query_class(DNSClass::CH);
    }
    let mut message = Message::new(rng.u16(..), MessageType::Query, OpCode::Query);
    message.add_query(query);
    if rng.bool() {
        let mut edns = Edns::new();
        edns.set_max_payload(rng.u16(..));
        message.set_edns(edns);
    }
    message
}

fn mutated(mut bytes: Vec<u8>, rng: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..rng.usize(..5) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..5) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 => bytes.truncate(at),
            // A pointer, to itself or anywhere.
            2 => drop(bytes.splice(at..at, [0xc0, rng.u8(..64)])),
            3 => drop(bytes.splice(at..at, std::iter::repeat_n(63, rng.usize(..80)))),
            _ => {
                let more = rng.usize(..12);
                bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(more));
            }
        }
    }
    bytes
}

/// Takes what has been answered: whole messages of at most what RFC 6891 lets them have. How many.
fn drain(socket: &UdpSocket) -> usize {
    let mut answers = 0;
    let mut buffer = [0; 65_535];
    while let Ok(length) = socket.try_recv(&mut buffer) {
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        assert!(length <= 1232, "{length} bytes");
        answers += 1;
    }
    answers
}

/// A question that is well formed, and its answer.
async fn ask(server: SocketAddr, rng: &mut fastrand::Rng) {
    let message = loop {
        let message = question(rng);
        let query = &message.queries[0];
        if query.query_type == RecordType::A && query.query_class == DNSClass::IN {
            break message;
        }
    };
    let bytes = message.to_vec().unwrap();
    let asking = async {
        let mut tcp = TcpStream::connect(server).await.unwrap();
        tcp.write_u16(bytes.len() as u16).await.unwrap();
        tcp.write_all(&bytes).await.unwrap();
        let length = tcp.read_u16().await.unwrap();
        let mut answer = vec![0; length.into()];
        tcp.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    };
    let answer = timeout(SOON, asking).await.unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.answers.len(), 1, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_answers_after_whatever_it_was_sent() {
    let server = server().await;
    let mut answers = 0;
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        for _ in 0..BATCH {
            let message = question(&mut rng).to_vec().unwrap();
            let message = mutated(message, &mut rng);
            // An empty datagram is one too; the queue may be full.
            let _ = socket.send(&message).await;
            answers += drain(&socket);
        }
        let message = question(&mut rng).to_vec().unwrap();
        let message = mutated(message, &mut rng);
        let mut tcp = TcpStream::connect(server).await.unwrap();
        let length = rng.u16(..u16::try_from(message.len()).unwrap() + 2);
        // It may have ended the connection.
        let _ = tcp
            .write_all(&[&length.to_be_bytes(), &message[..]].concat())
            .await;
        ask(server, &mut rng).await;
        answers += drain(&socket);
    }
    assert!(answers > 0, "no mutated question was answered");
}
