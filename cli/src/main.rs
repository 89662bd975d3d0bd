//! `anyam`, a thin binary over its library, so that whole-mesh tests use the demo's namespaces.

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    anyam_cli::run().await
}
