//! What must hold for any bytes a peer may send; shared by fuzz targets and their corpus test.
//!
//! - After each read, a fault too, the whole head can be read: logs, taps and metrics do.
//! - However the bytes are split, the same messages and the same fault come out.
//! - No body is longer than its head declared.
//! - What was accepted and is written on is read again as exactly one message with the same
//!   content: nothing can be smuggled past us.

use anyam_proxy::http::h1::{
    BodyEvent, BodyLength, ClientConn, Framing, HeadLimits, Out, RequestOptions, ResponseInfo,
    ServerConn, Spelling, TunnelRequest,
};
use anyam_proxy::message::fault::Fault;
use anyam_proxy::message::head::{Head, HeaderId};
use anyam_proxy::message::path::{self, PathOptions};
use bytes::{Buf, Bytes, BytesMut};

mod heads;
use self::heads::{fields, read_in_full, request_item, response_item};

/// One thing that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Head(String, Vec<(String, Vec<u8>)>),
    Body(Vec<u8>),
    Trailers(Vec<(String, Vec<u8>)>),
    /// The message was complete, and this many bytes followed.
    End(usize),
    Fault(Fault),
    /// More bytes would be needed.
    Partial,
}

/// Small, so that a fuzzer reaches them.
pub fn limits() -> HeadLimits {
    HeadLimits {
        head_bytes: 2048,
        fields: 16,
    }
}

/// Requests: whole, byte by byte, and written on.
pub fn requests(bytes: &[u8]) {
    let whole = read_requests(&[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(whole, read_requests(&pieces), "byte by byte");
}

/// Responses to each kind of request: whole, byte by byte, and written on.
pub fn responses(bytes: &[u8]) {
    for request in REQUESTS {
        let whole = read_responses(request, &[bytes]);
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(whole, read_responses(request, &pieces), "byte by byte");
    }
}

/// What responses may answer.
pub const REQUESTS: [&[u8]; 4] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
];

/// Feeds a server connection piece by piece and answers each request.
pub fn read_requests(pieces: &[&[u8]]) -> Vec<Item> {
    let options = RequestOptions {
        limits: limits(),
        ..RequestOptions::default()
    };
    let mut feed = Feed::new(pieces);
    let mut conn = ServerConn::new(options);
    let mut items = Vec::new();
    let (mut head, mut trailers, mut out) = (Head::new(), Head::new(), Out::new());
    loop {
        let read = feed.until(|input| conn.read_head(input, &mut head));
        read_in_full(&head);
        let info = match read {
            Some(Ok(info)) => info,
            end => return finish(items, end.map(|r| r.map(drop))),
        };
        let from = items.len();
        items.push(request_item(&head));
        let body = feed.body(&mut items, &mut trailers, info.body, |input, trailers| {
            conn.read_body(input, trailers)
        });
        if !matches!(body, Some(Ok(()))) {
            return finish(items, body);
        }
        write_request_on(&head, &info, &items[from..]);
        if info.tunnel != TunnelRequest::None {
            items.push(Item::End(feed.left()));
            return items;
        }
        let mut answer = Head::new();
        answer.set_status(200);
        conn.write_head(&answer, BodyLength::None, false, &mut out);
        assert_eq!(conn.write_end(None, &mut out), Ok(()));
        out.clear();
        items.push(Item::End(0));
        if !conn.next(&feed.input) {
            items.push(Item::End(feed.left()));
            return items;
        }
    }
}

/// Feeds a client connection that sent `request` piece by piece.
pub fn read_responses(request: &[u8], pieces: &[&[u8]]) -> Vec<Item> {
    let mut feed = Feed::new(pieces);
    let mut conn = ClientConn::new(limits(), Spelling::default());
    let mut items = Vec::new();
    let (mut head, mut trailers, mut out) = (Head::new(), Head::new(), Out::new());
    let mut asked = Head::new();
    let info = ServerConn::new(RequestOptions::default())
        .read_head(&mut BytesMut::from(request), &mut asked)
        .expect("a valid request")
        .expect("a whole one");
    conn.write_head(&asked, info.body, &info, &mut out);
    assert_eq!(conn.write_end(None, &mut out), Ok(()));
    loop {
        let read = feed.until(|input| conn.read_head(input, &mut head));
        read_in_full(&head);
        let response = match read {
            Some(Ok(info)) => info,
            end => return finish(items, end.map(|r| r.map(drop))),
        };
        let from = items.len();
        items.push(response_item(&head));
        if response.interim {
            write_response_on(request, &head, &response, &items[from..]);
            continue;
        }
        if response.tunnel {
            items.push(Item::End(feed.left()));
            return items;
        }
        let body = feed.body(
            &mut items,
            &mut trailers,
            response.body,
            |input, trailers| conn.read_body(input, trailers),
        );
        match body {
            Some(Ok(())) => {
                write_response_on(request, &head, &response, &items[from..]);
                items.push(Item::End(feed.left()));
                return items;
            }
            None if conn.read_eof().is_ok() => {
                write_response_on(request, &head, &response, &items[from..]);
                items.push(Item::End(0));
                return items;
            }
            end => return finish(items, end),
        }
    }
}

fn finish(mut items: Vec<Item>, end: Option<Result<(), Fault>>) -> Vec<Item> {
    items.push(match end {
        Some(Err(fault)) => Item::Fault(fault),
        _ => Item::Partial,
    });
    items
}

/// A read buffer that gets its bytes in pieces.
struct Feed<'a> {
    pieces: std::slice::Iter<'a, &'a [u8]>,
    input: BytesMut,
}

