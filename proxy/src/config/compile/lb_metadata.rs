//! Metadata in the namespace `envoy.lb`: that of endpoints, and what requests ask of it.

use std::sync::Arc;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::google::protobuf::value::Kind;
use xds_proto::google::protobuf::{Struct, Value};

use super::support::{At, CompileError};
use super::values::filter_metadata;
use crate::config::balancing::SubsetCriteria;
use crate::config::endpoint::{LbMetadata, LbValue};

const NAMESPACE: &str = "envoy.lb";
/// The key of criteria that are to be tried in turn.
const FALLBACK_LIST: &str = "fallback_list";
/// Deepest nesting of objects and lists; it bounds recursion.
const MAX_DEPTH: u32 = 16;

/// The fields of the namespace, if there are any.
pub fn fields(m: &core::Metadata) -> Option<&Struct> {
    filter_metadata(m).get(NAMESPACE)
}

/// The fields, sorted by key.
pub fn lb_metadata(at: At<'_>, m: &Struct) -> Result<LbMetadata, CompileError> {
    let pair = |(key, value): (&String, &Value)| {
        let value = lb_value(at.field(key), value)?;
        Ok((key.as_str().into(), value))
    };
    let mut pairs: Vec<_> = m.fields.iter().map(pair).collect::<Result<_, _>>()?;
    pairs.sort_by(|(a, _), (b, _)| Box::<str>::cmp(a, b));
    Ok(pairs.into())
}

fn lb_value(at: At<'_>, value: &Value) -> Result<LbValue, CompileError> {
    let bytes = |value| {
        let mut out = Vec::new();
        encode(at, value, 0, &mut out)?;
        Ok(out.into_boxed_slice())
    };
    Ok(LbValue {
        value: bytes(value)?,
        elements: match &value.kind {
            Some(Kind::ListValue(list)) => {
                Some(list.values.iter().map(bytes).collect::<Result<_, _>>()?)
            }
            _ => None,
        },
    })
}

/// Writes a value so that equal values are equal bytes.
fn encode(at: At<'_>, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), CompileError> {
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    let text = |text: &str, out: &mut Vec<u8>| {
        out.extend((text.len() as u64).to_be_bytes());
        out.extend(text.as_bytes());
    };
    match &value.kind {
        None | Some(Kind::NullValue(_)) => out.push(b'n'),
        Some(Kind::BoolValue(value)) => out.push(if *value { b't' } else { b'f' }),
        Some(Kind::NumberValue(number)) => {
            out.push(b'd');
            // Both zeros are equal.
            out.extend((number + 0.0).to_be_bytes());
        }
        Some(Kind::StringValue(value)) => {
            out.push(b's');
            text(value, out);
        }
        Some(Kind::ListValue(list)) => {
            out.push(b'l');
            out.extend((list.values.len() as u64).to_be_bytes());
            for value in &list.values {
                encode(at, value, depth + 1, out)?;
            }
        }
        Some(Kind::StructValue(object)) => {
            out.push(b'o');
            let mut fields: Vec<_> = object.fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            out.extend((fields.len() as u64).to_be_bytes());
            for (key, value) in fields {
                text(key, out);
                encode(at, value, depth + 1, out)?;
            }
        }
    }
    Ok(())
}

/// `metadata_match`; its fields add to and replace those of `outer`. `None`: nothing is asked.
pub fn criteria(
    at: At<'_>,
    outer: Option<&core::Metadata>,
    m: Option<&core::Metadata>,
) -> Result<Option<Arc<SubsetCriteria>>, CompileError> {
    let all = match (outer.and_then(fields), m.and_then(fields)) {
        (None, None) => return Ok(None),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (Some(outer), Some(own)) => merged(outer, own),
    };
    let at = at.field("metadata_match");
    let at = at.key("filter_metadata", NAMESPACE);
    let mut rest = all.clone();
    let variants = match rest.fields.remove(FALLBACK_LIST) {
        None => Vec::new(),
        Some(list) => variants(at.field(FALLBACK_LIST), &rest, &list)?,
    };
    Ok(Some(Arc::new(SubsetCriteria {
        pairs: lb_metadata(at, &all)?,
        variants,
    })))
}

