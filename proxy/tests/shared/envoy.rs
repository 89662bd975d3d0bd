//! The stock Envoy that behaviour is compared with.

use std::path::{Path, PathBuf};

/// The program itself, not the wheel's script: it ends with its process, and other users can run it.
pub fn program() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/venv/bin/envoy");
    let command = std::env::var_os("ANYAM_ENVOY").map_or(default, PathBuf::from);
    let library = command.parent().unwrap().join("../lib");
    let versions = std::fs::read_dir(library).into_iter().flatten().flatten();
    let mut wheels = versions.map(|v| v.path().join("site-packages/envoy/_bin/envoy"));
    let program = wheels.find(|path| path.exists()).unwrap_or(command);
    assert!(
        program.exists(),
        "{} is missing: run tests/prerequisites.sh root test, or name an Envoy in ANYAM_ENVOY",
        program.display()
    );
    program
}
