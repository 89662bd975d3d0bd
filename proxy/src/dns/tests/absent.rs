//! Names that are not there, and those without the records asked for.

use super::*;

#[tokio::test]
async fn no_data_and_nxdomain_are_distinguished() {
    let server = start(Vec::new(), mesh(NAMES, true)).await;
    for kind in [
        RecordType::AAAA,
        RecordType::TXT,
        RecordType::HTTPS,
        RecordType::SRV,
    ] {
        let answer = udp(server, &query("v4.", kind)).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{kind}"
        );
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
    let answer = udp(
        server,
        &query("none.shop.svc.cluster.local.", RecordType::A),
    )
    .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let answer = udp(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

/// A name that only stands above others has no data, wherever the client's resolver begins: names
/// below it must not be taken for absent (RFC 8020). As a result of a search path it hides nothing.
#[tokio::test]
async fn names_between_have_no_data_and_hide_no_host() {
    let names = [
        ("cart.shop.svc.cluster.local", &["240.240.0.1"][..]),
        ("_tcp.cart.shop.svc.cluster.local", &[]),
        ("shop.svc.cluster.local", &[]),
        ("svc.cluster.local", &[]),
    ];
    let upstream = resolver(Behaviour::Answer).await;
    let server = start(vec![upstream], mesh(&names, true)).await;
    for name in [
        "_tcp.cart.shop.svc.cluster.local.",
        "_tcp.cart.",
        "shop.svc.cluster.local.",
        "svc.cluster.local.",
    ] {
        for kind in [RecordType::A, RecordType::SRV] {
            let answer = udp(server, &query(name, kind)).await;
            let code = answer.metadata.response_code;
            assert_eq!(code, ResponseCode::NoError, "{name}");
            assert!(answer.answers.is_empty(), "{name}");
            assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        }
    }
    let answer = udp(server, &query("shop.", RecordType::A)).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
}
