//! The gRPC catalogue.

use std::net::SocketAddr;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::Outcome;

/// Generated from `proto/shop.proto`.
pub mod v1 {
    #![allow(
        clippy::all,
        clippy::too_many_lines,
        clippy::unwrap_used,
        rust_2018_idioms,
        missing_docs
    )]
    tonic::include_proto!("shop.v1");
}

use v1::catalogue_server::{Catalogue, CatalogueServer};
use v1::{GetRequest, Item, WatchRequest};

const NAMES: [&str; 4] = ["Rattan basket", "Bamboo tray", "Pandan mat", "Palm hat"];

struct Shelf {
    replica: String,
}

impl Shelf {
    fn item(&self, id: u32) -> Item {
        Item {
            id,
            name: NAMES[id as usize % NAMES.len()].into(),
            price_cents: 1200 + id % 50 * 10,
            replica: self.replica.clone(),
        }
    }
}

type ItemStream = std::pin::Pin<Box<dyn Stream<Item = Result<Item, Status>> + Send>>;

#[tonic::async_trait]
impl Catalogue for Shelf {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Item>, Status> {
        Ok(Response::new(self.item(request.into_inner().id)))
    }

    type WatchStream = ItemStream;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<ItemStream>, Status> {
        let count = request.into_inner().count.min(1000);
        let items: Vec<_> = (0..count).map(|id| Ok(self.item(id))).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(items))))
    }
}

pub async fn run(listen: SocketAddr, replica: String) -> Outcome {
    tonic::transport::Server::builder()
        .add_service(CatalogueServer::new(Shelf { replica }))
        .serve(listen)
        .await?;
    Ok(())
}
