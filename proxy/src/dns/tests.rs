//! The server over real sockets, with an upstream resolver that misbehaves on demand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::forward::DnsTransport;
use super::server::DnsServer;
use super::*;
use crate::config::demand::{OnDemandClient, OnDemandResource, OnDemandResponse};
use crate::config::name::NameRecords;

mod absent;
mod services;

/// A control plane with these names.
fn mesh(names: &[(&str, &[&str])], up: bool) -> OnDemandClient {
    let known = names.iter().map(|(name, ips)| {
        let records = NameRecords {
            addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(30),
            ..NameRecords::default()
        };
        (*name, records)
    });
    mesh_of(known, up)
}

fn mesh_of<'a>(
    names: impl IntoIterator<Item = (&'a str, NameRecords)>,
    up: bool,
) -> OnDemandClient {
    let known: HashMap<String, Arc<NameRecords>> = names
        .into_iter()
        .map(|(name, records)| (name.to_owned(), Arc::new(records)))
        .collect();
    let (demand, mut wants) = OnDemandClient::new(16, Duration::from_secs(5));
    tokio::spawn(async move {
        while let Some(wanted) = wants.recv().await {
            let OnDemandResource::Name(name) = &wanted.what else {
                panic!("{:?}", wanted.what);
            };
            let answer = match known.get(name) {
                Some(records) => OnDemandResponse::Name(records.clone()),
                None if up => OnDemandResponse::Absent,
                None => OnDemandResponse::Unavailable,
            };
            let _ = wanted.answer.send(answer);
        }
    });
    demand
}

async fn start(upstream: Vec<SocketAddr>, demand: OnDemandClient) -> SocketAddr {
    start_both(upstream, demand).await[0]
}

async fn start_both(upstream: Vec<SocketAddr>, demand: OnDemandClient) -> Vec<SocketAddr> {
    let listen = "127.0.0.1:0".parse().unwrap();
    let of = ("shop", "cluster.local");
    let settings = DnsSettings::new(listen, upstream, of, &["Corp.Example.".to_owned()]);
    let server = DnsServer::bind(settings, Some(demand)).await.unwrap();
    let addresses = server.local_addrs().unwrap();
    tokio::spawn(async move { server.run().await });
    addresses
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn udp_bytes(server: SocketAddr, bytes: &[u8]) -> Message {
    udp_sized(server, bytes).await.1
}

/// An answer and its bytes.
async fn udp_sized(server: SocketAddr, bytes: &[u8]) -> (usize, Message) {
    let socket = UdpSocket::bind((server.ip(), 0)).await.unwrap();
    socket.send_to(bytes, server).await.unwrap();
    let mut answer = vec![0; 65536];
    let length = socket.recv(&mut answer).await.unwrap();
    (length, Message::from_vec(&answer[..length]).unwrap())
}

async fn udp(server: SocketAddr, message: &Message) -> Message {
    udp_bytes(server, &message.to_vec().unwrap()).await
}

async fn tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(a) => a.0.to_string(),
            RData::AAAA(a) => a.0.to_string(),
            other => other.to_string(),
        })
        .collect()
}

const NAMES: &[(&str, &[&str])] = &[
    ("cart.shop.svc.cluster.local", &["240.240.0.1", "fd00::1"]),
    ("v4.shop.svc.cluster.local", &["240.240.0.2"]),
    ("db.data.svc.cluster.local", &["240.240.0.3"]),
    ("api.example.com", &["240.240.0.4"]),
];

#[tokio::test]
async fn mesh_names_are_answered_with_search_paths_over_both_transports() {
    let server = start(Vec::new(), mesh(NAMES, true)).await;
    for (name, kind, expected) in [
        ("cart.shop.svc.cluster.local.", RecordType::A, "240.240.0.1"),
        ("CART.Shop.svc.cluster.LOCAL.", RecordType::AAAA, "fd00::1"),
        ("cart.", RecordType::A, "240.240.0.1"),
        ("db.data.", RecordType::A, "240.240.0.3"),
        ("api.example.com.", RecordType::A, "240.240.0.4"),
    ] {
        for answer in [
            udp(server, &query(name, kind)).await,
            tcp(server, &query(name, kind)).await,
        ] {
            assert_eq!(answer.metadata.id, 77);
            assert_eq!(addresses(&answer), [expected], "{name}");
            assert_eq!(answer.answers[0].ttl, 30);
            assert_eq!(answer.answers[0].name, Name::from_ascii(name).unwrap());
        }
    }
}

