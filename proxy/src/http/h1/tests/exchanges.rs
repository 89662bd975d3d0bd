//! Whole exchanges: what may follow, what is buffered, what is reused.

use bytes::Bytes;

use super::*;

struct Server {
    conn: ServerConn,
    input: BytesMut,
    head: Head,
    out: Out,
}

impl Server {
    fn new(bytes: &[u8]) -> Self {
        Self {
            conn: ServerConn::new(RequestOptions::default()),
            input: BytesMut::from(bytes),
            head: Head::new(),
            out: Out::new(),
        }
    }

    fn head(&mut self) -> Option<Framing> {
        self.conn
            .read_head(&mut self.input, &mut self.head)
            .unwrap()
    }

    fn body(&mut self) -> BodyEvent {
        self.conn
            .read_body(&mut self.input, &mut Head::new())
            .unwrap()
    }

    fn answer(&mut self, status: u16) -> String {
        let mut head = Head::new();
        head.set_status(status);
        self.conn
            .write_head(&head, BodyLength::None, false, &mut self.out);
        self.conn.write_end(None, &mut self.out).unwrap();
        text(&mut self.out)
    }

    fn next(&mut self) -> bool {
        self.conn.next(&self.input)
    }
}

#[test]
fn pipelined_requests_wait_for_their_turn() {
    let mut server = Server::new(
        &[
            GET,
            b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            GET,
        ]
        .concat(),
    );
    assert!(server.head().is_some());
    assert!(server.head().is_none(), "not before the first is answered");
    server.answer(200);
    assert!(server.next());
    assert_eq!(server.head().unwrap().body, BodyLength::Known(2));
    assert_eq!(server.body(), BodyEvent::Data(Bytes::from_static(b"hi")));
    assert_eq!(server.body(), BodyEvent::End);
    server.answer(200);
    assert!(server.next() && server.head().is_some());
}

