//! A client that is not allowed: one gRPC call, its outcome printed.

use tonic::transport::Endpoint;

use crate::Outcome;
use crate::catalogue::v1::GetRequest;
use crate::catalogue::v1::catalogue_client::CatalogueClient;

/// Prints `OK` or the status, such as `PermissionDenied: …`.
pub async fn run(url: String) -> Outcome {
    let mut catalogue = CatalogueClient::new(Endpoint::from_shared(url)?.connect_lazy());
    match catalogue.get(GetRequest { id: 1 }).await {
        Ok(_) => println!("OK"),
        Err(status) => println!("{:?}: {}", status.code(), status.message()),
    }
    Ok(())
}
