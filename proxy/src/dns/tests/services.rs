//! SRV records, and what of them fits into an answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::config::name::Srv;

/// An SRV name with so many targets, each with an address of both families.
fn served(targets: u16) -> (&'static str, NameRecords) {
    let services = (1..=targets).map(|n| Srv {
        target: format!("db-{n}.db.shop.svc.cluster.local"),
        port: 5000 + n,
        weight: n,
        addresses: vec![
            Ipv4Addr::from_bits(0x0a00_0000 + u32::from(n)).into(),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n).into(),
        ],
    });
    let records = NameRecords {
        services: services.collect(),
        ttl: Duration::from_secs(5),
        ..NameRecords::default()
    };
    ("_sql._tcp.db.shop.svc.cluster.local", records)
}

#[tokio::test]
async fn services_come_with_their_targets_addresses() {
    let server = start(Vec::new(), mesh_of([served(2)], true)).await;
    for name in ["_sql._tcp.db.shop.svc.cluster.local.", "_SQL._tcp.db."] {
        for answer in [
            udp(server, &query(name, RecordType::SRV)).await,
            tcp(server, &query(name, RecordType::SRV)).await,
        ] {
            assert!(answer.metadata.authoritative && !answer.metadata.truncation);
            assert_eq!(
                addresses(&answer),
                [
                    "0 1 5001 db-1.db.shop.svc.cluster.local.",
                    "0 2 5002 db-2.db.shop.svc.cluster.local."
                ]
            );
            assert!(answer.answers.iter().all(|record| record.ttl == 5));
            let more = answer.additionals.iter();
            let more: Vec<_> = more.map(|record| record.to_string()).collect();
            assert_eq!(
                more,
                [
                    "db-1.db.shop.svc.cluster.local. 5 IN A 10.0.0.1",
                    "db-1.db.shop.svc.cluster.local. 5 IN AAAA fd00::1",
                    "db-2.db.shop.svc.cluster.local. 5 IN A 10.0.0.2",
                    "db-2.db.shop.svc.cluster.local. 5 IN AAAA fd00::2",
                ]
            );
        }
    }
    // It has no addresses of its own, and an answer without services none of theirs.
    let answer = udp(server, &query("_sql._tcp.db.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty() && answer.additionals.is_empty());
}

/// With more than fits, first the additional records go; TC is set only where answers are missing.
#[tokio::test]
async fn services_that_do_not_fit_are_cut_in_order() {
    #[derive(Debug, PartialEq)]
    enum Fits {
        All,
        Answers,
        Some,
    }
    use Fits::{All, Answers, Some as Few};
    for (targets, edns, over_udp, over_tcp) in [
        (4, None, All, All),
        (7, None, Answers, All),
        (40, None, Few, All),
        (7, Some(100), Answers, All),
        (10, Some(4096), All, All),
        (20, Some(4096), Answers, All),
        (40, Some(4096), Few, All),
        (900, Some(65535), Few, Answers),
        (4000, None, Few, Few),
    ] {
        let server = start(Vec::new(), mesh_of([served(targets)], true)).await;
        let mut asked = query("_sql._tcp.db.", RecordType::SRV);
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            asked.set_edns(edns);
        }
        let limit = usize::from(edns.unwrap_or(512).clamp(512, 1232));
        let (length, answer) = udp_sized(server, &asked.to_vec().unwrap()).await;
        assert!(length <= limit, "{length} for {targets}, {edns:?}");
        for (answer, expected) in [(answer, over_udp), (tcp(server, &asked).await, over_tcp)] {
            let targets = usize::from(targets);
            let found = match (answer.answers.len(), answer.additionals.len()) {
                (answers, more) if answers == targets && more == 2 * targets => All,
                (answers, 0) if answers == targets => Answers,
                (1.., 0) => Few,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{targets}, {edns:?}");
            assert_eq!(answer.metadata.truncation, expected == Few);
            assert_eq!(answer.edns.is_some(), edns.is_some());
        }
    }
}
