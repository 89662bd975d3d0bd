//! Parses a ClientHello for SNI and ALPN. Sans-IO; called again with more bytes until it is
//! decided.

use std::borrow::Cow;

/// Handshake bytes of a ClientHello that are parsed; real clients send fewer.
const MAX_HELLO: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Names of a protocol list that are kept, in the client's order of preference: the list stays for
/// as long as the connection, and a ClientHello has room for thousands.
pub const MAX_PROTOCOLS: usize = 32;
const EXT_SERVER_NAME: u16 = 0;
const EXT_ALPN: u16 = 16;

/// The parts of a ClientHello that select a filter chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case.
    pub sni: Option<Box<str>>,
    /// In the client's order.
    pub alpn: Vec<Box<[u8]>>,
}

/// The result of parsing the first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Everything so far fits a ClientHello; more bytes are needed.
    Incomplete,
    NotTls,
    Hello(ClientHello),
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    match handshake_bytes(bytes) {
        Handshake::Incomplete => Parsed::Incomplete,
        Handshake::No => Parsed::NotTls,
        Handshake::Complete(body) => client_hello(&body).map_or(Parsed::NotTls, Parsed::Hello),
    }
}

enum Handshake<'a> {
    Incomplete,
    No,
    /// The body of the ClientHello, without its four bytes of header.
    Complete(Cow<'a, [u8]>),
}

/// Joins the record fragments of the first handshake message.
fn handshake_bytes(bytes: &[u8]) -> Handshake<'_> {
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    loop {
        // Checked byte by byte: the first byte that does not match decides. TLS stacks check only
        // the major number of the version, so all that they accept is recognised here.
        let plausible =
            rest.first().is_none_or(|&b| b == HANDSHAKE) && rest.get(1).is_none_or(|&b| b == 3);
        if !plausible {
            return Handshake::No;
        }
        let &[_, _, _, high, low, ref after @ ..] = rest else {
            return Handshake::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > 16384 {
            return Handshake::No;
        }
        let (fragment, next) = after.split_at(after.len().min(length));
        match &mut message {
            Cow::Borrowed([]) => message = Cow::Borrowed(fragment),
            joined => joined.to_mut().extend_from_slice(fragment),
        }
        if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Handshake::No;
        }
        if let Some(&[_, a, b, c]) = message.first_chunk() {
            let body = u32::from_be_bytes([0, a, b, c]) as usize;
            if body > MAX_HELLO {
                return Handshake::No;
            }
            if message.len().saturating_sub(4) >= body {
                return Handshake::Complete(slice_of(message, 4, body));
            }
        }
        if after.len() < length {
            return Handshake::Incomplete;
        }
        rest = next;
    }
}

/// So many bytes from `start` on, or what there is of them.
fn slice_of(bytes: Cow<'_, [u8]>, start: usize, count: usize) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(bytes) => {
            let (_, rest) = bytes.split_at(start.min(bytes.len()));
            Cow::Borrowed(rest.get(..count).unwrap_or(rest))
        }
        Cow::Owned(bytes) => Cow::Owned(bytes.into_iter().skip(start).take(count).collect()),
    }
}

fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    body.take(2 + 32)?; // version, random
    body.vec8()?; // session id
    body.vec16()?; // cipher suites
    body.vec8()?; // compression methods
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vec16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut data = Reader(extensions.vec16()?);
        match kind {
            EXT_SERVER_NAME => hello.sni = server_name(&mut data)?,
            EXT_ALPN => hello.alpn = protocols(&mut data)?,
            _ => {}
        }
    }
    Some(hello)
}

/// `Some(None)`: there is a list, but no usable host name in it.
fn server_name(data: &mut Reader<'_>) -> Option<Option<Box<str>>> {
    let mut names = Reader(data.vec16()?);
    while !names.0.is_empty() {
        let kind = names.u8()?;
        let name = names.vec16()?;
        if kind == 0 {
            // RFC 6066 3 has none; rustls takes it for the same name.
            let name = name.strip_suffix(b".").unwrap_or(name);
            let plain = name.len() <= 255 && name.iter().all(|&b| is_host_byte(b));
            let name = std::str::from_utf8(name).ok().filter(|_| plain);
            return Some(name.map(|name| name.to_ascii_lowercase().into()));
        }
    }
    Some(None)
}

/// Names go into logs and matchers, so only characters of host names are allowed.
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}

fn protocols(data: &mut Reader<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut list = Reader(data.vec16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let name = list.vec8()?;
        if protocols.len() < MAX_PROTOCOLS {
            protocols.push(name.into());
        }
    }
    Some(protocols)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let n = self.u8()?;
        self.take(n.into())
    }

    fn vec16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }
}
