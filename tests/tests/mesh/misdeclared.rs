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
    let to: SocketAddr = to.parse().unwrap();
    within(host, || {
        let mut tcp = TcpStream::connect_timeout(&to, Duration::from_secs(15))?;
        tcp.set_read_timeout(Some(Duration::from_secs(15)))?;
        let mut said = [0; 64];
        let size = tcp.read(&mut said)?;
        Ok(String::from_utf8_lossy(&said[..size]).into_owned())
    })
}

#[test]
fn the_error_names_the_declaration_and_others_are_not_harmed() {
    let manifests = [
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
        &workload("client", "client", CLIENT),
        &workload("server", "db", SERVER),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    let http1 = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    serve(&server, (SERVER, 8080).into(), "", http1);
    serve(&server, (SERVER, 3306).into(), "5.7 greets you", "");
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
}