/// Each entry of the list with the other fields; without entries, those alone.
fn variants(
    at: At<'_>,
    rest: &Struct,
    list: &Value,
) -> Result<Vec<Arc<SubsetCriteria>>, CompileError> {
    let entries = match &list.kind {
        Some(Kind::ListValue(list)) => &list.values[..],
        _ => &[],
    };
    let none = Value::default();
    let entries = match entries {
        [] => std::slice::from_ref(&none),
        entries => entries,
    };
    let variant = |entry: &Value| {
        let all = match &entry.kind {
            Some(Kind::StructValue(own)) => merged(rest, own),
            _ => rest.clone(),
        };
        Ok(Arc::new(SubsetCriteria {
            pairs: lb_metadata(at, &all)?,
            variants: Vec::new(),
        }))
    };
    entries.iter().map(variant).collect()
}

fn merged(outer: &Struct, own: &Struct) -> Struct {
    let mut all = outer.clone();
    let own = own.fields.iter();
    all.fields
        .extend(own.map(|(key, value)| (key.clone(), value.clone())));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(fields: serde_json::Value) -> core::Metadata {
        let json = json!({"filter_metadata": {NAMESPACE: fields, "other": {"x": 1}}});
        xds_proto::json::decode_json(&json).unwrap()
    }

    fn pairs(fields: serde_json::Value) -> LbMetadata {
        lb_metadata(At::root(""), super::fields(&metadata(fields)).unwrap()).unwrap()
    }

    #[test]
    fn equal_values_are_equal_bytes() {
        let value = |json| pairs(json!({"k": json}))[0].1.value.clone();
        let all = [
            json!(null),
            json!(true),
            json!(false),
            json!(1),
            json!("1"),
            json!(""),
            json!([]),
            json!([1]),
            json!(["1"]),
            json!([["1"]]),
            json!({}),
            json!({"a": 1}),
            json!({"a": 1, "b": 2}),
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                let equal = value(one.clone()) == value(other.clone());
                assert_eq!(equal, at == other_at, "{one} {other}");
            }
        }
        assert_eq!(value(json!(0)), value(json!(-0.0)));
        assert_eq!(
            value(json!({"a": 1, "b": 2})),
            value(json!({"b": 2, "a": 1}))
        );
    }

    #[test]
    fn an_element_of_a_list_matches_where_that_is_wanted() {
        let list = pairs(json!({"k": ["a", "b"]}));
        let one = pairs(json!({"k": "b"}));
        let matches = |wanted: &LbMetadata, any| list[0].1.matches(&wanted[0].1, any);
        assert!(matches(&one, true) && !matches(&one, false));
        assert!(matches(&list, true) && matches(&list, false));
        assert!(!one[0].1.matches(&list[0].1, true));
    }

    #[test]
    fn criteria_are_merged_and_listed() {
        let at = At::root("route");
        let outer = metadata(json!({"stage": "prod", "version": "1"}));
        let own =
            metadata(json!({"version": "2", "fallback_list": [{"stage": "dev"}, {"x": "y"}]}));
        let merged = criteria(at, Some(&outer), Some(&own)).unwrap().unwrap();
        let keys = |of: &SubsetCriteria| {
            let keys = of.pairs.iter().map(|(key, _)| key.to_string());
            keys.collect::<Vec<_>>()
        };
        assert_eq!(keys(&merged), ["fallback_list", "stage", "version"]);
        let [first, second] = &merged.variants[..] else {
            panic!("two");
        };
        assert_eq!(first.pairs, pairs(json!({"stage": "dev", "version": "2"})));
        assert_eq!(
            second.pairs,
            pairs(json!({"stage": "prod", "version": "2", "x": "y"}))
        );
        let empty = metadata(json!({"a": 1, "fallback_list": []}));
        let alone = criteria(at, None, Some(&empty)).unwrap().unwrap();
        assert_eq!(alone.variants[0].pairs, pairs(json!({"a": 1})));
        assert!(criteria(at, None, None).unwrap().is_none());
        let other = core::Metadata::default();
        assert!(criteria(at, Some(&other), Some(&other)).unwrap().is_none());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut deep = json!(1);
        for _ in 0..=MAX_DEPTH {
            deep = json!([deep]);
        }
        let error = criteria(At::root("r"), None, Some(&metadata(json!({"k": deep})))).unwrap_err();
        assert!(
            error.path.ends_with("filter_metadata[\"envoy.lb\"].k"),
            "{error}"
        );
    }
}
