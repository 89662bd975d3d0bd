//! Names of Kubernetes' DNS specification, resolved by Go's resolver in an app's namespace.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use anyam_cli::demo::netns::Namespace;

use crate::harness::Mesh;
use crate::manifests::{service, workload};
use crate::peers::program;
use crate::traffic::within;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, 2);

/// Names that the mesh does not have go there.
const OUTSIDE: &str = "127.0.0.1:5353";

/// A headless service whose first member has a name by `hostname`, the second its own.
const DB: &str = "---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: shop }
spec:
  clusterIP: None
  selector: { app: db }
  ports: [{ name: sql, port: 80, targetPort: sql, appProtocol: tcp }]
---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: { name: db-a, namespace: shop, labels: { app: db } }
spec:
  addresses: [10.77.2.2, 'fd77::2:2']
  hostname: primary
  subdomain: db
  ports: [{ name: sql, port: 5432, appProtocol: tcp }]
---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: { name: db-b, namespace: shop, labels: { app: db } }
spec:
  addresses: [10.77.3.2]
  weight: 3
  ports: [{ name: sql, port: 5433, appProtocol: tcp }]
";

#[test]
fn ports_and_members_have_names() {
    let cart = service("cart", "cart", "240.240.9.1");
    let mut mesh = Mesh::start(&[&cart, DB, &workload("client", "client", CLIENT)].concat());
    std::fs::copy(program(), mesh.folder.join("peer")).unwrap();
    let client = mesh.host_of_both("client", CLIENT, CLIENT6);
    outside(&client);
    let upstream = ["--dns-upstream", OUTSIDE];
    let _sidecar = mesh.sidecar_with("client", CLIENT.into(), &client, &upstream);
    // The resolver that the app has is an address without a host, of either family.
    for server in ["10.77.0.53:53", "[fd77::53]:53"] {
        let resolve = |kind: &str, name: &str| resolve(&mesh, &client, server, kind, name);
        for (kind, name, expected) in [
            ("ip", "cart.shop.svc.cluster.local", "240.240.9.1"),
            (
                "srv",
                "_http._tcp.cart.shop.svc.cluster.local",
                "0 100 8080 cart.shop.svc.cluster.local.",
            ),
            (
                "ip",
                "db.shop.svc.cluster.local",
                "10.77.2.2 10.77.3.2 fd77::2:2",
            ),
            (
                "ip",
                "primary.db.shop.svc.cluster.local",
                "10.77.2.2 fd77::2:2",
            ),
            ("ip", "db-b.db.shop.svc.cluster.local", "10.77.3.2"),
            ("ip", "db-b.db", "10.77.3.2"),
            (
                "srv",
                "_sql._tcp.db.shop.svc.cluster.local",
                "0 1 5432 primary.db.shop.svc.cluster.local. \
                 0 3 5433 db-b.db.shop.svc.cluster.local.",
            ),
            (
                "srv",
                "_sql._tcp.db",
                "0 1 5432 primary.db.shop.svc.cluster.local. \
                 0 3 5433 db-b.db.shop.svc.cluster.local.",
            ),
            // It goes by its hostname there, and by nothing else.
            ("ip", "db-a.db.shop.svc.cluster.local", "not found"),
            // Of services with an address, members have no names.
            ("ip", "client.cart.shop.svc.cluster.local", "not found"),
            ("srv", "_http._udp.cart.shop.svc.cluster.local", "not found"),
            ("srv", "_none._tcp.cart.shop.svc.cluster.local", "not found"),
            ("srv", "cart.shop.svc.cluster.local", "not found"),
            ("ip", "shop.svc.cluster.local", "not found"),
        ] {
            assert_eq!(resolve(kind, &format!("{name}.")), expected, "{name}");
        }
        // A member that is not ready leaves, and comes back.
        for (ready, expected) in [
            ("false", "10.77.2.2 fd77::2:2"),
            ("true", "10.77.2.2 10.77.3.2 fd77::2:2"),
        ] {
            mesh.configure(
                "mesh.yaml",
                &[
                    &cart,
                    &DB.replace("  weight: 3", &format!("  weight: 3\n  ready: {ready}")),
                    &workload("client", "client", CLIENT)[..],
                ]
                .concat(),
            );
            mesh.wait("members by readiness", || {
                resolve("ip", "db.shop.svc.cluster.local.") == expected
                    && (resolve("ip", "db-b.db.shop.svc.cluster.local.") == "not found")
                        == (ready == "false")
            });
        }
    }
}

/// A resolver without any name, beside the sidecar.
fn outside(host: &Namespace) {
    let socket = within(host, || UdpSocket::bind(OUTSIDE)).unwrap();
    std::thread::spawn(move || {
        let mut message = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut message) {
            // A response; NXDOMAIN.
            message[2] |= 0x80;
            message[3] = 3;
            let _ = socket.send_to(&message[..length], client);
        }
    });
}

/// What the resolver printed, in one line.
fn resolve(mesh: &Mesh, host: &Namespace, server: &str, kind: &str, name: &str) -> String {
    let arguments = ["resolve", server, kind, name];
    let output = mesh.output(host, &mesh.folder.join("peer"), &arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name}: {complaint}\n{}",
        mesh.logs()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().collect::<Vec<_>>().join(" ")
}
