//! Ports that are declared as something else than they are: the error names the declaration,
//! and no Service breaks what another one declares of the same workload.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;

use crate::harness::Mesh;
use crate::manifests::STRICT;
use crate::traffic::{get, within};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

fn service(name: &str, vip: &str, port: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec: {{ clusterIP: {vip}, selector: {{ app: db }}, ports: [{{ {port} }}] }}
"
    )
}

fn workload(name: &str, app: &str, address: Ipv4Addr) -> String {
    format!(
        "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: {app} }} }}
spec: {{ addresses: [{address}], serviceAccount: {name} }}
"
    )
}

/// Sends `greeting` on each connection, reads a little, sends `answer` and closes. Ends with the
/// test.
fn serve(host: &Namespace, at: SocketAddr, greeting: &'static str, answer: &'static str) {
    let listener = within(host, || TcpListener::bind(at).unwrap());
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().flatten() {
            // A client that leaves in the middle is none of the test's.
            let _ = tcp.write_all(greeting.as_bytes());
            let _ = tcp.read(&mut [0; 256]);
            let _ = tcp.write_all(answer.as_bytes());
        }
    });
}

fn greeting(host: &Namespace, to: &str) -> std::io::Result<String> {
    answer_to(host, to, "")
}

/// The first bytes that come back.
fn answer_to(host: &Namespace, to: &str, said: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    within(host, || {
        let mut tcp = TcpStream::connect_timeout(&to, Duration::from_secs(15))?;
        tcp.set_read_timeout(Some(Duration::from_secs(15)))?;
        tcp.write_all(said.as_bytes())?;
        let mut said = [0; 64];
        let size = tcp.read(&mut said)?;
        Ok(String::from_utf8_lossy(&said[..size]).into_owned())
    })
}

fn manifests() -> String {
    let https = |target: &str| format!("name: https, port: 443, targetPort: {target}");
    [
        STRICT,
        &service(
            "lost",
            "240.240.9.1",
            "name: http, port: 80, targetPort: web",
        ),
        &service("rpc", "240.240.9.2", "name: grpc, port: 8080"),
        &service("orders", "240.240.9.3", "name: mysql, port: 3306"),
        // By the order of names it would decide.
        &service("admin", "240.240.9.4", "name: http-db, port: 3306"),
        &service("secure", "240.240.9.5", &https("8443")),
        &service("ended", "240.240.9.6", &https("8081")),
        &service(
            "plain",
            "240.240.9.7",
            "name: http, port: 443, targetPort: 8082",
        ),
        &service(
            "unnamed",
            "240.240.9.8",
            "name: tcp-sql, port: 5432, targetPort: sql",
        ),
        &service(
            "unserved",
            "240.240.9.9",
            "name: tcp-sql, port: 5432, targetPort: 9998",
        ),
        &service(
            "detected",
            "240.240.9.10",
            "name: any, port: 7000, targetPort: any",
        ),
        &workload("client", "client", CLIENT),
        &workload("server", "db", SERVER),
    ]
    .concat()
}

/// The answer of a TLS server to bytes that are no ClientHello: an alert, "unexpected message".
const ALERT: &str = "\x15\x03\x01\0\x02\x02\x0a";

fn serve_all(server: &Namespace) {
    let http1 = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    serve(server, (SERVER, 8080).into(), "", http1);
    serve(server, (SERVER, 3306).into(), "5.7 greets you", "");
    serve(server, (SERVER, 8443).into(), "", ALERT);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nyes";
    serve(server, (SERVER, 8081).into(), "", answer);
}

#[test]
fn the_error_names_the_declaration_and_others_are_not_harmed() {
    let mut mesh = Mesh::start(&manifests());
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    serve_all(&server);
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("server", SERVER, &server),
    ];
    for (to, declared) in [
        (
            "240.240.9.1:80",
            "declared by Service shop/lost, port 80 (http, targetPort web): HTTP/1.1",
        ),
        (
            "240.240.9.2:8080",
            "declared by Service shop/rpc, port 8080 (grpc): gRPC",
        ),
        (
            "240.240.9.5:443",
            "declared by Service shop/secure, port 443 (https, targetPort 8443): TLS, but HTTP without TLS was sent",
        ),
    ] {
        // What the caller gets, once the sidecars are configured.
        mesh.wait(declared, || {
            get(&client, to, "/")
                .is_ok_and(|(status, body)| status >= 500 && body.contains(declared))
        });
    }
    mesh.wait("the greeting of a server that speaks first", || {
        greeting(&client, "240.240.9.3:3306").is_ok_and(|said| said == "5.7 greets you")
    });
    tls_and_http_mixed_up(&mesh, &client);
    for to in ["240.240.9.8:5432", "240.240.9.9:5432", "240.240.9.10:7000"] {
        // Its end or its reset; the log has the reason.
        let said = greeting(&client, to);
        assert!(said.is_err() || said.is_ok_and(|said| said.is_empty()));
    }
    logs_and_check(&mesh);
}

fn tls_and_http_mixed_up(mesh: &Mesh, client: &Namespace) {
    // By a port's name alone nothing is refused: TLS may have ended before.
    let (status, body) = get(client, "240.240.9.6:443", "/").unwrap();
    assert_eq!((status, body.as_str()), (200, "yes"), "{}", mesh.logs());
    // TLS passes as it is: the alert comes from the app.
    let hello = "\x16\x03\x01\0\x05\x01\0\0\x01\0";
    let alert = answer_to(client, "240.240.9.5:443", hello).unwrap();
    assert_eq!(alert, ALERT, "{}", mesh.logs());
    let refused = answer_to(client, "240.240.9.7:443", hello).unwrap();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
}

fn logs_and_check(mesh: &Mesh) {
    for (log, declared) in [
        (
            "client.out",
            "http1.codec_error{declared_by_Service_shop/plain,_port_443_(http,_targetPort_8082):_HTTP/1.1}",
        ),
        (
            "client.out",
            "{protocol_error|declared_by_Service_shop/secure,_port_443_(https,_targetPort_8443):_TLS,",
        ),
        (
            "client.out",
            "no_healthy_upstream{declared_by_Service_shop/unnamed,_port_5432_(tcp-sql,_targetPort_sql):_TCP}",
        ),
        (
            "client.out",
            "no_healthy_upstream{declared_by_Service_shop/detected,_port_7000_(any,_targetPort_any):",
        ),
        (
            "server.out",
            "connection_failure{declared_by_Service_shop/unserved,_port_5432_(tcp-sql,_targetPort_9998):_TCP}",
        ),
        (
            "server.out",
            "{protocol_error|declared_by_Service_shop/rpc,_port_8080_(grpc):_gRPC}",
        ),
    ] {
        let log = mesh.folder.join("logs").join(log);
        mesh.wait(declared, || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains(declared))
        });
    }
    for found in [
        "Service shop/rpc: ",
        "answers in the last 30 s were not what its port declares (port `grpc` (8080) says gRPC)",
        "were HTTP without TLS (port `https` (443) says TLS), from shop/client",
        "Service shop/plain: port `http` (443) says HTTP/1.1, but callers of port 443 use TLS",
        "Service shop/lost: port `http` (80): no workload has a port named `web`",
        "Service shop/admin: port `http-db` (3306) says HTTP/1.1, but Service shop/orders says TCP",
    ] {
        mesh.wait(found, || mesh.cli(&["check"]).contains(found));
    }
}
