//! Options, and the connections that they capture, over both families.

use std::net::{IpAddr, SocketAddr};

use super::pod::{
    APP, Caller, LOOPBACK, NODE, NODE_NET1, NODE_TOO, POD, POD_NET1, PROXY, Pod, Transport, nft,
    succeeds,
};

/// From the app, from the proxy, delivered by the proxy, from an exempt group, from another user.
const OF_APP: Caller = Caller::Pod { uid: APP, gid: APP };
const OF_PROXY: Caller = Caller::Pod {
    uid: PROXY,
    gid: PROXY,
};
const DELIVERED: Caller = Caller::Delivery { uid: PROXY };
const OF_GROUP: Caller = Caller::Pod {
    uid: APP,
    gid: 3000,
};
const OF_OTHER: Caller = Caller::Pod {
    uid: 2000,
    gid: 2000,
};

/// A connection, and the listener that answers it.
type Row = (Caller, Transport, [&'static str; 2], u16, &'static str);

use Transport::{Tcp, Udp};

/// Without options; these also hold whatever is excluded.
const DEFAULT: [Row; 22] = [
    (OF_APP, Tcp, NODE, 80, "outbound"),
    (OF_APP, Tcp, NODE, 443, "outbound"),
    (OF_APP, Udp, NODE, 53, "dns"),
    (OF_APP, Tcp, NODE, 53, "dns"),
    (OF_APP, Udp, LOOPBACK, 53, "dns"),
    (OF_APP, Udp, NODE, 8000, "node"),
    (OF_APP, Tcp, LOOPBACK, 8080, "app"),
    // Its own service by its own address: through the proxy, like every call.
    (OF_APP, Tcp, POD, 8080, "outbound"),
    // The source address of deliveries does not exempt other users.
    (Caller::Delivery { uid: APP }, Tcp, POD, 8080, "outbound"),
    (OF_PROXY, Tcp, NODE, 80, "node"),
    (OF_PROXY, Udp, NODE, 53, "node"),
    (OF_PROXY, Tcp, NODE, 53, "node"),
    // The proxy calls its own pod like a peer; its deliveries reach the app.
    (OF_PROXY, Tcp, POD, 8080, "inbound"),
    (OF_PROXY, Tcp, POD, 15021, "health"),
    (OF_PROXY, Tcp, LOOPBACK, 8080, "app"),
    (DELIVERED, Tcp, POD, 8080, "app"),
    // From the node: the kubelet's probes and pods in the host's network.
    (Caller::Node, Tcp, POD, 8080, "inbound"),
    (Caller::Node, Tcp, POD, 15008, "inbound"),
    (Caller::Node, Tcp, POD, 15001, "inbound"),
    (Caller::Node, Tcp, POD, 15021, "health"),
    (Caller::Node, Tcp, POD, 15090, "metrics"),
    (OF_OTHER, Tcp, NODE, 80, "outbound"),
];

/// Options, and the connections for which they make a difference, for both families.
const ROWS: &[(&str, &[Row])] = &[
    ("", &DEFAULT),
    (
        "--exclude-outbound-ports 443,8000-8001",
        &[
            (OF_APP, Tcp, NODE, 443, "node"),
            (OF_APP, Tcp, NODE, 8000, "node"),
            (OF_APP, Tcp, NODE, 8001, "node"),
            (OF_APP, Tcp, NODE, 8002, "outbound"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
            (OF_APP, Udp, NODE, 53, "dns"),
        ],
    ),
    (
        "--exclude-outbound-ports 50-60",
        &[
            (OF_APP, Udp, NODE, 53, "node"),
            (OF_APP, Tcp, NODE, 53, "node"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
        ],
    ),
    (
        "--include-outbound-ports 80,8001-65535",
        &[
            (OF_APP, Tcp, NODE, 80, "outbound"),
            (OF_APP, Tcp, NODE, 8001, "outbound"),
            (OF_APP, Tcp, NODE, 8002, "outbound"),
            (OF_APP, Tcp, NODE, 8000, "node"),
            (OF_APP, Tcp, NODE, 443, "node"),
            (OF_APP, Udp, NODE, 53, "dns"),
        ],
    ),
    (
        "--include-outbound-ports 8000-8002 --exclude-outbound-ports 8001",
        &[
            (OF_APP, Tcp, NODE, 8000, "outbound"),
            (OF_APP, Tcp, NODE, 8001, "node"),
            (OF_APP, Tcp, NODE, 8002, "outbound"),
            (OF_APP, Tcp, NODE, 80, "node"),
        ],
    ),
    (
        "--exclude-outbound-cidrs 10.9.0.3,fd09::3/128",
        &[
            (OF_APP, Tcp, NODE_TOO, 80, "node"),
            (OF_APP, Tcp, NODE_TOO, 53, "node"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
        ],
    ),
    (
        "--exclude-outbound-cidrs 0.0.0.0/0,::/0",
        &[
            (OF_APP, Tcp, NODE, 80, "node"),
            (OF_APP, Udp, NODE, 53, "node"),
            (OF_APP, Tcp, POD, 8080, "app"),
            (Caller::Node, Tcp, POD, 8080, "inbound"),
        ],
    ),
    (
        "--include-outbound-cidrs 10.9.0.2/31,fd09::2/127",
        &[
            (OF_APP, Tcp, NODE_TOO, 80, "outbound"),
            (OF_APP, Tcp, NODE, 80, "node"),
            (OF_APP, Udp, NODE, 53, "dns"),
            (OF_APP, Tcp, NODE_NET1, 80, "node"),
        ],
    ),
    (
        "--include-outbound-cidrs 10.9.0.0/24,fd09::/64 \
             --exclude-outbound-cidrs 10.9.0.3,fd09::3",
        &[
            (OF_APP, Tcp, NODE, 80, "outbound"),
            (OF_APP, Tcp, NODE_TOO, 80, "node"),
        ],
    ),
    (
        "--exclude-inbound-ports 8080,9000-9001",
        &[
            (Caller::Node, Tcp, POD, 8080, "app"),
            (Caller::Node, Tcp, POD, 9000, "app"),
            (Caller::Node, Tcp, POD, 8081, "inbound"),
            (Caller::Node, Tcp, POD, 15021, "health"),
            // The app calls its own service: the proxy's call is treated like a peer's.
            (OF_PROXY, Tcp, POD, 8080, "app"),
            (OF_PROXY, Tcp, POD, 8081, "inbound"),
        ],
    ),
    (
        "--include-inbound-ports 8080",
        &[
            (Caller::Node, Tcp, POD, 8080, "inbound"),
            (Caller::Node, Tcp, POD, 15008, "inbound"),
            (Caller::Node, Tcp, POD, 8081, "app"),
            (Caller::Node, Tcp, POD, 15090, "metrics"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
        ],
    ),
    (
        "--exclude-inbound-cidrs 10.9.0.0/30,fd09::/126",
        &[
            (Caller::Node, Tcp, POD, 8080, "app"),
            (Caller::Node, Tcp, POD_NET1, 8080, "inbound"),
        ],
    ),
    (
        "--include-inbound-cidrs 10.10.0.0/16,fd10::/16",
        &[
            (Caller::Node, Tcp, POD, 8080, "app"),
            (Caller::Node, Tcp, POD_NET1, 8080, "inbound"),
        ],
    ),
    (
        "--open-ports 8081",
        &[
            (Caller::Node, Tcp, POD, 8081, "app"),
            (Caller::Node, Tcp, POD, 15021, "inbound"),
        ],
    ),
    (
        "--exempt-uids 0,2000",
        &[
            (OF_OTHER, Tcp, NODE, 80, "node"),
            (OF_OTHER, Udp, NODE, 53, "node"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
        ],
    ),
    (
        "--exempt-gids 3000",
        &[
            (OF_GROUP, Tcp, NODE, 80, "node"),
            (OF_GROUP, Udp, NODE, 53, "node"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
        ],
    ),
    (
        "--exclude-interfaces net1",
        &[
            (OF_APP, Tcp, NODE_NET1, 80, "node"),
            (OF_APP, Udp, NODE_NET1, 53, "node"),
            (Caller::Node, Tcp, POD_NET1, 8080, "app"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
            (Caller::Node, Tcp, POD, 8080, "inbound"),
        ],
    ),
    (
        "--exclude-interfaces veth7,ne*",
        &[
            (OF_APP, Tcp, NODE_NET1, 80, "node"),
            (Caller::Node, Tcp, POD_NET1, 8080, "app"),
            (OF_APP, Tcp, NODE, 80, "outbound"),
        ],
    ),
    (
        "--dns-port 0",
        &[
            (OF_APP, Udp, NODE, 53, "node"),
            (OF_APP, Tcp, NODE, 53, "outbound"),
        ],
    ),
    (
        "--proxy-uid 2000 --outbound-port 9000 --inbound-port 8081",
        &[
            (OF_OTHER, Tcp, NODE, 80, "node"),
            (OF_PROXY, Tcp, NODE, 80, "app"),
            (Caller::Node, Tcp, POD, 8080, "app"),
            (Caller::Delivery { uid: 2000 }, Tcp, POD, 8080, "app"),
        ],
    ),
];

/// Options that concern one family: rows for IPv4, rows for IPv6.
fn rows_by_family() -> Vec<(&'static str, [Vec<Row>; 2])> {
    let captured = vec![
        (OF_APP, Tcp, NODE, 80, "outbound"),
        (OF_APP, Udp, NODE, 53, "dns"),
        (Caller::Node, Tcp, POD, 8080, "inbound"),
    ];
    vec![
        (
            "--ipv6 false",
            [
                captured.clone(),
                vec![
                    (OF_APP, Tcp, NODE, 80, "node"),
                    (OF_APP, Udp, NODE, 53, "node"),
                    (Caller::Node, Tcp, POD, 8080, "app"),
                ],
            ],
        ),
        (
            "--include-outbound-cidrs 10.0.0.0/8",
            [captured, vec![(OF_APP, Tcp, NODE, 80, "node")]],
        ),
        (
            "--include-inbound-cidrs fd00::/8",
            [
                vec![(Caller::Node, Tcp, POD, 8080, "app")],
                vec![(Caller::Node, Tcp, POD, 8080, "inbound")],
            ],
        ),
    ]
}

fn check(pod: &Pod, options: &str, family: usize, rows: &[Row]) {
    for (caller, transport, to, port, expected) in rows {
        let address: IpAddr = to[family].parse().unwrap();
        let to = SocketAddr::new(address, *port);
        let answered = pod.ask(*caller, *transport, to);
        assert_eq!(
            answered, *expected,
            "redirect {options}: {caller:?} {transport:?} to {to}"
        );
    }
}

/// `nft` lists the rules as they are printed, and installing the printed text passes `--check`.
fn is_as_printed(options: &str) {
    let list = "list table inet anyam";
    let installed = nft(list);
    succeeds(&format!("{options} --check"));
    nft(&succeeds(&format!("{options} --dry-run")));
    assert_eq!(nft(list), installed, "redirect {options} --dry-run");
}

#[test]
#[ignore = "run by options_and_the_connections_that_they_capture"]
fn every_option() {
    let pod = Pod::new();
    for (options, rows) in ROWS {
        succeeds(options);
        for family in 0..2 {
            check(&pod, options, family, rows);
        }
        is_as_printed(options);
    }
    for (options, rows) in rows_by_family() {
        succeeds(options);
        for (family, rows) in rows.iter().enumerate() {
            check(&pod, options, family, rows);
        }
        is_as_printed(options);
    }
}
