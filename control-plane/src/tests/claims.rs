//! What a certificate request says of its workload.

use tonic::{Code, Request, Status};
use xds_proto::google::protobuf::value::Kind;
use xds_proto::google::protobuf::{Struct, Value};
use xds_proto::istio::v1::auth::IstioCertificateRequest;
use xds_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;

use super::bench::{Bench, DOMAIN, csr};

async fn ask(bench: &Bench, claims: &[(&str, &str)]) -> Result<(), Status> {
    let (_, csr) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    let value = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let claims = claims
        .iter()
        .map(|(key, text)| ((*key).to_owned(), value(text)));
    let mut request = Request::new(IstioCertificateRequest {
        csr,
        metadata: Some(Struct {
            fields: claims.collect(),
        }),
        ..Default::default()
    });
    let token = bench.token("shop", "web-0", "web");
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut client = IstioCertificateServiceClient::new(bench.channel(None).await);
    client.create_certificate(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_says_it_is_another_workload_s_is_refused() {
    let bench = Bench::new().await;
    let good = [
        ("NAME", "web-0"),
        ("NAMESPACE", "shop"),
        ("SERVICE_ACCOUNT", "web"),
        ("CLUSTER_ID", "whatever"),
    ];
    ask(&bench, &good).await.unwrap();
    for at in 0..3 {
        let mut claims = good;
        claims[at].1 = "other";
        let status = ask(&bench, &claims).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains(claims[at].0), "{status}");
    }
}
