//! Generates the Rust code of our own protos, and the schema tables behind the JSON mapping.
//! Envoy's own messages come ready made in `envoy-types`, and so do the protos they were made from.
//!
//! - `build/roots.rs`: the files whose schema is compiled; `build/tables.rs`: how it is written
//!   down

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "build/roots.rs"]
mod roots;
#[path = "build/tables.rs"]
mod tables;

/// Where imports of Envoy's protos begin, below the `proto` folder of `envoy-types`.
const IMPORT_ROOTS: [&str; 8] = [
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "client_model",
    "opentelemetry-proto",
    "cel-spec/proto",
    "ratelimit/api",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    // Another version of envoy-types means other protos.
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    generate_own(&out)?;
    generate_tables(&out)
}

/// Messages, clients and servers of our own packages.
fn generate_own(out: &Path) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(roots::OWN, ["proto"])?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// The schema of everything that can be read from or written as JSON.
fn generate_tables(out: &Path) -> Result<(), Box<dyn Error>> {
    let envoy = envoy_protos()?;
    let mut includes = vec![PathBuf::from("proto")];
    includes.extend(IMPORT_ROOTS.iter().map(|root| envoy.join(root)));
    let files: Vec<&str> = roots::OWN.iter().chain(roots::FOREIGN).copied().collect();
    let descriptors = protox::compile(&files, includes)?;
    let tables = tables::Tables::build(&descriptors, &files)?;
    std::fs::write(out.join("schema_text.txt"), &tables.text)?;
    std::fs::write(out.join("schema_tables.rs"), tables.source())?;
    Ok(())
}

/// The `proto` folder that `envoy-types` ships, located by `cargo metadata` so that vendoring works
/// too.
fn envoy_protos() -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new(std::env::var("CARGO")?)
        .args(["metadata", "--offline", "--format-version", "1"])
        // Without it cargo needs the packages of every platform.
        .args(["--filter-platform", &std::env::var("TARGET")?])
        .current_dir(std::env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        let why =
            format!("`cargo metadata --offline` failed; run `cargo fetch --locked`: {reason}");
        return Err(why.into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata lists no package envoy-types")?;
    let protos = Path::new(manifest).with_file_name("proto");
    if !protos.is_dir() {
        return Err(format!("envoy-types has no protos at {}", protos.display()).into());
    }
    Ok(protos)
}