impl<'a> Feed<'a> {
    fn new(pieces: &'a [&'a [u8]]) -> Self {
        Self {
            pieces: pieces.iter(),
            input: BytesMut::new(),
        }
    }

    fn left(&self) -> usize {
        self.input.len() + self.pieces.clone().map(|p| p.len()).sum::<usize>()
    }

    fn more(&mut self) -> Option<()> {
        self.input.extend_from_slice(self.pieces.next()?);
        Some(())
    }

    /// Reads until there is something; `None` when the bytes are used up.
    fn until<T>(
        &mut self,
        mut read: impl FnMut(&mut BytesMut) -> Result<Option<T>, Fault>,
    ) -> Option<Result<T, Fault>> {
        loop {
            match read(&mut self.input) {
                Ok(Some(found)) => return Some(Ok(found)),
                Ok(None) => self.more()?,
                Err(fault) => return Some(Err(fault)),
            }
        }
    }

    fn body(
        &mut self,
        items: &mut Vec<Item>,
        trailers: &mut Head,
        length: BodyLength,
        mut read: impl FnMut(&mut BytesMut, &mut Head) -> Result<BodyEvent, Fault>,
    ) -> Option<Result<(), Fault>> {
        let mut body = Vec::new();
        let end = loop {
            match read(&mut self.input, trailers) {
                Ok(BodyEvent::Data(data)) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Ok(BodyEvent::More) => {
                    if self.more().is_none() {
                        break None;
                    }
                }
                Ok(BodyEvent::End) => break Some(Ok(None)),
                Ok(BodyEvent::Trailers) => break Some(Ok(Some(fields(trailers)))),
                Err(fault) => {
                    read_in_full(trailers);
                    break Some(Err(fault));
                }
            }
        };
        match length {
            BodyLength::None => assert!(body.is_empty()),
            BodyLength::Known(length) if matches!(end, Some(Ok(_))) => {
                assert_eq!(body.len() as u64, length);
            }
            BodyLength::Known(length) => assert!((body.len() as u64) < length),
            BodyLength::Unknown | BodyLength::UntilClose => {}
        }
        items.push(Item::Body(body));
        Some(end?.map(|trailers| items.extend(trailers.map(Item::Trailers))))
    }
}

/// Fields that the next hop must see as they are.
fn end_to_end(item: &Item) -> Vec<(String, Vec<u8>)> {
    let Item::Head(_, fields) = item else {
        return Vec::new();
    };
    let ours = [HeaderId::Host, HeaderId::ContentLength];
    fields
        .iter()
        .filter(|(name, _)| !ours.contains(&HeaderId::of(name.as_bytes())))
        .cloned()
        .collect()
}

fn body_of(items: &[Item]) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
    let mut all = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Body(body) => all.0.extend_from_slice(body),
            Item::Trailers(trailers) => all.1.clone_from(trailers),
            _ => {}
        }
    }
    all
}

/// Trailers as a head to be written.
fn trailer_head(fields: &[(String, Vec<u8>)]) -> Head {
    let mut head = Head::new();
    for (name, value) in fields {
        head.append_named(name.as_bytes(), value);
    }
    head
}

