//! Response heads up to Envoy's default limit, with a bootstrap that does not set one.

use std::net::SocketAddr;

use crate::proxy::{Proxy, Settings, ask, discovery, http_manager, upstream};

/// Length of 16 fields that together just fit, beside the other fields and the status line.
const PASSES: usize = 4900;
const TOO_LONG: usize = 5300;
const FIELDS: usize = 16;

/// An HTTP/1 upstream whose response has fields of this length.
fn of_http1(length: usize) -> SocketAddr {
    use std::io::{Read, Write};
    upstream(move |mut tcp| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !matches!(tcp.read(&mut byte), Ok(1)) {
                return;
            }
            head.extend(byte);
        }
        let mut answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n".to_owned();
        for n in 0..FIELDS {
            answer.push_str(&format!("x-{n}: {}\r\n", "v".repeat(length)));
        }
        let _ = tcp.write_all(format!("{answer}\r\n").as_bytes());
        // Waits until the proxy closes the connection.
        let _ = tcp.read(&mut [0]);
    })
}

/// The same over HTTP/2, for as long as the runtime exists.
fn of_http2(length: usize, runtime: &tokio::runtime::Runtime) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut response = http::Response::builder();
                    for n in 0..FIELDS {
                        response = response.header(format!("x-{n}"), "v".repeat(length));
                    }
                    let _ = respond.send_response(response.body(()).unwrap(), true);
                }
            });
        }
    });
    address
}

const HTTP2: &str = r#"
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }"#;

#[test]
fn response_heads_of_80_kib_pass_by_default() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (length, passes) in [(PASSES, true), (TOO_LONG, false)] {
        let upstreams = [
            ("HTTP/1", of_http1(length), ""),
            ("HTTP/2", of_http2(length, &runtime), HTTP2),
        ];
        for (version, address, options) in upstreams {
            let at = discovery("STATIC", &[(&address.ip().to_string(), address.port())]);
            let settings = Settings {
                filters: &http_manager("", ""),
                discovery: &format!("{at}{options}"),
                ..Settings::default()
            };
            let proxy = Proxy::start(address, &settings);
            let request = "GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n";
            let answer = ask(proxy.front, request).unwrap();
            let start = answer.lines().next().unwrap_or_default();
            let wanted = if passes {
                "HTTP/1.1 200 "
            } else {
                "HTTP/1.1 502 "
            };
            assert!(start.starts_with(wanted), "{version}, {length}: {start}");
            let fields = answer.lines().filter(|line| line.starts_with("x-"));
            let whole = fields.filter(|line| line.len() > length).count();
            assert_eq!(
                whole,
                if passes { FIELDS } else { 0 },
                "{version}, {length}"
            );
        }
    }
}
