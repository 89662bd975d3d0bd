//! Files and flags → the bytes of one `envoy.config.bootstrap.v3.Bootstrap`.
//!
//! The bytes are what is merged: two messages in a row are, by the wire format's own rules, the
//! first with the second merged over it, which is what Envoy does with `--config-yaml`.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};
use xds_proto::{json, unknown, yaml};

use super::error::BootstrapError;
use crate::args::Serve;

pub const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// A bootstrap with all its listeners and clusters inline is some megabytes at most.
const MAX_BYTES: u64 = 64 << 20;

/// The bootstrap that the flags name.
pub fn read(serve: &Serve) -> Result<Vec<u8>, BootstrapError> {
    if serve.config_path.is_none() && serve.config_yaml.is_none() {
        return Err(BootstrapError::Missing);
    }
    let mut bytes = Vec::new();
    if let Some(path) = &serve.config_path {
        bytes.extend(file(path)?);
    }
    if let Some(yaml) = &serve.config_yaml {
        bytes.extend(from_yaml("--config-yaml", yaml)?);
    }
    Ok(bytes)
}

fn file(path: &Path) -> Result<Vec<u8>, BootstrapError> {
    let unreadable = |error| BootstrapError::Read {
        path: path.to_owned(),
        error,
    };
    let source_name = path.display().to_string();
    let opened = std::fs::File::open(path).map_err(unreadable)?;
    let mut content = Vec::new();
    let size = opened
        .take(MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    if size as u64 > MAX_BYTES {
        return Err(BootstrapError::TooLarge {
            source_name,
            limit: MAX_BYTES,
        });
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    if extension == Some("pb") {
        return from_wire(source_name, content);
    }
    let text = String::from_utf8(content).map_err(|error| BootstrapError::Syntax {
        source_name: source_name.clone(),
        format: "UTF-8",
        error: error.to_string(),
    })?;
    match extension {
        Some("json") => from_json(&source_name, &text),
        _ => from_yaml(&source_name, &text),
    }
}

fn from_wire(source_name: String, bytes: Vec<u8>) -> Result<Vec<u8>, BootstrapError> {
    let fields = unknown::unknown_fields(BOOTSTRAP, &bytes);
    if fields.is_empty() {
        Ok(bytes)
    } else {
        Err(BootstrapError::Unknown {
            source_name,
            fields,
        })
    }
}

fn from_json(source_name: &str, text: &str) -> Result<Vec<u8>, BootstrapError> {
    let value: Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
            BootstrapError::Syntax {
                source_name: source_name.to_owned(),
                format: "JSON",
                error: error.to_string(),
            }
        })?;
    to_wire(source_name, &value)
}

pub(super) fn from_yaml(source_name: &str, text: &str) -> Result<Vec<u8>, BootstrapError> {
    let value = yaml::to_json(text).map_err(|error| BootstrapError::Syntax {
        source_name: source_name.to_owned(),
        format: "YAML",
        error: error.to_string(),
    })?;
    match value {
        // An empty file is an empty message.
        Value::Null => to_wire(source_name, &Value::Object(Map::new())),
        value => to_wire(source_name, &value),
    }
}

fn to_wire(source_name: &str, value: &Value) -> Result<Vec<u8>, BootstrapError> {
    json::from_json(BOOTSTRAP, value).map_err(|error| BootstrapError::Json {
        source_name: source_name.to_owned(),
        error,
    })
}
