//! The message's framing and connection options, from its fields; removes hop-by-hop fields.

use super::TunnelRequest;
use super::classify::is_token_byte;
use crate::message::fault::Fault;
use crate::message::head::{Head, HeaderId, Span, Version};

/// Options a Connection field may name; the bound limits the CPU time of one head.
const MAX_NAMED: usize = 32;

/// What the fields of one head say of framing and connection.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    pub content_length: Option<u64>,
    pub chunked: bool,
    pub close: bool,
    pub keep_alive: bool,
    pub te_trailers: bool,
    pub expect: Expect,
    pub hosts: usize,
    pub host: Span,
    /// `Connection: upgrade` with an `Upgrade` other than `h2c`.
    pub upgrade: bool,
    connection_upgrade: bool,
    transfer_encoding: TransferEncoding,
    named: smallvec::SmallVec<[Span; 4]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expect {
    #[default]
    Absent,
    Continue,
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TransferEncoding {
    #[default]
    Absent,
    Chunked,
    /// Only codings other than chunked so far; legal when chunked follows, but not understood here.
    Other,
    Invalid,
}

/// Fields that take more than storing.
const INTERESTING: u128 =
    HOP_BY_HOP | HeaderId::Host.bit() | HeaderId::ContentLength.bit() | HeaderId::Expect.bit();

const HOP_BY_HOP: u128 = HeaderId::Connection.bit()
    | HeaderId::KeepAlive.bit()
    | HeaderId::ProxyConnection.bit()
    | HeaderId::Te.bit()
    | HeaderId::TransferEncoding.bit()
    | HeaderId::Upgrade.bit()
    | HeaderId::Http2Settings.bit();

impl FramingFields {
    /// Interprets the fields. Faults in the fields are found here; faults that depend on the kind
    /// of message are found by the caller.
    pub fn interpret(head: &Head) -> Result<Self, Fault> {
        let mut wire = Self::default();
        if head.present & INTERESTING == 0 {
            return Ok(wire);
        }
        let mut unsupported = false;
        for field in &head.fields {
            if field.id.bit() & INTERESTING == 0 {
                continue;
            }
            let value = head.slice(field.value);
            match field.id {
                HeaderId::Host => {
                    wire.hosts = wire.hosts.saturating_add(1);
                    wire.host = field.value;
                }
                HeaderId::ContentLength => {
                    let length = content_length(value)?;
                    if wire.content_length.replace(length).is_some() {
                        return Err(Fault::RepeatedContentLength);
                    }
                }
                HeaderId::TransferEncoding => {
                    unsupported |= wire.transfer_encoding(value);
                }
                HeaderId::Connection => wire.connection(field.value, value)?,
                HeaderId::ProxyConnection => wire.persistence(value),
                HeaderId::Te => {
                    wire.te_trailers |=
                        tokens(value).any(|(_, t)| t.eq_ignore_ascii_case(b"trailers"));
                }
                HeaderId::Upgrade => wire.upgrade |= !value.is_empty(),
                HeaderId::Expect => {
                    let known = value.eq_ignore_ascii_case(b"100-continue");
                    wire.expect = match wire.expect {
                        Expect::Other => Expect::Other,
                        _ if known => Expect::Continue,
                        _ => Expect::Other,
                    };
                }
                _ => {}
            }
        }
        wire.chunked = match wire.transfer_encoding {
            TransferEncoding::Absent => false,
            TransferEncoding::Chunked if unsupported => {
                return Err(Fault::UnsupportedTransferEncoding);
            }
            TransferEncoding::Chunked => true,
            TransferEncoding::Other | TransferEncoding::Invalid => {
                return Err(Fault::InvalidTransferEncoding);
            }
        };
        if wire.chunked && head.version == Version::Http10 {
            return Err(Fault::TransferEncodingIn10);
        }
        if wire.chunked && wire.content_length.is_some() {
            return Err(Fault::ContentLengthAndChunked);
        }
        wire.upgrade &= wire.connection_upgrade
            && head.version == Version::Http11
            && !head
                .get_all(HeaderId::Upgrade)
                .any(|value| tokens(value).any(|(_, t)| t.eq_ignore_ascii_case(b"h2c")));
        Ok(wire)
    }

    /// Whether the peer would go on with this connection.
    pub fn persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// Takes hop-by-hop fields out of the head: the known ones and what `Connection` names, except
    /// known end-to-end fields, which no peer may have removed. `Upgrade` stays with
    /// `keep_upgrade`.
    pub fn strip(&self, head: &mut Head, keep_upgrade: bool) {
        for &named in &self.named {
            let (buf, fields) = (&head.buf, &mut head.fields);
            let name = named.of(buf, &[]);
            fields.retain(|field| {
                field.id != HeaderId::Other
                    || field.name.len() != name.len()
                    || !field.name.of(buf, &[]).eq_ignore_ascii_case(name)
            });
        }
        let mut going = HOP_BY_HOP;
        if keep_upgrade {
            going &= !HeaderId::Upgrade.bit();
        }
        if head.present & going != 0 {
            head.fields.retain(|field| field.id.bit() & going == 0);
            head.present &= !going;
        }
    }

    /// What the request turns its connection into, if the response agrees.
    pub fn tunnel(&self, connect: bool) -> TunnelRequest {
        match (connect, self.upgrade) {
            (true, _) => TunnelRequest::Connect,
            (false, true) => TunnelRequest::Upgrade,
            (false, false) => TunnelRequest::None,
        }
    }

    /// Adds one Transfer-Encoding field; true when it names a coding we don't understand.
    fn transfer_encoding(&mut self, value: &[u8]) -> bool {
        let mut other = false;
        let mut any = false;
        for coding in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            any = true;
            self.transfer_encoding = match self.transfer_encoding {
                // Nothing may follow chunked, itself included.
                TransferEncoding::Chunked | TransferEncoding::Invalid => TransferEncoding::Invalid,
                _ if chunked => TransferEncoding::Chunked,
                _ if is_coding(coding) => TransferEncoding::Other,
                _ => TransferEncoding::Invalid,
            };
            other |= !chunked;
        }
        if !any {
            self.transfer_encoding = TransferEncoding::Invalid;
        }
        other
    }

    fn connection(&mut self, span: Span, value: &[u8]) -> Result<(), Fault> {
        self.persistence(value);
        for (range, token) in tokens(value) {
            match HeaderId::of(token) {
                HeaderId::Upgrade => self.connection_upgrade = true,
                HeaderId::Other if !is_option(token) && !is_protected(token) => {
                    if self.named.len() == MAX_NAMED {
                        return Err(Fault::ConnectionOptions);
                    }
                    self.named.push(span.part(range));
                }
                // Known fields go anyway when they are hop-by-hop, and stay when they are not.
                _ => {}
            }
        }
        Ok(())
    }

    fn persistence(&mut self, value: &[u8]) {
        for (_, token) in tokens(value) {
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

fn is_option(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"close")
}

/// Prefixes of fields that carry an identity or control the mesh.
fn is_protected(name: &[u8]) -> bool {
    [b"x-forwarded-".as_slice(), b"x-envoy-", b"x-anyam-"]
        .iter()
        .any(|prefix| {
            name.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        })
}

/// A transfer coding's name, with parameters or without.
fn is_coding(coding: &[u8]) -> bool {
    let mut parts = coding.split(|&b| b == b';');
    let name = parts.next().unwrap_or_default().trim_ascii_end();
    // `xchunked`, `chunked;q=1` and the like are smuggling attempts, not codings.
    !name.is_empty()
        && name.iter().all(|&b| is_token_byte(b))
        && !name
            .windows(b"chunked".len())
            .any(|w| w.eq_ignore_ascii_case(b"chunked"))
}

/// Digits only, one number, no overflow (RFC 9110 8.6 without the leniency for lists).
pub(super) fn content_length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() {
        return Err(Fault::InvalidContentLength);
    }
    value.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Fault::InvalidContentLength);
        }
        sum.checked_mul(10)
            .and_then(|sum| sum.checked_add(u64::from(digit)))
            .ok_or(Fault::InvalidContentLength)
    })
}

/// The members of a comma-separated list that are not empty, with their places.
fn tokens(value: &[u8]) -> impl Iterator<Item = (std::ops::Range<usize>, &[u8])> {
    let mut at = 0;
    value.split(|&b| b == b',').filter_map(move |member| {
        let leading = member.len().saturating_sub(member.trim_ascii_start().len());
        let token = member.trim_ascii();
        let start = leading.saturating_add(at);
        at = at.saturating_add(member.len()).saturating_add(1);
        (!token.is_empty()).then(|| (start..start.saturating_add(token.len()), token))
    })
}
