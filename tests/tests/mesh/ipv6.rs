//! A mesh over IPv6: interception, names, mTLS, calls to oneself, undeclared ports, egress.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyam_cli::demo::capture::Capture;
use anyam_cli::demo::netns::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::egress::egress;
use crate::harness::{CONTROL, Mesh, add_ipv6, ip};
use crate::manifests::{STRICT, workload};
use crate::traffic::{get, within};

/// Over IPv4 only the control plane is reached; workloads are declared with these alone.
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, 2);
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 2, 2);
const DUAL: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 3, 2);
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 4, 2);
const CART: &str = "cart.shop.svc.cluster.local";

const fn v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, host, 2)
}

/// No clusterIP: its addresses are allotted, and found by name.
fn service(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec: {{ selector: {{ app: {name} }}, ports: [{{ name: http, port: 8080 }}] }}
"
    )
}

/// The AAAA answer of captured DNS to an app whose resolver is `fd77::53`, an address without a
/// host.
fn aaaa(host: &Namespace, name: &str) -> io::Result<Vec<Ipv6Addr>> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 28, 0, 1]);
    let answer = within(host, || {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.send_to(&query, "[fd77::53]:53")?;
        let mut answer = [0; 1500];
        let (length, _) = socket.recv_from(&mut answer)?;
        Ok::<_, io::Error>(answer[..length].to_vec())
    })?;
    // Each answer: a pointer to the name, AAAA, IN, TTL, the length 16, the address.
    let count = usize::from(answer[7]);
    let records = answer.get(query.len()..).unwrap_or_default();
    let record = |record: &[u8]| <[u8; 16]>::try_from(&record[12..28]).unwrap().into();
    Ok(records.chunks_exact(28).take(count).map(record).collect())
}

/// As [`get`], from an address of the caller's choice.
fn get_from(from: &str, host: &Namespace, to: &str) -> io::Result<String> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let asking = async {
        let socket = TcpSocket::new_v6()?;
        socket.bind(from)?;
        let mut tcp = socket.connect(to).await?;
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    within(host, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), asking).await? })
    })
}

fn reaches_the_outside_until_blocked(mesh: &mut Mesh, client: &Namespace) {
    // What is not of the mesh is reached as it is.
    let outside = mesh.network.add_host("outside", v4(4)).unwrap();
    add_ipv6(&outside, OUTSIDE);
    let _outside = mesh.cart("outside", OUTSIDE, &outside);
    mesh.wait("an answer from outside", || {
        get(client, &format!("[{OUTSIDE}]:8080"), "/")
            .is_ok_and(|answer| answer == (200, "outside".into()))
    });
    // An app that takes the address from which the proxy delivers gets past nothing.
    let to = format!("[{OUTSIDE}]:8080");
    let answer = get_from("[::6]:0", client, &to);
    assert!(answer.unwrap().ends_with("outside"));
    // The mesh's own range is not.
    let unknown = get(client, "[fdac:616e:7961:6d00::ffff:1]:8080", "/");
    assert!(unknown.is_err(), "{unknown:?}");
    // Nor is anything outside, once that is blocked.
    mesh.configure("egress.yaml", &egress("Block"));
    mesh.wait("the end of egress", || get(client, &to, "/").is_err());
    let blocked = get_from("[::6]:0", client, &to);
    assert!(blocked.is_err(), "{blocked:?}");
}

#[test]
fn a_mesh_works_over_ipv6() {
    let dual = workload("dual", "dual", v4(3))
        .replace(&format!("'{}'", v4(3)), &format!("{}, '{DUAL}'", v4(3)));
    let manifests = [
        STRICT,
        &service("cart"),
        &service("dual"),
        &workload("client", "client", CLIENT),
        &workload("server", "cart", SERVER),
        &dual,
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host_of_both("client", v4(1), CLIENT);
    let server = mesh.host_of_both("server", v4(2), SERVER);
    let dual = mesh.host_of_both("dual", v4(3), DUAL);
    let capture = Capture::start(mesh.network.bridge(), CONTROL).unwrap();
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("server", SERVER, &server),
        mesh.sidecar("dual", v4(3), &dual),
    ];
    let _carts = [
        mesh.cart("v1", SERVER, &server),
        mesh.cart_at("undeclared", SocketAddr::new(SERVER.into(), 9999), &server),
        mesh.cart("four", v4(3), &dual),
        mesh.cart("six", DUAL, &dual),
        mesh.cart_at(
            "both",
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 9999),
            &dual,
        ),
    ];
    let answers = |from: &Namespace, ip: IpAddr, port: u16, expected: &str| {
        let to = SocketAddr::new(ip, port).to_string();
        mesh.wait(&format!("{expected} from {to}"), || {
            get(from, &to, "/").is_ok_and(|answer| answer == (200, expected.into()))
        });
    };

    // By a name's allotted address, by a workload's own, and by the server itself.
    let vips = aaaa(&client, CART).unwrap();
    let [vip] = vips[..] else {
        panic!("{vips:?}\n{}", mesh.logs());
    };
    assert_eq!(vip.segments()[..4], [0xfdac, 0x616e, 0x7961, 0x6d00]);
    answers(&client, vip.into(), 8080, "v1");
    answers(&client, SERVER.into(), 8080, "v1");
    answers(&server, vip.into(), 8080, "v1");
    // Delivered to the address that was dialled, whichever of the server's it is.
    answers(&client, SERVER.into(), 9999, "undeclared");
    answers(&client, DUAL.into(), 9999, "both");
    answers(&dual, v4(3).into(), 9999, "both");
    answers(&client, DUAL.into(), 8080, "six");
    answers(&dual, v4(3).into(), 8080, "four");
    // Called by a service's name, a server with addresses of both families is dialled by the one
    // its caller is declared with too: the other leads nowhere.
    ip(&client, &format!("-4 route add blackhole {}", v4(3)));
    let vips = aaaa(&client, "dual.shop.svc.cluster.local").unwrap();
    answers(&client, vips[0].into(), 8080, "six");
    let seen = capture.seen();
    assert_eq!((seen.plain_connections, seen.readable_segments), (0, 0));
    assert!(seen.tls_connections > 0, "{seen:?}");

    reaches_the_outside_until_blocked(&mut mesh, &client);
}
