//! `layered_runtime` and `overload_manager`: what of them has a meaning here.

use xds_proto::envoy::config::bootstrap::v3 as pb;
use xds_proto::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use xds_proto::envoy::config::overload::v3 as overload;
use xds_proto::envoy::config::overload::v3::resource_monitor::ConfigType;
use xds_proto::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use xds_proto::google::protobuf::value::Kind;
use xds_proto::google::protobuf::{Struct, Value};

use crate::config::compile::support::{
    At, CompileError, decode, ignored, required, type_name, unsupported,
};

/// The runtime key by which Envoys of old limit connections.
const MAX_CONNECTIONS: &str = "overload.global_downstream_max_connections";
/// Keys that switch parts of Envoy's own code, or have no part in what is promised.
const WITHOUT_MEANING: [&str; 2] = ["envoy.", "re2."];

/// What runtime layers set.
#[derive(Default)]
pub struct Runtime {
    pub max_connections: Option<u64>,
}

/// Later layers win.
pub fn layers(at: At<'_>, layered: &Option<pb::LayeredRuntime>) -> Result<Runtime, CompileError> {
    let mut runtime = Runtime::default();
    let Some(pb::LayeredRuntime { layers }) = layered else {
        return Ok(runtime);
    };
    for (index, layer) in layers.iter().enumerate() {
        let at = at.index("layers", index);
        let pb::RuntimeLayer {
            name,
            layer_specifier,
        } = layer;
        ignored!("layers go by their order", name);
        match required!(at, layer_specifier) {
            LayerSpecifier::StaticLayer(layer) => {
                values(at.field("static_layer"), "", layer, &mut runtime)?;
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
    Ok(runtime)
}

/// Keys may be written with dots or nested.
fn values(
    at: At<'_>,
    prefix: &str,
    layer: &Struct,
    runtime: &mut Runtime,
) -> Result<(), CompileError> {
    let Struct { fields } = layer;
    for (name, Value { kind }) in fields {
        let key = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        let at = at.field(name);
        match kind {
            Some(Kind::StructValue(inner)) => values(at, &key, inner, runtime)?,
            kind if key == MAX_CONNECTIONS => {
                let count = match kind {
                    Some(Kind::NumberValue(number)) => Some(*number),
                    Some(Kind::StringValue(text)) => text.parse().ok(),
                    _ => None,
                };
                match count {
                    Some(count) if count >= 0.0 && count.fract() == 0.0 => {
                        runtime.max_connections = Some(count as u64);
                    }
                    _ => return at.fail("has to be a number of connections"),
                }
            }
            _ if WITHOUT_MEANING.iter().any(|known| key.starts_with(known)) => {}
            _ => {
                let why = "runtime keys do not change this proxy; set the value in the resource";
                return at.fail(why);
            }
        }
    }
    Ok(())
}

/// The limit of downstream connections; nothing else of the overload manager is there.
pub fn overload(
    at: At<'_>,
    manager: &Option<overload::OverloadManager>,
) -> Result<Option<u64>, CompileError> {
    let Some(overload::OverloadManager {
        refresh_interval,
        resource_monitors,
        actions,
        loadshed_points,
        buffer_factory_config,
    }) = manager
    else {
        return Ok(None);
    };
    unsupported!(at, actions, loadshed_points, buffer_factory_config);
    ignored!(
        "connections are counted as they come and go",
        refresh_interval
    );
    let mut limit = None;
    for (index, monitor) in resource_monitors.iter().enumerate() {
        let at = at.index("resource_monitors", index);
        let overload::ResourceMonitor { name, config_type } = monitor;
        let ConfigType::TypedConfig(any) = required!(at, config_type);
        let at = at.field("typed_config");
        if type_name(any)
            != "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
        {
            return at.fail(format_args!(
                "the monitor {name} is not supported; remove it"
            ));
        }
        let DownstreamConnectionsConfig {
            max_active_downstream_connections,
        } = decode(at, any)?;
        match u64::try_from(max_active_downstream_connections) {
            Ok(count) if count > 0 => limit = Some(count),
            _ => {
                let at = at.field("max_active_downstream_connections");
                return at.fail("has to be above zero");
            }
        }
    }
    Ok(limit)
}
