//! The netlink socket: batches, which take effect as a whole or not at all, and listings.

use std::io::{self, Read};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use socket2::{Domain, Protocol, Socket, Type};

/// The kernel answers within the system call, so a longer wait means that no answer will come.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of one datagram; the kernel's have at most 32 KiB.
const ANSWER_SIZE: usize = 64 << 10;
/// Messages in answer to one request: a table as large as the options allow has a few hundred
/// elements.
const MAX_ANSWERS: usize = 16 << 10;
/// NFNL_SUBSYS_NFTABLES, in a batch's first and last message.
const NFTABLES: u16 = 10;

/// Why the kernel did not carry out a message.
#[derive(Debug)]
pub enum NetlinkError {
    /// The socket cannot be opened, or failed.
    Socket(io::Error),
    /// The message of this index was refused; `None`: the batch as a whole.
    Refused {
        index: Option<usize>,
        error: io::Error,
    },
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

/// A netlink socket of one protocol.
pub struct Netlink(Socket);

impl Netlink {
    /// `protocol`: `NETLINK_NETFILTER` or `NETLINK_ROUTE`.
    ///
    /// # Errors
    /// When the kernel does not have the protocol.
    pub fn open(protocol: libc::c_int) -> io::Result<Self> {
        let domain = Domain::from(libc::AF_NETLINK);
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(Self(socket))
    }

    /// Sends `messages` as one transaction and waits until it is in force.
    ///
    /// # Errors
    /// The first refusal; then nothing of the batch is in force.
    pub fn batch(&self, messages: &[NfTablesMessage]) -> Result<(), NetlinkError> {
        let control = |message: ControlMessage| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
            NetfilterMessage::new(header, message)
        };
        let mut bytes = Vec::new();
        append(
            &mut bytes,
            control(ControlMessage::BatchBegin),
            NLM_F_REQUEST,
            0,
        );
        for (number, message) in (1..).zip(messages) {
            let mut flags = NLM_F_REQUEST;
            if is_new(message) {
                flags |= NLM_F_CREATE;
                if matches!(message, NfTablesMessage::NewRule(_)) {
                    flags |= netlink_packet_core::NLM_F_APPEND;
                }
            }
            if number as usize == messages.len() {
                // The kernel reports refusals in any case, but success only on request.
                flags |= NLM_F_ACK;
            }
            append(&mut bytes, inet(message.clone()), flags, number);
        }
        let end = messages.len() as u32 + 1;
        append(
            &mut bytes,
            control(ControlMessage::BatchEnd),
            NLM_F_REQUEST,
            end,
        );
        self.send(&bytes)?;
        loop {
            for answer in self.receive::<NetfilterMessage>()? {
                let NetlinkPayload::Error(outcome) = answer.payload else {
                    continue;
                };
                let number = answer.header.sequence_number as usize;
                match outcome.code {
                    Some(_) => {
                        let index = number.checked_sub(1).filter(|at| *at < messages.len());
                        let error = outcome.to_io();
                        return Err(NetlinkError::Refused { index, error });
                    }
                    None if number == messages.len() => return Ok(()),
                    None => {}
                }
            }
        }
    }

    /// What the kernel lists in answer to `question`.
    ///
    /// # Errors
    /// A refusal; `ENOENT` where there is no such table or set.
    pub fn list(&self, question: NfTablesMessage) -> Result<Vec<NfTablesMessage>, NetlinkError> {
        let mut bytes = Vec::new();
        append(&mut bytes, inet(question), NLM_F_REQUEST | NLM_F_DUMP, 1);
        self.send(&bytes)?;
        let mut all = Vec::new();
        loop {
            for answer in self.receive::<NetfilterMessage>()? {
                if answer.header.flags & NLM_F_DUMP_INTR != 0 {
                    let error = "the rules changed while they were listed; try again";
                    return Err(io::Error::other(error).into());
                }
                match answer.payload {
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok(all),
                    NetlinkPayload::Done(done) => {
                        let error = io::Error::from_raw_os_error(done.code.saturating_abs());
                        return Err(NetlinkError::Refused { index: None, error });
                    }
                    NetlinkPayload::Error(outcome) if outcome.code.is_some() => {
                        let error = outcome.to_io();
                        return Err(NetlinkError::Refused { index: None, error });
                    }
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        inner: NetfilterMessageInner::NfTables(message),
                        ..
                    }) => all.push(message),
                    _ => {}
                }
                if all.len() > MAX_ANSWERS {
                    return Err(io::Error::other("the table has far more than our rules").into());
                }
            }
        }
    }

    /// Sends one message and waits for its acknowledgement.
    ///
    /// # Errors
    /// The refusal.
    pub fn acknowledged<M>(&self, message: M, flags: u16) -> Result<(), NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
    {
        let mut bytes = Vec::new();
        append(&mut bytes, message, NLM_F_REQUEST | NLM_F_ACK | flags, 1);
        self.send(&bytes)?;
        loop {
            for answer in self.receive::<M>()? {
                if let NetlinkPayload::Error(outcome) = answer.payload {
                    let error = outcome.to_io();
                    return match outcome.code {
                        None => Ok(()),
                        Some(_) => Err(NetlinkError::Refused { index: None, error }),
                    };
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.0.send(bytes)? {
            sent if sent == bytes.len() => Ok(()),
            _ => Err(io::Error::other("the kernel accepted half of a message")),
        }
    }

    /// The messages of the next datagram.
    fn receive<M: NetlinkDeserializable>(&self) -> io::Result<Vec<NetlinkMessage<M>>> {
        let mut buffer = vec![0; ANSWER_SIZE];
        let length = (&self.0).read(&mut buffer)?;
        let mut left = buffer.get(..length).unwrap_or_default();
        let mut all = Vec::new();
        while !left.is_empty() {
            let message = NetlinkMessage::deserialize(left).map_err(io::Error::other)?;
            // Messages begin at multiples of four bytes.
            let taken = (message.header.length as usize).next_multiple_of(4);
            left = left.get(taken.max(1)..).unwrap_or_default();
            all.push(message);
        }
        Ok(all)
    }
}

fn is_new(message: &NfTablesMessage) -> bool {
    matches!(
        message,
        NfTablesMessage::NewTable(_)
            | NfTablesMessage::NewSet(_)
            | NfTablesMessage::NewSetElement(_)
            | NfTablesMessage::NewChain(_)
            | NfTablesMessage::NewRule(_)
    )
}

fn inet(message: NfTablesMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    NetfilterMessage::new(header, message)
}

fn append<M>(bytes: &mut Vec<u8>, message: M, flags: u16, number: u32)
where
    M: NetlinkSerializable + Into<NetlinkPayload<M>>,
{
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, message.into());
    message.finalize();
    let begin = bytes.len().next_multiple_of(4);
    bytes.resize(begin + message.buffer_len(), 0);
    if let Some(place) = bytes.get_mut(begin..) {
        message.serialize(place);
    }
}
