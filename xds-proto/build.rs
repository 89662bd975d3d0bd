//! Generates the Rust code of our own protos. Envoy's come ready made in `envoy-types`.

use std::error::Error;
use std::path::PathBuf;

const OWN: [&str; 5] = [
    "istio/v1/auth/ca.proto",
    "anyam/workload/v1/workload.proto",
    "anyam/dns/v1/name.proto",
    "anyam/bootstrap/v1/identity.proto",
    "anyam/inspect/v1/inspect.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(OWN, ["proto"])?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .out_dir(&out)
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
