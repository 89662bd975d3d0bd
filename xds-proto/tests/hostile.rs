//! Malicious input, round trips of arbitrary messages, and a real bootstrap.

use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};
use xds_proto::envoy::config::bootstrap::v3::Bootstrap;
use xds_proto::envoy::config::core::v3::address::Address;
use xds_proto::json::{decode_json, encode_json, from_json, to_json};
use xds_proto::unknown::{Unknown, find, unknown_fields};

const VALUE: &str = "google.protobuf.Value";
const LISTENER: &str = "envoy.config.listener.v3.Listener";

fn nested_list(depth: usize) -> Value {
    (0..depth).fold(json!([]), |inner, _| json!([inner]))
}

#[test]
fn deep_nesting_is_refused_both_ways() {
    assert!(from_json(VALUE, &nested_list(30)).is_ok());
    let error = from_json(VALUE, &nested_list(1_000)).unwrap_err();
    assert!(error.message.contains("nested deeper"), "{error}");
    // A list in a list, on the wire.
    let mut bytes = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(&bytes);
        bytes = vec![0x32];
        prost::encoding::encode_varint(outer.len() as u64, &mut bytes);
        bytes.extend(outer);
    }
    assert!(
        to_json(VALUE, &bytes)
            .unwrap_err()
            .message
            .contains("nested deeper")
    );
    assert!(matches!(find(VALUE, &bytes)[..], [Unknown::Depth { .. }]));
}

#[test]
fn an_any_in_an_any_in_an_any_ends_somewhere() {
    let mut any = xds_proto::google::protobuf::Any::default();
    for _ in 0..500 {
        any = xds_proto::any::pack(&any);
    }
    let bytes = any.encode_to_vec();
    assert!(to_json("google.protobuf.Any", &bytes).is_err());
    assert_eq!(find("google.protobuf.Any", &bytes).len(), 1);
}

#[test]
fn unknown_fields_are_found_wherever_they_hide() {
    let listener = json!({
        "name": "a",
        "filter_chains": [{}, {"filters": [{
            "name": "x",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster",
            },
        }]}],
    });
    let mut message: xds_proto::envoy::config::listener::v3::Listener =
        decode_json(&listener).unwrap();
    assert_eq!(
        unknown_fields(LISTENER, &message.encode_to_vec()),
        Vec::<String>::new()
    );

    use xds_proto::envoy::config::listener::v3::filter::ConfigType;
    let filter = &mut message.filter_chains[1].filters[0];
    let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else {
        panic!("no typed config");
    };
    // Field 1000, a varint.
    any.value.extend([0xc0, 0x3e, 1]);
    let mut bytes = message.encode_to_vec();
    bytes.extend([0xc8, 0x3e, 1]);
    assert_eq!(
        unknown_fields(LISTENER, &bytes),
        [
            "filter_chains[1].filters[0].typed_config.1000: unknown field",
            "1001: unknown field"
        ]
    );

    let Some(ConfigType::TypedConfig(any)) = &mut message.filter_chains[1].filters[0].config_type
    else {
        panic!("no typed config");
    };
    any.type_url = "a.b/no.such.Type".to_owned();
    assert_eq!(
        unknown_fields(LISTENER, &message.encode_to_vec()),
        ["filter_chains[1].filters[0].typed_config: unknown type a.b/no.such.Type"]
    );
    assert_eq!(
        unknown_fields("no.such.Type", &[]),
        [": unknown type no.such.Type"]
    );
    // However many there are, the list is short.
    assert!(find(LISTENER, &[0xc8, 0x3e, 1].repeat(10_000)).len() < 100);
}

const BOOTSTRAP: &str = include_str!("bootstrap.yaml");

#[test]
fn a_real_bootstrap_is_read_whole() {
    let json: Value = xds_proto::yaml::to_json(BOOTSTRAP).unwrap();
    let bootstrap: Bootstrap = decode_json(&json).unwrap();
    assert_eq!(bootstrap.node.as_ref().unwrap().cluster, "shop");
    let resources = bootstrap.static_resources.as_ref().unwrap();
    assert_eq!(resources.listeners.len(), 1);
    let address = resources.listeners[0].address.as_ref().unwrap();
    assert!(matches!(address.address, Some(Address::SocketAddress(_))));
    assert_eq!(
        resources.clusters[0].connect_timeout.unwrap().nanos,
        250_000_000
    );
    assert_eq!(encode_json(&bootstrap).unwrap(), json);
}

/// JSON that some YAML might hold.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::hash_map(".{0,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| close(a, b)))
        }
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn any_json_survives_a_value(json in any_json()) {
        let bytes = from_json(VALUE, &json).unwrap();
        let again = to_json(VALUE, &bytes).unwrap();
        prop_assert!(close(&json, &again), "{json} became {again}");
        // prost agrees on the bytes.
        let typed = xds_proto::google::protobuf::Value::decode(bytes.as_slice()).unwrap();
        prop_assert!(close(&json, &encode_json(&typed).unwrap()));
    }

    #[test]
    fn any_json_is_read_as_a_bootstrap_without_harm(json in any_json()) {
        let _ = decode_json::<Bootstrap>(&json);
    }

    #[test]
    fn any_bytes_are_written_as_json_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for message in ["envoy.config.bootstrap.v3.Bootstrap", LISTENER, VALUE, "google.protobuf.Any"] {
            if let Ok(json) = to_json(message, &bytes) {
                // What was written can be read, except types that only a dump shows.
                if !json.to_string().contains("@type") {
                    let again = from_json(message, &json);
                    prop_assert!(again.is_ok(), "{message} {json}: {again:?}");
                }
            }
            let _ = find(message, &bytes);
        }
    }

    #[test]
    fn numbers_of_every_kind_survive(
        unsigned in any::<u64>(), small in any::<u32>(), text in ".{0,20}",
        list in proptest::collection::vec(any::<u64>(), 0..10),
        flags in proptest::collection::hash_map(".{0,5}", any::<u64>(), 0..5),
        data in proptest::collection::vec(any::<u8>(), 0..40),
        seconds in -62_135_596_800..253_402_300_799_i64, nanos in 0..1_000_000_000_i32,
    ) {
        use xds_proto::anyam::inspect::v1::{DumpChunk, Edge, ResourceVersion, TapEvent};
        use xds_proto::google::protobuf::Timestamp;
        let edge = Edge { requests: unsigned, latency: list, response_flags: flags, source_identity: text.clone(), ..Default::default() };
        prop_assert_eq!(&decode_json::<Edge>(&encode_json(&edge).unwrap()).unwrap(), &edge);
        let chunk = DumpChunk { id: text.clone(), data, last: true };
        prop_assert_eq!(&decode_json::<DumpChunk>(&encode_json(&chunk).unwrap()).unwrap(), &chunk);
        let version = ResourceVersion { type_url: text, version: String::new(), count: small };
        prop_assert_eq!(&decode_json::<ResourceVersion>(&encode_json(&version).unwrap()).unwrap(), &version);
        let event = TapEvent { start: Some(Timestamp { seconds, nanos }), ..Default::default() };
        prop_assert_eq!(&decode_json::<TapEvent>(&encode_json(&event).unwrap()).unwrap(), &event);
    }
}
