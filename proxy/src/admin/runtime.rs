//! `/runtime` and `/memory`: Envoy's pages of those names.

use prost::Message;
use serde_json::{Map, Value, json};
use xds_proto::envoy::config::bootstrap::v3 as pb;
use xds_proto::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use xds_proto::google::protobuf::Struct;
use xds_proto::google::protobuf::value::Kind;

use super::{Admin, set};

/// The layers of the bootstrap with their values; the last layer that sets a key decides.
pub(super) fn runtime(admin: &Admin) -> Value {
    // It was decoded from these bytes before.
    let bootstrap = pb::Bootstrap::decode(admin.bootstrap.clone()).unwrap_or_default();
    let layers = bootstrap.layered_runtime.unwrap_or_default().layers;
    let mut entries = Map::new();
    for (index, layer) in layers.iter().enumerate() {
        if let Some(LayerSpecifier::StaticLayer(values)) = &layer.layer_specifier {
            take(values, "", (index, layers.len()), &mut entries);
        }
    }
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    json!({ "layers": names, "entries": entries })
}

/// Keys may be written with dots or nested.
fn take(values: &Struct, prefix: &str, layer: (usize, usize), entries: &mut Map<String, Value>) {
    let (index, count) = layer;
    for (name, value) in &values.fields {
        let key = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        let text = match &value.kind {
            Some(Kind::StructValue(inner)) => {
                take(inner, &key, layer, entries);
                continue;
            }
            Some(Kind::StringValue(text)) => text.clone(),
            Some(Kind::NumberValue(number)) => number.to_string(),
            Some(Kind::BoolValue(value)) => value.to_string(),
            _ => continue,
        };
        let entry = entries
            .entry(key)
            .or_insert_with(|| json!({ "layer_values": vec![""; count], "final_value": "" }));
        let values = entry.get_mut("layer_values");
        if let Some(value) = values.and_then(|values| values.get_mut(index)) {
            *value = text.clone().into();
        }
        set(entry, "final_value", text.into());
    }
}

/// envoy.admin.v3.Memory, from the kernel's figures. The allocator does not report its free memory,
/// so those fields are 0.
pub(super) fn memory() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0).saturating_mul(1024).to_string()
    };
    json!({
        "allocated": bytes("RssAnon:"),
        "heap_size": bytes("VmData:"),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": bytes("VmRSS:"),
    })
}
