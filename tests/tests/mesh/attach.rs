//! Docker's attach and exec: a POST with `Upgrade: tcp`, with a body or without, and then bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::Mesh;
use crate::manifests::{STRICT, service, workload};
use crate::traffic::within;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const DOCKER: &str = "240.240.9.1:8080";
const TIMEOUT: Duration = Duration::from_secs(30);

/// HTTP/1 calls are carried as HTTP/2 between the sidecars.
const HTTP2: &str = "
apiVersion: mesh.anyam.dev/v1alpha1
kind: BackendPolicy
metadata: { name: docker, namespace: shop }
spec:
  targetRefs: [{ group: '', kind: Service, name: docker }]
  http2: true
";

/// The head of a message, without a byte of what follows.
fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Like dockerd: the stream follows 101 if the client requests `tcp`, else 200. Echoes the stream,
/// and ends it with the length of the request's body.
fn dockerd(mut stream: TcpStream) -> std::io::Result<()> {
    let head = head(&mut stream)?.to_lowercase();
    let length = head.split_once("content-length: ");
    let length = length.and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let agreed = head.contains("\r\nupgrade: tcp\r\n") && head.contains("connection: upgrade\r\n");
    let last = format!("body of {}", body.len());
    let start = match agreed {
        true => "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n".to_owned(),
        false => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", last.len()),
    };
    write!(
        stream,
        "{start}Content-Type: application/vnd.docker.raw-stream\r\n\r\n"
    )?;
    if agreed {
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                length => stream.write_all(&buffer[..length])?,
            }
        }
    }
    stream.write_all(last.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// Sends an upgrade request with a body; returns the status and what was received on the stream.
fn attach(upgrade: &str, body: &str) -> std::io::Result<(String, String)> {
    let to: SocketAddr = DOCKER.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let length = body.len();
    // Without an upgrade the connection ends after the response.
    let connection = match upgrade {
        "tcp" => "Upgrade",
        _ => "Upgrade, close",
    };
    write!(
        stream,
        "POST /v1.45/exec/1/start HTTP/1.1\r\nHost: docker\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let head = head(&mut stream)?;
    let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut came = String::new();
    if status == "101" {
        // Line by line: each is echoed before the next is sent.
        for line in ["ls\n", "exit\n"] {
            stream.write_all(line.as_bytes())?;
            let mut echo = vec![0; line.len()];
            stream.read_exact(&mut echo)?;
            came += &String::from_utf8_lossy(&echo);
        }
        // Ends the input, but not the output.
        stream.shutdown(Shutdown::Write)?;
    }
    stream.read_to_string(&mut came)?;
    Ok((status, came))
}

#[test]
fn docker_attach_and_exec_work_through_a_mesh() {
    let manifests = [
        STRICT,
        &service("docker", "docker", "240.240.9.1"),
        &workload("client", "client", CLIENT),
        &workload("server", "docker", SERVER),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("server", SERVER, &server),
    ];
    let listener = within(&server, || TcpListener::bind((SERVER, 8080)).unwrap());
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // A client that disconnects in the middle has failed.
            std::thread::spawn(move || dockerd(stream));
        }
    });
    let ask = |upgrade, body| within(&client, || attach(upgrade, body));
    let got = |status: &str, came: &str| (status.to_owned(), came.to_owned());
    mesh.wait("the first answer", || {
        ask("other", "").is_ok_and(|(status, _)| status == "200")
    });
    for between in ["HTTP/1", "HTTP/2"] {
        if between == "HTTP/2" {
            mesh.configure("policy.yaml", HTTP2);
            let log = mesh.folder.join("logs/server.out");
            mesh.wait("a request by HTTP/2 in the server's access log", || {
                assert_eq!(ask("other", "").unwrap(), got("200", "body of 0"));
                std::fs::read_to_string(&log).unwrap().contains("HTTP/2")
            });
        }
        let attached = ask("tcp", "").unwrap();
        let expected = got("101", "ls\nexit\nbody of 0");
        assert_eq!(attached, expected, "{between}\n{}", mesh.logs());
        let exec = ask("tcp", "{\"Tty\":true}").unwrap();
        let expected = got("101", "ls\nexit\nbody of 12");
        assert_eq!(exec, expected, "{between}\n{}", mesh.logs());
        // An upgrade that is not allowed is ignored.
        let other = ask("other", "{\"Tty\":true}").unwrap();
        assert_eq!(other, got("200", "body of 12"), "{between}");
    }
}
