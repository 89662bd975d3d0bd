//! Dynamic metadata in logs and headers: a string as it is, anything else as JSON.

use crate::metadata::Value;
use crate::telemetry::escape;

/// Hands a value to `put`, cut at `max` bytes. False: there is none.
pub fn put(value: &Value, max: Option<usize>, put: &mut dyn FnMut(&[u8])) -> bool {
    let max = max.unwrap_or(usize::MAX);
    let mut cut = |text: &[u8]| put(text.get(..max).unwrap_or(text));
    match value {
        Value::Null => return false,
        Value::String(text) => cut(text.as_bytes()),
        other => {
            let mut text = Vec::new();
            json(other, &mut text);
            cut(&text);
        }
    }
    true
}

/// Appends a value as JSON.
pub fn json(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) if number.is_finite() => {
            out.extend_from_slice(number.to_string().as_bytes());
        }
        // JSON has no such numbers; protobuf's mapping writes them as text.
        Value::Number(number) => escape::json(number.to_string().as_bytes(), out),
        Value::String(text) => escape::json(text.as_bytes(), out),
        Value::List(values) => {
            out.push(b'[');
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                json(value, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (n, (key, value)) in fields.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                escape::json(key.as_bytes(), out);
                out.push(b':');
                json(value, out);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_envoy_writes_them() {
        let list = Value::List(vec![
            Value::Number(1.0),
            Value::Number(0.5),
            Value::String("te\"xt".into()),
            Value::Bool(true),
            Value::Null,
        ]);
        let whole = Value::Object(std::sync::Arc::new([("k".into(), list)].into()));
        let mut text = Vec::new();
        assert!(put(&whole, None, &mut |part| text.extend_from_slice(part)));
        assert_eq!(text, br#"{"k":[1,0.5,"te\"xt",true,null]}"#);
        text.clear();
        let raw = Value::String("te\"xt".into());
        assert!(put(&raw, Some(4), &mut |part| text.extend_from_slice(part)));
        assert_eq!(text, b"te\"x");
    }
}
