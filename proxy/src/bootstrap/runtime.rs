//! `layered_runtime`: keys that bound connections are used, those that switch parts of Envoy's own
//! code are accepted without effect, all others are rejected.

use xds_proto::envoy::config::bootstrap::v3 as pb;
use xds_proto::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use xds_proto::google::protobuf::value::Kind;
use xds_proto::google::protobuf::{Struct, Value};

use super::ConnectionLimits;
use crate::config::compile::support::{At, CompileError, ignored, required};

/// Keys that switch parts of Envoy's own code, or bound an engine that needs no bounds.
const WITHOUT_MEANING: [&str; 4] = [
    "envoy.reloadable_features.",
    "envoy.restart_features.",
    "envoy.deprecated_features",
    "re2.",
];

pub fn layers(
    at: At<'_>,
    layered: &Option<pb::LayeredRuntime>,
    limits: &mut ConnectionLimits,
) -> Result<(), CompileError> {
    let Some(pb::LayeredRuntime { layers }) = layered else {
        return Ok(());
    };
    for (index, layer) in layers.iter().enumerate() {
        let at = at.index("layers", index);
        let pb::RuntimeLayer {
            name,
            layer_specifier,
        } = layer;
        ignored!("layers are identified by their order", name);
        match required!(at, layer_specifier) {
            LayerSpecifier::StaticLayer(layer) => {
                values(at.field("static_layer"), "", layer, limits)?
            }
            // Nothing here changes through admin: such a layer stays empty for ever.
            LayerSpecifier::AdminLayer(pb::runtime_layer::AdminLayer {}) => {}
            LayerSpecifier::DiskLayer(_) => {
                return at
                    .field("disk_layer")
                    .fail("is not supported; use static_layer");
            }
            LayerSpecifier::RtdsLayer(_) => {
                return at
                    .field("rtds_layer")
                    .fail("is not supported; use static_layer");
            }
        }
    }
    Ok(())
}

/// Keys may be written with dots or nested.
fn values(
    at: At<'_>,
    prefix: &str,
    layer: &Struct,
    limits: &mut ConnectionLimits,
) -> Result<(), CompileError> {
    let Struct { fields } = layer;
    for (name, Value { kind }) in fields {
        let key = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        let at = at.field(name);
        match kind {
            Some(Kind::StructValue(inner)) => values(at, &key, inner, limits)?,
            _ if WITHOUT_MEANING.iter().any(|known| key.starts_with(known)) => {}
            _ if limits.take_key(at, &key, number(kind))? => {}
            _ => {
                let why = "runtime keys do not change this proxy; set the value in the resource";
                return at.fail(why);
            }
        }
    }
    Ok(())
}

fn number(kind: &Option<Kind>) -> Option<f64> {
    match kind {
        Some(Kind::NumberValue(number)) => Some(*number),
        // Envoy takes numbers in quotes too.
        Some(Kind::StringValue(text)) => text.parse().ok(),
        _ => None,
    }
}
