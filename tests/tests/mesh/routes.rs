//! What an HTTPRoute does, as client and app see it: where redirects lead, what rewrites and edits
//! make of a request, which requests get an error.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;

use crate::harness::Mesh;
use crate::manifests::{STRICT, service, workload};
use crate::traffic::within;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const SHOP: &str = "240.240.9.1:8080";
const TIMEOUT: Duration = Duration::from_secs(30);

const ROUTES: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: shop, namespace: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: shop, port: 8080 }]
  rules:
    - matches: [{ path: { value: /host } }]
      filters: [{ type: RequestRedirect, requestRedirect: { hostname: new.example } }]
    - matches: [{ path: { value: /scheme } }]
      filters: [{ type: RequestRedirect, requestRedirect: { scheme: https, statusCode: 301 } }]
    - matches: [{ path: { value: /port } }]
      filters: [{ type: RequestRedirect, requestRedirect: { port: 8443, statusCode: 307 } }]
    - matches: [{ path: { value: /prefix } }]
      filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /new }, statusCode: 303 } }]
    - matches: [{ path: { value: /whole } }]
      filters: [{ type: RequestRedirect, requestRedirect: { scheme: https, hostname: new.example, port: 443, path: { type: ReplaceFullPath, replaceFullPath: /in }, statusCode: 308 } }]
    - matches: [{ path: { value: /strip } }]
      filters: [{ type: URLRewrite, urlRewrite: { hostname: app.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: / } } }]
      backendRefs: [{ name: shop, port: 8080 }]
    - matches: [{ path: { value: /full } }]
      filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /one } } }]
      backendRefs: [{ name: shop, port: 8080 }]
    - matches: [{ path: { value: /edits } }]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: { set: [{ name: x-set, value: rule }], add: [{ name: x-add, value: rule }], remove: [x-gone] }
        - type: ResponseHeaderModifier
          responseHeaderModifier: { set: [{ name: x-from, value: route }] }
      backendRefs:
        - name: shop
          port: 8080
          filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-set, value: backend }] } }]
    - matches: [{ path: { value: /cors } }]
      filters: [{ type: CORS, cors: { allowOrigins: ['https://*.shop.example'], allowMethods: ['*'], allowHeaders: [x-a], allowCredentials: true } }]
      backendRefs: [{ name: shop, port: 8080 }]
    - matches: [{ path: { value: /half } }]
      backendRefs: [{ name: shop, port: 8080 }, { name: missing, port: 8080 }]
    - matches: [{ path: { value: /missing } }]
      backendRefs: [{ name: missing, port: 8080 }]
    - matches: [{ path: { value: /nobody } }]
      backendRefs: [{ name: nobody, port: 8080 }]
";

/// Answers every request with its head as the body.
fn reflect(host: &Namespace) {
    let listener = within(host, || TcpListener::bind((SERVER, 8080)).unwrap());
    // Ends with the test's process: `accept` has nothing else to wait for.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that leaves in the middle is one that has failed.
            std::thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let length = head.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nx-from: app\r\naccess-control-allow-origin: app\r\ncontent-length: {length}\r\n\r\n"
        )?;
        stream.write_all(&head)?;
    }
}

/// A response: status, headers by name, and what the app received.
#[derive(Debug)]
struct Response {
    status: u16,
    headers: BTreeMap<String, String>,
    seen: String,
}

impl Response {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The values of a header of the request that the app received.
    fn received(&self, name: &str) -> Vec<&str> {
        let fields = self.seen.lines().filter_map(|line| line.split_once(": "));
        let values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        values.map(|(_, value)| value).collect()
    }
}

fn ask(host: &Namespace, method: &str, path: &str, headers: &str) -> std::io::Result<Response> {
    let to: SocketAddr = SHOP.parse().unwrap();
    let answer = within(host, || {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: shop:8080\r\nconnection: close\r\n{headers}\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    })?;
    let (head, seen) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    Ok(Response {
        status: status.ok_or(std::io::ErrorKind::UnexpectedEof)?,
        headers: fields
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        seen: seen.to_owned(),
    })
}

