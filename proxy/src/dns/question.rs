//! A message's question, and the answers made here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::forward::DnsTransport;
use crate::config::name::{NameRecords, Srv};

/// Without EDNS a UDP answer has at most this many bytes.
const PLAIN_UDP: u16 = 512;
/// What a UDP answer has at most with EDNS, whatever the client offers: no fragments.
const EDNS_UDP: u16 = 1232;
const HEADER: usize = 12;
/// The smallest record: its name as a pointer, type, class, TTL and length.
const RECORD: u16 = 12;

/// A question that can be answered.
pub(super) struct DnsQuestion {
    message: Message,
    /// Lower case, no trailing dot.
    pub(super) name: String,
    /// Of class IN, the only class that the mesh has names in.
    pub(super) internet: bool,
    /// Bytes an answer over UDP may have.
    udp_limit: u16,
}

/// The result of parsing a message.
pub(super) enum ParsedQuery {
    Question(Box<DnsQuestion>),
    /// Answer with this.
    Error(Vec<u8>),
    /// Not answered: it has no header, or is itself a response.
    Drop,
}

pub(super) fn parse(bytes: &[u8]) -> ParsedQuery {
    let Some(&[high, low, flags, ..]) = bytes.first_chunk::<HEADER>() else {
        return ParsedQuery::Drop;
    };
    let is_response = flags & 0x80 != 0;
    if is_response {
        return ParsedQuery::Drop;
    }
    let id = u16::from_be_bytes([high, low]);
    let error = |code| {
        let message = Message::error_msg(id, OpCode::Query, code);
        message
            .to_vec()
            .map_or(ParsedQuery::Drop, ParsedQuery::Error)
    };
    let Ok(message) = Message::from_vec(bytes) else {
        return error(ResponseCode::FormErr);
    };
    if message.metadata.op_code != OpCode::Query {
        return error(ResponseCode::NotImp);
    }
    let [query] = &message.queries[..] else {
        return error(ResponseCode::FormErr);
    };
    let name = query.name.to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
    let udp_limit = match &message.edns {
        Some(edns) => edns.max_payload().clamp(PLAIN_UDP, EDNS_UDP),
        None => PLAIN_UDP,
    };
    ParsedQuery::Question(Box::new(DnsQuestion {
        name,
        internet: query.query_class == DNSClass::IN,
        udp_limit,
        message,
    }))
}

impl DnsQuestion {
    /// The name's records of the requested type. A name that exists without such records is no
    /// error: NOERROR without answers (NODATA).
    pub(super) fn records(
        &self,
        records: &NameRecords,
        transport: DnsTransport,
    ) -> Option<Vec<u8>> {
        let query = self.message.queries.first()?;
        let ttl = u32::try_from(records.ttl.as_secs()).unwrap_or(u32::MAX);
        let mut answer = self.answer(ResponseCode::NoError);
        answer.metadata.authoritative = true;
        let addresses = records.addresses.iter().map(|ip| address(*ip));
        let is_asked = |of: RecordType| [RecordType::ANY, of].contains(&query.query_type);
        let asked = |data: &RData| is_asked(data.record_type());
        let services = records.services.iter();
        let services = services.filter(|_| is_asked(RecordType::SRV));
        let services = services.filter_map(service);
        answer.add_answers(
            addresses
                .chain(services)
                .filter(asked)
                .take(self.most_records(transport))
                .map(|data| Record::from_rdata(query.name.clone(), ttl, data)),
        );
        if answer.answers.is_empty() {
            answer.add_authority(negative(&query.name, ttl));
        } else if is_asked(RecordType::SRV) {
            let most = self.most_records(transport);
            answer.add_additionals(targets(&records.services, ttl).take(most));
        }
        self.fit(answer, transport)
    }

