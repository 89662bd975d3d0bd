//! The demo's shop: ordinary programs that link nothing of the mesh, do not depend on it and find
//! each other by name.
//!
//! - `web`: HTTP/1 front; calls the other three and returns what they answered
//! - `catalogue`: gRPC
//! - `cart`: HTTP/1, in two versions
//! - `store`: TCP, and the server speaks first
//! - `visitor`: the load; `intruder`: a client that is not allowed

mod cart;
mod catalogue;
mod intruder;
mod store;
mod visitor;
mod web;

use std::error::Error;
use std::net::SocketAddr;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The programs of Anyam's demo shop")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// HTTP/1 front
    Web {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// gRPC catalogue
    Catalogue {
        #[arg(long)]
        listen: SocketAddr,
        /// Name given in answers
        #[arg(long)]
        replica: String,
    },
    /// HTTP/1 cart
    Cart {
        #[arg(long)]
        listen: SocketAddr,
        /// Version given in answers
        #[arg(long)]
        version: String,
    },
    /// TCP store; greets before the client sends anything
    Store {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Calls the front again and again and prints a JSON line of totals twice a second
    Visitor {
        #[arg(long)]
        url: String,
        /// Requests at a time
        #[arg(long, default_value_t = 8)]
        concurrency: usize,
        /// Pause of each requester between two requests, milliseconds
        #[arg(long, default_value_t = 20)]
        pause_ms: u64,
    },
    /// Calls the catalogue once and prints the gRPC status
    Intruder {
        #[arg(long)]
        url: String,
    },
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    match Arguments::parse().role {
        Role::Web { listen } => web::run(listen).await,
        Role::Catalogue { listen, replica } => catalogue::run(listen, replica).await,
        Role::Cart { listen, version } => cart::run(listen, version).await,
        Role::Store { listen } => store::run(listen).await,
        Role::Visitor {
            url,
            concurrency,
            pause_ms,
        } => visitor::run(url, concurrency, std::time::Duration::from_millis(pause_ms)).await,
        Role::Intruder { url } => intruder::run(url).await,
    }
}
