//! A message's question, and the answers made here.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Without EDNS a UDP answer has at most this many bytes.
const PLAIN_UDP: usize = 512;
/// What a UDP answer has at most with EDNS, whatever the client offers: no fragments.
const EDNS_UDP: usize = 1232;
const HEADER: usize = 12;

/// A question that can be answered.
pub(super) struct Question {
    message: Message,
    /// Lower case, no trailing dot.
    pub(super) name: String,
    /// Of class IN, the only class that the mesh has names in.
    pub(super) internet: bool,
    /// Bytes an answer over UDP may have.
    pub(super) udp_limit: usize,
}

/// The result of parsing a message.
pub(super) enum Parsed {
    Question(Box<Question>),
    /// Answer with this.
    Error(Vec<u8>),
    /// Not answered: it has no header, or is itself a response.
    Drop,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(&[high, low, flags, ..]) = bytes.first_chunk::<HEADER>() else {
        return Parsed::Drop;
    };
    let is_response = flags & 0x80 != 0;
    if is_response {
        return Parsed::Drop;
    }
    let id = u16::from_be_bytes([high, low]);
    let error = |code| {
        let message = Message::error_msg(id, OpCode::Query, code);
        message.to_vec().map_or(Parsed::Drop, Parsed::Error)
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
        Some(edns) => usize::from(edns.max_payload()).clamp(PLAIN_UDP, EDNS_UDP),
        None => PLAIN_UDP,
    };
    Parsed::Question(Box::new(Question {
        name,
        internet: query.query_class == DNSClass::IN,
        udp_limit,
        message,
    }))
}

impl Question {
    /// The name's addresses, as far as they are of the family asked for. A name that is there
    /// without such addresses is no error: NOERROR without answers (NODATA).
    pub(super) fn addresses(&self, addresses: &[IpAddr], ttl: u32) -> Option<Vec<u8>> {
        let query = self.message.queries.first()?;
        let mut answer = self.answer(ResponseCode::NoError);
        answer.metadata.authoritative = true;
        for address in addresses {
            let data = match (query.query_type, address) {
                (RecordType::A | RecordType::ANY, IpAddr::V4(ip)) => RData::A(A(*ip)),
                (RecordType::AAAA | RecordType::ANY, IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
                _ => continue,
            };
            answer.add_answer(Record::from_rdata(query.name.clone(), ttl, data));
        }
        if answer.answers.is_empty() {
            answer.add_authority(negative(&query.name, ttl));
        }
        answer.to_vec().ok()
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
            edns.set_max_payload(EDNS_UDP as u16);
            answer.set_edns(edns);
        }
        answer
    }
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