fn drain(out: &mut Out) -> BytesMut {
    BytesMut::from(&out.copy_to_bytes(out.remaining())[..])
}

fn roomy() -> HeadLimits {
    HeadLimits {
        head_bytes: 8192,
        fields: 64,
    }
}

fn write_request_on(head: &Head, info: &Framing, items: &[Item]) {
    let mut head = head.clone();
    if head.authority().is_empty() {
        head.set_authority(b"filled.in");
    }
    // As every request is before it is forwarded; one that is refused goes nowhere.
    if path::normalise(&mut head, &PathOptions::default()).is_err() {
        return;
    }
    let (body, trailers) = body_of(items);
    let mut client = ClientConn::new(roomy(), Spelling::default());
    let mut out = Out::new();
    client.write_head(&head, info.body, info, &mut out);
    if !body.is_empty() {
        assert_eq!(
            client.write_data(Bytes::from(body.clone()), &mut out),
            Ok(())
        );
    }
    assert_eq!(
        client.write_end(Some(&trailer_head(&trailers)), &mut out),
        Ok(())
    );

    let mut server = ServerConn::new(RequestOptions {
        limits: roomy(),
        ..RequestOptions::default()
    });
    let bytes = drain(&mut out);
    let mut feed = Feed::new(&[]);
    feed.input = bytes;
    let mut again = Head::new();
    let info_again = match feed.until(|input| server.read_head(input, &mut again)) {
        Some(Ok(info)) => info,
        end => panic!("written on, it is refused: {end:?}"),
    };
    assert_eq!(again.method_name(), head.method_name());
    assert_eq!(again.authority(), head.authority());
    assert_eq!(again.path_and_query(), head.path_and_query());
    assert_eq!(info_again.tunnel, info.tunnel);
    assert_eq!(info_again.te_trailers, info.te_trailers);
    assert_eq!(
        end_to_end(&request_item(&again)),
        end_to_end(&request_item(&head))
    );
    let mut read = Vec::new();
    let end = feed.body(&mut read, &mut again, info_again.body, |input, trailers| {
        server.read_body(input, trailers)
    });
    assert_eq!(end, Some(Ok(())));
    assert_eq!(body_of(&read), (body, trailers));
    assert_eq!(feed.left(), 0, "something was smuggled");
}

fn write_response_on(request: &[u8], head: &Head, info: &ResponseInfo, items: &[Item]) {
    let mut server = ServerConn::new(RequestOptions::default());
    let mut asked = Head::new();
    let mut request = BytesMut::from(request);
    let asked_info = server.read_head(&mut request, &mut asked);
    let asked_info = asked_info.expect("valid").expect("whole");
    let (body, trailers) = body_of(items);
    let mut out = Out::new();
    if info.interim {
        server.write_interim(head, &mut out);
    } else {
        server.write_head(head, info.body, false, &mut out);
        assert_eq!(
            server.write_data(Bytes::from(body.clone()), &mut out),
            Ok(())
        );
        assert_eq!(
            server.write_end(Some(&trailer_head(&trailers)), &mut out),
            Ok(())
        );
    }

    let mut client = ClientConn::new(roomy(), Spelling::default());
    client.write_head(&asked, asked_info.body, &asked_info, &mut Out::new());
    assert_eq!(client.write_end(None, &mut Out::new()), Ok(()));
    let mut feed = Feed::new(&[]);
    feed.input = drain(&mut out);
    let mut again = Head::new();
    let info_again = match feed.until(|input| client.read_head(input, &mut again)) {
        Some(Ok(info)) => info,
        end => panic!("written on, it is refused: {end:?}"),
    };
    assert_eq!(again.status(), head.status());
    assert_eq!(info_again.interim, info.interim);
    assert_eq!(end_to_end(&response_item(&again)), end_to_end(&items[0]));
    if info.interim {
        assert_eq!(feed.left(), 0, "something was smuggled");
        return;
    }
    let mut read = Vec::new();
    let end = feed.body(&mut read, &mut again, info_again.body, |input, trailers| {
        client.read_body(input, trailers)
    });
    assert_eq!(end, Some(Ok(())));
    let read = body_of(&read);
    assert_eq!(read, (body, trailers));
    assert_eq!(feed.left(), 0, "something was smuggled");
}
