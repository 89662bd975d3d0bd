//! `egress: Block`: connections out of the mesh end, open ones too.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;

use crate::harness::Mesh;
use crate::manifests::workload;
use crate::traffic::within;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const PORT: u16 = 9999;
/// What takes longer than this is broken.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The policy of the whole mesh.
pub fn egress(mode: &str) -> String {
    format!(
        "
apiVersion: mesh.anyam.dev/v1alpha1
kind: MeshPolicy
metadata: {{ name: egress, namespace: anyam-system }}
spec: {{ egress: {{ mode: {mode} }} }}
"
    )
}

/// Returns every connection's bytes. Ends with the test.
fn echo(host: &Namespace) {
    let listener = within(host, || TcpListener::bind((OUTSIDE, PORT)).unwrap());
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = tcp.try_clone().unwrap();
                // A connection that is cut is what the test is about.
                let _ = std::io::copy(&mut reader, &mut tcp);
            });
        }
    });
}

/// A connection to the host outside by which one message came back.
fn talk(host: &Namespace) -> std::io::Result<TcpStream> {
    let to = SocketAddr::from((OUTSIDE, PORT));
    let mut tcp = within(host, || TcpStream::connect_timeout(&to, TIMEOUT))?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    ping(&mut tcp)?;
    Ok(tcp)
}

fn ping(tcp: &mut TcpStream) -> std::io::Result<()> {
    tcp.write_all(b"ping")?;
    tcp.read_exact(&mut [0; 4])
}

#[test]
fn blocked_egress_ends_open_connections() {
    let mut mesh = Mesh::start(&workload("client", "client", CLIENT));
    let client = mesh.host("client", CLIENT);
    let _sidecar = mesh.sidecar("client", CLIENT, &client);
    let outside = mesh.network.add_host("outside", OUTSIDE).unwrap();
    echo(&outside);
    mesh.wait("an answer from outside", || talk(&client).is_ok());
    let mut open = talk(&client).unwrap();

    mesh.configure("egress.yaml", &egress("Block"));
    // Its end or its reset; a time-out would be neither.
    match open.read(&mut [0]) {
        Ok(size) => assert_eq!(size, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(talk(&client).is_err(), "{}", mesh.logs());
    let log = mesh.folder.join("logs/client.out");
    mesh.wait("a line about the connection that was refused", || {
        std::fs::read_to_string(&log)
            .is_ok_and(|log| log.contains(" UAEX ") && log.contains("egress: Block"))
    });

    mesh.configure("egress.yaml", &egress("Allow"));
    mesh.wait("an answer from outside, again", || talk(&client).is_ok());
}
