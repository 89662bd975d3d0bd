//! Dynamic metadata: values that filters set on a request, by namespace (google.protobuf.Struct).

use std::collections::BTreeMap;
use std::sync::Arc;

/// google.protobuf.Value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(Box<str>),
    List(Vec<Value>),
    /// Shared: what a filter learnt once is set on many requests.
    Object(Arc<Object>),
}

pub type Object = BTreeMap<Box<str>, Value>;

/// By namespace: the name of the filter that set it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(Vec<(Arc<str>, Value)>);

impl Metadata {
    /// Adds fields to a namespace; the newest value of a field wins.
    pub fn merge(&mut self, namespace: &Arc<str>, fields: &Object) {
        let known = self.0.iter_mut().find(|(name, _)| name == namespace);
        match known {
            Some((_, Value::Object(known))) => {
                Arc::make_mut(known).extend(
                    fields
                        .iter()
                        .map(|(key, value)| (key.clone(), value.clone())),
                );
            }
            _ => self
                .0
                .push((namespace.clone(), Value::Object(Arc::new(fields.clone())))),
        }
    }

    /// The value at a path of keys; an empty path is the whole namespace.
    pub fn get(&self, namespace: &str, path: &[Box<str>]) -> Option<&Value> {
        let (_, whole) = self.0.iter().find(|(name, _)| **name == *namespace)?;
        path.iter().try_fold(whole, |value, key| match value {
            Value::Object(fields) => fields.get(key),
            _ => None,
        })
    }
}