#[test]
fn a_body_that_was_not_read_ends_the_connection() {
    let mut server = Server::new(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    server.head().unwrap();
    server.answer(403);
    assert!(!server.next());
    assert!(server.head().is_none(), "what lies there is a body");
}

#[test]
fn bytes_behind_an_upgrade_are_held_back() {
    const UPGRADE: &[u8] =
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let smuggled: Vec<u8> = [UPGRADE, GET].concat();
    // Agreed: they are the tunnel's.
    let mut server = Server::new(&smuggled);
    assert_eq!(server.head().unwrap().tunnel, TunnelRequest::Upgrade);
    assert_eq!(server.body(), BodyEvent::End, "not a body either");
    assert!(server.head().is_none());
    let mut head = Head::new();
    head.set_status(101);
    head.append(crate::message::head::HeaderId::Upgrade, b"websocket");
    server
        .conn
        .write_head(&head, BodyLength::None, false, &mut server.out);
    assert_eq!(
        text(&mut server.out),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"
    );
    assert_eq!(server.body(), BodyEvent::Data(Bytes::from_static(GET)));
    server
        .conn
        .write_data(Bytes::from_static(b"raw"), &mut server.out)
        .unwrap();
    assert_eq!(text(&mut server.out), "raw");
    assert!(!server.next());

    // Refused: they belong to no request.
    let mut server = Server::new(&smuggled);
    server.head().unwrap();
    server.answer(403);
    assert!(!server.next() && server.head().is_none());

    // Refused, and nothing was sent too early: the connection may go on.
    let mut server = Server::new(UPGRADE);
    server.head().unwrap();
    server.answer(403);
    assert!(server.next());
}

#[test]
fn connect_ends_its_connection_either_way() {
    const CONNECT: &[u8] = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n";
    let mut server = Server::new(CONNECT);
    assert_eq!(server.head().unwrap().tunnel, TunnelRequest::Connect);
    assert_eq!(server.answer(200), "HTTP/1.1 200 OK\r\n\r\n");
    assert!(!server.next());
    let mut server = Server::new(CONNECT);
    server.head().unwrap();
    assert!(server.answer(403).contains("connection: close"));
    assert!(!server.next());
}

#[test]
fn nothing_is_forwarded_into_a_tunnel_before_it_is_agreed_on() {
    let mut conn = asking(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    let mut out = Out::new();
    assert_eq!(
        conn.write_data(Bytes::from_static(b"x"), &mut out),
        Err(Fault::BodyTooLong)
    );
    let mut input = BytesMut::from(&b"HTTP/1.1 200 OK\r\n\r\nraw"[..]);
    assert!(
        conn.read_head(&mut input, &mut Head::new())
            .unwrap()
            .unwrap()
            .tunnel
    );
    assert_eq!(conn.write_data(Bytes::from_static(b"x"), &mut out), Ok(()));
    let event = conn.read_body(&mut input, &mut Head::new());
    assert_eq!(event, Ok(BodyEvent::Data(Bytes::from_static(b"raw"))));
    assert!(!conn.next(&input));
}

#[test]
fn a_refused_expectation_ends_the_connection() {
    let put = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut server = Server::new(put);
    server.head().unwrap();
    let mut go_on = Head::new();
    go_on.set_status(100);
    server.conn.write_interim(&go_on, &mut server.out);
    assert_eq!(text(&mut server.out), "HTTP/1.1 100 Continue\r\n\r\n");
    server.input.extend_from_slice(b"ok");
    assert_eq!(server.body(), BodyEvent::Data(Bytes::from_static(b"ok")));
    assert!(!server.answer(200).contains("close") && server.next());

    // Refused without asking for the body: it may or may not come, so the connection ends.
    let mut server = Server::new(put);
    server.head().unwrap();
    assert!(server.answer(403).contains("connection: close"));
    assert!(!server.next());
}

#[test]
fn interim_responses_are_relayed_before_the_final_one_only() {
    let mut hints = Head::new();
    hints.set_status(103);
    hints.append_named(b"Link", b"</a>");
    let mut server = Server::new(GET);
    server.head().unwrap();
    server.conn.write_interim(&hints, &mut server.out);
    assert_eq!(
        text(&mut server.out),
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    );
    server.answer(200);
    server.conn.write_interim(&hints, &mut server.out);
    let mut old = Server::new(b"GET / HTTP/1.0\r\n\r\n");
    old.head().unwrap();
    old.conn.write_interim(&hints, &mut old.out);
    let mut switch = Head::new();
    switch.set_status(101);
    old.conn.write_interim(&switch, &mut old.out);
    assert!(server.out.is_empty() && old.out.is_empty());
}

#[test]
fn answers_to_no_request_end_the_connection() {
    let mut server = Server::new(b"GET / HTTP/1.1\nHost: a\r\n\r\n");
    let fault = server.conn.read_head(&mut server.input, &mut server.head);
    assert_eq!(fault, Err(Fault::BareLineFeed));
    assert_eq!(
        server.answer(400),
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    assert!(!server.next() && server.head().is_none());
}

#[test]
fn ends_of_the_clients_bytes() {
    let eof = |bytes: &[u8]| {
        let mut server = Server::new(bytes);
        server.head();
        while matches!(server.body(), BodyEvent::Data(_)) {}
        server.conn.read_eof(&server.input)
    };
    assert_eq!(eof(b""), Ok(true));
    assert_eq!(eof(b"\r\n"), Ok(true));
    assert_eq!(eof(b"GET / HT"), Ok(false));
    assert_eq!(eof(GET), Ok(true));
    assert_eq!(
        eof(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc"),
        Err(Fault::Truncated)
    );
    assert_eq!(
        eof(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        Ok(true)
    );
}

#[test]
fn upstream_connections_are_reused_only_when_clean() {
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let exchange = |response: &[u8]| {
        let mut conn = asking(GET);
        let mut input = BytesMut::from(response);
        assert!(conn.is_untouched(&BytesMut::new()) && !conn.is_untouched(&input));
        let mut head = Head::new();
        conn.read_head(&mut input, &mut head).unwrap().unwrap();
        assert!(!conn.is_untouched(&BytesMut::new()));
        while let BodyEvent::Data(_) = conn.read_body(&mut input, &mut head).unwrap() {}
        (conn.next(&input), conn)
    };
    assert!(exchange(ok).0);
    assert!(
        !exchange(&[ok, &b"HTTP/1.1 200 OK\r\n"[..]].concat()).0,
        "a response without a request"
    );
    assert!(
        !exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok").0,
        "not read to its end"
    );
    assert!(!exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").0);
    let (reused, mut conn) = exchange(b"HTTP/1.1 200 OK\r\n\r\nok");
    assert!(!reused);
    assert_eq!(conn.read_eof(), Ok(()));
    assert!(conn.body_done() && !conn.next(&BytesMut::new()));

    // Answered before the request was written to its end.
    let (info, head) = accepted(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    let mut conn = ClientConn::new(HeadLimits::default(), Spelling::default());
    conn.write_head(&head, info.body, &info, &mut Out::new());
    let mut input = BytesMut::from(&b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"[..]);
    conn.read_head(&mut input, &mut Head::new())
        .unwrap()
        .unwrap();
    assert!(conn.body_done() && !conn.next(&input));

    let mut conn = asking(GET);
    assert_eq!(conn.read_eof(), Err(Fault::Truncated));
}
