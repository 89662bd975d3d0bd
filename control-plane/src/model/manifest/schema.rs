//! Schemas of the values in our own kinds, for the API server: what a type takes beyond what its
//! fields say. The rest is derived from the fields, and becomes a CustomResourceDefinition in
//! [`crate::crd`].
//!
//! A schema is never stricter than the reader, or a folder's manifests could not be applied to a
//! cluster; `control-plane/tests/crds` compares the two.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::values::{Cidr, Glob, HeaderName, Span};

/// The longest text of an IP address: IPv6 with an IPv4 address at its end.
const MAX_ADDRESS: u32 = 45;

macro_rules! schema_of_text {
    ($type:ty, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

// GEP-2257.
schema_of_text!(Span, {
    "type": "string",
    "maxLength": 28,
    "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
});
schema_of_text!(Cidr, {
    "type": "string",
    "anyOf": [{"format": "cidr"}, {"format": "ipv4"}, {"format": "ipv6"}]
});
schema_of_text!(Glob, {
    "type": "string",
    "pattern": r"^(\*|\*?[^*]+|[^*]+\*)$"
});
schema_of_text!(HeaderName, {
    "type": "string",
    "pattern": r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$"
});

/// For `x-kubernetes-validations`: one rule in CEL.
pub fn rule(rule: &str, message: &str) -> Value {
    json!([{"rule": rule, "message": message}])
}

/// For `x-kubernetes-validations`: several rules in CEL, each with its message.
pub fn rules(rules: &[(&str, &str)]) -> Value {
    let rules = rules.iter();
    rules
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}

/// For `x-kubernetes-validations` of a [`Span`].
pub fn more_than_zero() -> Value {
    rule("duration(self) > duration('0s')", "must be more than 0")
}

/// For `x-kubernetes-validations`: one of these lists has an entry.
pub fn not_empty(lists: &[&str], message: &str) -> Value {
    let has_entry = |list: &&str| format!("(has(self.{list}) && size(self.{list}) > 0)");
    let any: Vec<_> = lists.iter().map(has_entry).collect();
    rule(&any.join(" || "), message)
}

/// For `schema_with`: [`super::values::subdomain`].
pub fn subdomain(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "pattern": r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"
    })
}

/// For `schema_with`: [`super::values::label`].
pub fn label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    })
}

/// For `schema_with`: globs of namespaces, whose `*` stands at the end.
pub fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string", "pattern": r"^(\*|[^*]+\*?)$"}
    })
}

/// For `schema_with`: globs of paths, which begin with `/` or `*`.
pub fn paths(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string", "pattern": r"^(\*[^*]*|/[^*]*\*?)$"}
    })
}

/// For `schema_with`: a map from ports to `T`, of `most` entries.
pub fn by_port<T: JsonSchema>(generator: &mut SchemaGenerator, most: usize) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": most,
        "additionalProperties": generator.subschema_for::<T>(),
        "x-kubernetes-validations": rule(
            "self.all(port, port.matches('^[0-9]{1,5}$') && int(port) >= 1 && int(port) <= 65535)",
            "a key is a port from 1 to 65535",
        )
    })
}

/// For `schema_with`: addresses of a workload, 1 to `most`.
pub fn addresses(most: usize) -> Schema {
    let elsewhere = "!self.startsWith('127.') && !(self in ['0.0.0.0', '::', '::1']) && \
        !self.matches('^(22[4-9]|23[0-9])[.]') && !self.matches('^[fF][fF][0-9a-fA-F]{2}:')";
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": most,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": MAX_ADDRESS,
            "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
            "x-kubernetes-validations": rule(
                elsewhere,
                "no workload can have a loopback, multicast or unspecified address",
            )
        }
    })
}
