//! Converts JSON schemas, as schemars derives them, to structural schemas (Kubernetes' "Specifying a
//! structural schema").

use serde_json::{Map, Value, json};

/// Formats in use that the API server validates; it warns of unknown ones.
const FORMATS: [&str; 5] = ["ipv4", "ipv6", "cidr", "date-time", "int64"];

/// What the API server does with fields that an object's schema does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// It removes them, and refuses the object where the client asks for strict validation, as
    /// kubectl does by default.
    Pruned,
    /// It keeps them, for every client, and the reader finds them.
    Kept,
}

impl UnknownFields {
    /// Marks the schema of an object whose fields are known.
    pub fn mark(self, schema: &mut Map<String, Value>) {
        if self == UnknownFields::Kept {
            schema.insert(
                "x-kubernetes-preserve-unknown-fields".to_owned(),
                true.into(),
            );
        }
    }
}

/// Rewrites a schema and the schemas in it.
///
/// Removed is what the API server does anyway: it drops nulls, and handles unknown fields as it is
/// told to. Defaults are removed too: the parser has them, and stored objects stay as they were
/// written.
pub fn rewrite(schema: &mut Value, unknown: UnknownFields) {
    let Value::Object(schema) = schema else {
        return;
    };
    for drop in ["$schema", "title", "default"] {
        schema.remove(drop);
    }
    without_null(schema);
    plain_enum(schema);
    format(schema);
    // First, for readers of the file.
    if let Some(description) = schema.shift_remove("description") {
        schema.shift_insert(0, "description".to_owned(), description);
    }
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
        unknown.mark(schema);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            rewrite(property, unknown);
        }
    }
    for within in ["items", "additionalProperties"] {
        if let Some(within) = schema.get_mut(within) {
            rewrite(within, unknown);
        }
    }
}

/// Removes `null`, which schemars adds for an `Option`.
fn without_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let null = json!({"type": "null"});
    let Some(Value::Array(any)) = schema.get_mut("anyOf") else {
        return;
    };
    let of_an_option = any.contains(&null);
    any.retain(|one| *one != null);
    if !of_an_option {
        return;
    }
    if let [Value::Object(one)] = any.as_mut_slice() {
        let one = std::mem::take(one);
        schema.remove("anyOf");
        // The field's own keywords have precedence over its type's.
        for (key, value) in one {
            schema.entry(key).or_insert(value);
        }
    }
}

/// Turns a `oneOf` into an `enum`. schemars derives a `oneOf` for variants that have descriptions; in
/// a structural schema it may not contain types.
fn plain_enum(schema: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = schema.remove("oneOf") else {
        return;
    };
    let mut values = Vec::new();
    let mut lines: Vec<String> = schema
        .get("description")
        .and_then(Value::as_str)
        .map(|text| text.to_owned())
        .into_iter()
        .collect();
    for variant in &variants {
        let constant = variant.get("const").cloned().into_iter();
        let listed = variant.get("enum").and_then(Value::as_array);
        let these: Vec<_> = constant
            .chain(listed.into_iter().flatten().cloned())
            .collect();
        let description = variant.get("description").and_then(Value::as_str);
        if let (Some(description), [Value::String(name)]) = (description, these.as_slice()) {
            lines.push(format!("{name}: {description}"));
        }
        values.extend(these);
    }
    if !lines.is_empty() {
        schema.insert("description".to_owned(), lines.join("\n").into());
    }
    schema.insert("type".to_owned(), "string".into());
    schema.entry("enum").or_insert(values.into());
}

/// Replaces formats of Rust's integers by bounds.
fn format(schema: &mut Map<String, Value>) {
    let Some(format) = schema.get("format").and_then(Value::as_str) else {
        return;
    };
    if FORMATS.contains(&format) {
        return;
    }
    if format == "uint32" {
        schema.entry("maximum").or_insert(u32::MAX.into());
    }
    schema.remove("format");
}