/// Netfilter redirects a question to loopback of the family it was asked in.
#[tokio::test]
async fn questions_are_answered_on_both_loopback_addresses() {
    let servers = start_both(Vec::new(), mesh(NAMES, true)).await;
    let families: Vec<_> = servers.iter().map(SocketAddr::is_ipv4).collect();
    assert_eq!(families, [true, false]);
    for server in servers {
        for answer in [
            udp(server, &query("cart.", RecordType::AAAA)).await,
            tcp(server, &query("cart.", RecordType::AAAA)).await,
        ] {
            assert_eq!(addresses(&answer), ["fd00::1"], "{server}");
        }
    }
}

#[tokio::test]
async fn without_a_control_plane_mesh_names_are_not_asked_elsewhere() {
    let upstream = resolver(Behaviour::Answer).await;
    let server = start(vec![upstream], mesh(&[], false)).await;
    for name in ["cart.", "x.shop.svc.cluster.local."] {
        let answer = udp(server, &query(name, RecordType::A)).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::ServFail,
            "{name}"
        );
    }
    let answer = udp(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
}

#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Answer,
    /// Wrong id, another question, no answer at all, junk; then the right answer.
    ForgedFirst,
    /// Truncated over UDP, complete over TCP.
    Truncate,
    /// More than fits for a client without EDNS.
    Huge,
    Silent,
    /// Answers the first question after three seconds, and no other.
    Slow,
}

