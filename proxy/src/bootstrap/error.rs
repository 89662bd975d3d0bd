//! Why a bootstrap cannot be used: which file, which field, what to do.

use std::path::PathBuf;

use xds_proto::json::JsonError;

use crate::config::compile::support::CompileError;

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("no configuration: give one with `-c <file>` or `--config-yaml <yaml>`")]
    Missing,
    #[error("cannot read {}: {error}", path.display())]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{source_name} is larger than {limit} bytes")]
    TooLarge { source_name: String, limit: u64 },
    #[error("{source_name} is not valid {format}: {error}")]
    Syntax {
        source_name: String,
        format: &'static str,
        error: String,
    },
    /// `error` begins with the field's path.
    #[error("{source_name}: {error}")]
    Json {
        source_name: String,
        error: JsonError,
    },
    #[error("{source_name}: not in the bootstrap's schema: {}", fields.join(", "))]
    Unknown {
        source_name: String,
        fields: Vec<String>,
    },
    /// `error` begins with the field's path.
    #[error("bootstrap: {0}")]
    Compile(#[from] CompileError),
    #[error("sidecar: {0}")]
    Sidecar(String),
}
