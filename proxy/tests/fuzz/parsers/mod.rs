//! One target a parser, each with what must hold of anything that it is given.
//!
//! - `first_bytes`: detection and ClientHello, beside rustls'
//! - `target`: paths as apps read them, authorities beside the `http` crate's
//! - `coding`: bodies in gzip, brotli and zstd, decoded a step at a time
//! - `header_case`: spellings of names over HTTP/2
//! - `format`: access log formats, and the lines that they make
//! - `config`: resources, mutated as JSON and as bytes, compiled and published
//! - `rbac`: rules compiled and evaluated, beside an evaluator of this test's own
//! - `dns`: a resolver's messages
//! - `jwt`: tokens and key sets

mod coding;
mod config;
mod dns;
mod first_bytes;
mod format;
mod header_case;
mod jwt;
mod rbac;
mod target;

use std::sync::Arc;

use anyam_proxy::config::compile::{Compiled, Compiler};
use anyam_proxy::log_sink::Sinks;
use anyam_proxy::metrics::registry::Registry;
use anyam_proxy::snapshot::Snapshot;
use prost::{Message, Name};
use serde_json::Value;
use xds_proto::envoy::config::listener::v3::Listener;
use xds_proto::type_url;

fn compiler() -> Compiler {
    let registry = Registry::new().unwrap();
    let dropped = registry.counter("dropped", "Lost.").unwrap();
    let sinks = Arc::new(Sinks::new(dropped, 16 << 10));
    Compiler::new(&registry, sinks, Arc::default()).unwrap()
}

/// A message in its proto3 JSON form, as bytes; `None`: it is no such message.
fn encoded<M: Message + Name + Default>(json: &Value) -> Option<Vec<u8>> {
    let message: M = xds_proto::json::decode_json(json).ok()?;
    Some(message.encode_to_vec())
}

/// A listener that compiles; `None`: it is refused.
fn listener(compiler: &Compiler, json: &Value) -> Option<Arc<anyam_proxy::snapshot::Listener>> {
    let bytes = encoded::<Listener>(json)?;
    let compiled = compiler.compile(type_url::LISTENER, &bytes, &Snapshot::default());
    match compiled {
        Ok(Compiled::Listener(listener)) => Some(listener),
        _ => None,
    }
}