async fn resolver(behaviour: Behaviour) -> SocketAddr {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            if behaviour == Behaviour::Slow {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let answer = truth(&asked).to_vec().unwrap();
                socket.send_to(&answer, client).await.unwrap();
                return;
            }
            for bytes in replies(behaviour, &asked) {
                socket.send_to(&bytes, client).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; length.into()];
            stream.read_exact(&mut bytes).await.unwrap();
            let answer = truth(&Message::from_vec(&bytes).unwrap()).to_vec().unwrap();
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

fn truth(asked: &Message) -> Message {
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    answer.queries.clone_from(&asked.queries);
    let data = RData::A("192.0.2.1".parse().unwrap());
    let name = asked.queries[0].name.clone();
    answer.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
    answer
}

fn replies(behaviour: Behaviour, asked: &Message) -> Vec<Vec<u8>> {
    let right = truth(asked);
    match behaviour {
        Behaviour::Answer => vec![right.to_vec().unwrap()],
        Behaviour::ForgedFirst => {
            let mut id = right.clone();
            id.metadata.id ^= 1;
            let mut other = right.clone();
            other.queries[0].name = Name::from_ascii("evil.example.").unwrap();
            let mut not_answer = right.clone();
            not_answer.metadata.message_type = MessageType::Query;
            let lies = [id, other, not_answer];
            let mut all: Vec<Vec<u8>> = lies.iter().map(|m| m.to_vec().unwrap()).collect();
            all.push(vec![0xff; 3]);
            all.push(Vec::new());
            all.push(right.to_vec().unwrap());
            all
        }
        Behaviour::Truncate => {
            let mut short = right.clone();
            short.metadata.truncation = true;
            short.answers.clear();
            vec![short.to_vec().unwrap()]
        }
        Behaviour::Huge => {
            let mut huge = right.clone();
            for _ in 0..100 {
                huge.add_answer(right.answers[0].clone());
            }
            vec![huge.to_vec().unwrap()]
        }
        Behaviour::Silent | Behaviour::Slow => Vec::new(),
    }
}

#[tokio::test]
async fn forged_answers_are_ignored() {
    let upstream = resolver(Behaviour::ForgedFirst).await;
    let server = start(vec![upstream], mesh(NAMES, true)).await;
    let answer = udp(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.id, 77);
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
}

#[tokio::test]
async fn what_does_not_fit_is_asked_again_over_tcp() {
    for behaviour in [Behaviour::Truncate, Behaviour::Huge] {
        let upstream = resolver(behaviour).await;
        let server = start(vec![upstream], mesh(NAMES, true)).await;
        let asked = query("example.org.", RecordType::A);
        let answer = udp(server, &asked).await;
        assert!(answer.metadata.truncation && answer.answers.is_empty());
        assert_eq!(addresses(&tcp(server, &asked).await), ["192.0.2.1"]);
    }
    let many: Vec<String> = (0..60).map(|n| format!("240.240.1.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let server = start(Vec::new(), mesh(&[("many", &many)], true)).await;
    let mut asked = query("many.", RecordType::A);
    assert!(udp(server, &asked).await.metadata.truncation);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let answer = udp(server, &asked).await;
    assert!(!answer.metadata.truncation && answer.edns.is_some());
    assert_eq!(answer.answers.len(), 60);
}

#[tokio::test]
async fn silent_resolvers_are_passed_over() {
    let (silent, fine) = (
        resolver(Behaviour::Silent).await,
        resolver(Behaviour::Answer).await,
    );
    let server = start(vec![silent, fine], mesh(NAMES, true)).await;
    let answer = udp(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
}

/// A second resolver that never answers must not take the first one's time either.
#[tokio::test]
async fn a_resolver_that_needs_three_seconds_gets_its_answer_through() {
    let silent = resolver(Behaviour::Silent).await;
    for more in [&[][..], &[silent]] {
        let slow = resolver(Behaviour::Slow).await;
        let resolvers = [&[slow], more].concat();
        let server = start(resolvers, mesh(NAMES, true)).await;
        let answer = udp(server, &query("example.org.", RecordType::A)).await;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
}

#[tokio::test]
async fn malformed_queries_get_an_error_or_nothing_and_the_server_continues() {
    let server = start(Vec::new(), mesh(NAMES, true)).await;
    let good = query("cart.", RecordType::A);
    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    let mut none = good.clone();
    none.queries.clear();
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Update;
    let junk = [&good.to_vec().unwrap()[..12], &[0xc0, 0x0c][..]].concat();
    for (bytes, code) in [
        (two.to_vec().unwrap(), ResponseCode::FormErr),
        (none.to_vec().unwrap(), ResponseCode::FormErr),
        (junk, ResponseCode::FormErr),
        (update.to_vec().unwrap(), ResponseCode::NotImp),
    ] {
        let answer = udp_bytes(server, &bytes).await;
        assert_eq!(answer.metadata.response_code, code, "{bytes:?}");
        assert_eq!(answer.metadata.id, 77);
    }
    // No answer to these; the last line shows that the server goes on.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut response = good.clone();
    response.metadata.message_type = MessageType::Response;
    for bytes in [
        vec![],
        vec![1; 11],
        response.to_vec().unwrap(),
        vec![0xff; 4000],
    ] {
        socket.send_to(&bytes, server).await.unwrap();
    }
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
    drop(stream);
    assert_eq!(addresses(&udp(server, &good).await), ["240.240.0.1"]);
}

proptest::proptest! {
    #[test]
    fn parsing_any_bytes_returns(bytes: Vec<u8>) {
        if let super::question::ParsedQuery::Question(question) = super::question::parse(&bytes) {
            assert!(question.records(&NameRecords::default(), DnsTransport::Udp).is_some());
        }
        super::question::answers(&bytes, &bytes);
    }
}

#[test]
fn the_mesh_s_own_names_are_those_of_the_cluster_s_domain() {
    let listen = "127.0.0.1:0".parse().unwrap();
    let search = ["corp.example".to_owned(), "svc.k8s.example".to_owned()];
    let settings = DnsSettings::new(listen, Vec::new(), ("shop", "k8s.example"), &search);
    assert_eq!(settings.own, ["svc.k8s.example"]);
    let expected = ["shop.svc.k8s.example", "svc.k8s.example", "corp.example"];
    assert_eq!(settings.search, expected);
}