fn redirects(client: &Namespace) {
    for (path, status, location) in [
        ("/host/a?q=1", 302, "http://new.example:8080/host/a?q=1"),
        ("/scheme/a", 301, "https://shop/scheme/a"),
        ("/port", 307, "http://shop:8443/port"),
        ("/prefix/a/b?q=1", 303, "http://shop:8080/new/a/b?q=1"),
        ("/whole/a", 308, "https://new.example/in"),
    ] {
        let answer = ask(client, "GET", path, "").unwrap();
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, location),
            "{path}"
        );
    }
}

fn answers_cors(client: &Namespace) {
    let asks = "origin: https://a.shop.example\r\naccess-control-request-method: PUT\r\n";
    let preflight = ask(client, "OPTIONS", "/cors", asks).unwrap();
    assert_eq!(preflight.status, 200);
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        "https://a.shop.example"
    );
    assert_eq!(preflight.header("access-control-allow-methods"), "PUT");
    assert_eq!(preflight.header("access-control-allow-headers"), "x-a");
    assert_eq!(preflight.header("access-control-allow-credentials"), "true");
    assert_eq!(preflight.header("access-control-max-age"), "5");
    assert_eq!(preflight.seen, "", "the app is not asked");
    let foreign = ask(client, "OPTIONS", "/cors", &asks.replace("a.shop.", "")).unwrap();
    assert_eq!(
        foreign.header("access-control-allow-origin"),
        "",
        "{foreign:?}"
    );
    let actual = ask(client, "GET", "/cors", "origin: https://a.shop.example\r\n").unwrap();
    assert_eq!(
        actual.header("access-control-allow-origin"),
        "https://a.shop.example"
    );
}

#[test]
fn a_route_redirects_rewrites_edits_and_fails_as_it_says() {
    let manifests = [
        STRICT,
        &service("shop", "shop", "240.240.9.1"),
        &service("nobody", "nobody", "240.240.9.2"),
        &workload("client", "client", CLIENT),
        &workload("server", "shop", SERVER),
        ROUTES,
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("server", SERVER, &server),
    ];
    reflect(&server);
    mesh.wait("a first answer", || {
        ask(&client, "GET", "/full", "").is_ok_and(|answer| answer.status == 200)
    });
    let get = |path: &str, headers: &str| ask(&client, "GET", path, headers).unwrap();

    redirects(&client);
    for (path, line, host) in [
        ("/strip/a?q=1", "GET /a?q=1 HTTP/1.1", "app.example"),
        ("/strip", "GET / HTTP/1.1", "app.example"),
        ("/full/a", "GET /one HTTP/1.1", "shop:8080"),
    ] {
        let answer = get(path, "");
        assert_eq!(answer.seen.lines().next(), Some(line), "{path}");
        assert_eq!(answer.received("host"), [host], "{path}");
    }

    let edited = get(
        "/edits",
        "x-set: client\r\nx-add: client\r\nx-gone: client\r\n",
    );
    assert_eq!(edited.received("x-set"), ["backend"], "{edited:?}");
    assert_eq!(
        edited.received("x-add").join(","),
        "client,rule",
        "{edited:?}"
    );
    assert!(edited.received("x-gone").is_empty(), "{edited:?}");
    assert_eq!(edited.header("x-from"), "route");

    answers_cors(&client);
    assert_eq!(get("/missing", "").status, 500);
    assert_eq!(get("/nobody", "").status, 503, "no endpoint is ready");
    assert_eq!(get("/other", "").status, 404, "no rule matches");
    let mut seen = BTreeMap::new();
    mesh.wait("both shares, one of them invalid", || {
        *seen.entry(get("/half", "").status).or_insert(0) += 1;
        seen.len() == 2
    });
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), [200, 500]);
}