    /// Encodes the message within the limit of its transport. Additional records may be left out
    /// (RFC 2181, section 9); with fewer answers than there are, TC is set.
    fn fit(&self, mut answer: Message, transport: DnsTransport) -> Option<Vec<u8>> {
        let limit = self.limit(transport);
        let mut bytes = encode(&answer, limit)?;
        if !answer.additionals.is_empty() && is_truncated(&bytes) {
            answer.additionals.clear();
            bytes = encode(&answer, limit)?;
        }
        Some(bytes)
    }

    /// The limit of an answer, bytes.
    pub(super) fn limit(&self, transport: DnsTransport) -> u16 {
        match transport {
            DnsTransport::Udp => self.udp_limit,
            DnsTransport::Tcp => u16::MAX,
        }
    }

    /// One record more than fits into an answer, so that truncation shows.
    fn most_records(&self, transport: DnsTransport) -> usize {
        usize::from(self.limit(transport) / RECORD).saturating_add(1)
    }

    /// An answer that is only a code.
    pub(super) fn code(&self, code: ResponseCode) -> Option<Vec<u8>> {
        let mut answer = self.answer(code);
        if code == ResponseCode::NXDomain {
            let name = &self.message.queries.first()?.name;
            answer.add_authority(negative(name, 1));
        }
        answer.to_vec().ok()
    }

    /// A truncated response (TC), after which the client retries over TCP.
    pub(super) fn truncated(&self) -> Option<Vec<u8>> {
        let mut answer = self.answer(ResponseCode::NoError);
        answer.metadata.truncation = true;
        answer.to_vec().ok()
    }

    fn answer(&self, code: ResponseCode) -> Message {
        let asked = &self.message;
        let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_desired = asked.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.response_code = code;
        answer.queries.clone_from(&asked.queries);
        if asked.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_UDP);
            answer.set_edns(edns);
        }
        answer
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

/// `None` where the target is no name, which the compiler refuses.
fn service(srv: &Srv) -> Option<RData> {
    let target = target(srv)?;
    Some(RData::SRV(SRV::new(0, srv.weight, srv.port, target)))
}

fn target(srv: &Srv) -> Option<Name> {
    let mut name = Name::from_ascii(&srv.target).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Addresses of the targets, each once.
fn targets(services: &[Srv], ttl: u32) -> impl Iterator<Item = Record> {
    let mut seen = BTreeSet::new();
    let all = services.iter().flat_map(|srv| {
        let addresses = srv.addresses.iter().map(|ip| (&*srv.target, *ip));
        addresses.zip(std::iter::repeat(srv))
    });
    all.filter(move |(one, _)| seen.insert(*one))
        .filter_map(move |((_, ip), srv)| Some(Record::from_rdata(target(srv)?, ttl, address(ip))))
}

/// As much of the message as fits into `limit` bytes; with TC, where that is not all.
fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_UDP));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    message.emit(&mut encoder).ok()?;
    Some(bytes)
}

fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// The SOA whose minimum bounds negative caching (RFC 2308).
fn negative(name: &Name, ttl: u32) -> Record {
    let soa = SOA::new(name.clone(), name.clone(), 1, 60, 60, 60, ttl);
    Record::from_rdata(name.clone(), ttl, RData::SOA(soa))
}

/// Whether `response` answers `query`: same question, and a response at all. Both in wire form;
/// ids are compared by the caller.
pub(super) fn answers(query: &[u8], response: &[u8]) -> bool {
    let (Some(asked), Some(answered)) = (question_bytes(query), question_bytes(response)) else {
        return false;
    };
    let is_response = response.get(2).is_some_and(|flags| flags & 0x80 != 0);
    is_response && asked.eq_ignore_ascii_case(answered)
}

/// The one question of a message. Compression has no use there and is not followed.
fn question_bytes(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => break,
            1..=63 => at = at.checked_add(length)?.checked_add(1)?,
            _ => return None,
        }
    }
    message.get(HEADER..at.checked_add(5)?)
}
