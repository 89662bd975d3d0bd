//! `?mask=`: the parts of a dump that are wanted, as a `google.protobuf.FieldMask`.

use serde_json::{Map, Value};

/// Paths of fields; `*` is everything.
pub(super) struct Mask(Vec<Vec<String>>);

impl Mask {
    /// `text`: paths by comma, their fields by dot. `None`: it selects everything.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let paths = text
            .split(',')
            .map(str::trim)
            .filter(|path| !path.is_empty());
        let paths: Vec<Vec<String>> = paths
            .map(|path| path.split('.').map(str::to_owned).collect())
            .collect();
        let all = paths.iter().any(|path| path.as_slice() == ["*"]);
        (!all && !paths.is_empty()).then_some(Self(paths))
    }

    /// What the mask leaves of an object; `None`: it selects nothing of it. Lists are taken whole:
    /// a path that continues into one selects nothing.
    pub(super) fn apply(&self, value: &Value) -> Option<Value> {
        let Value::Object(from) = value else {
            return None;
        };
        let mut to = Map::new();
        for path in &self.0 {
            copy(from, path, &mut to);
        }
        (!to.is_empty()).then_some(Value::Object(to))
    }
}

/// Copies the field at `path`, and the `@type` of each object around it.
fn copy(from: &Map<String, Value>, path: &[String], to: &mut Map<String, Value>) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let Some(value) = from.get(first) else {
        return;
    };
    let found = match (rest, value) {
        ([], value) => value.clone(),
        (rest, Value::Object(inner)) => {
            let mut kept = match to.get(first) {
                Some(Value::Object(before)) => before.clone(),
                _ => Map::new(),
            };
            copy(inner, rest, &mut kept);
            if kept.is_empty() {
                return;
            }
            Value::Object(kept)
        }
        _ => return,
    };
    if let Some(of_type) = from.get("@type") {
        to.insert("@type".to_owned(), of_type.clone());
    }
    to.insert(first.clone(), found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mask_leaves_what_it_names() {
        let dump = json!({
            "@type": "Dump",
            "cluster": {"@type": "Cluster", "name": "a", "type": "EDS", "lb": {"policy": 1, "x": 2}},
            "list": [{"name": "b"}],
            "last_updated": "now",
        });
        let masked = |mask: &str| Mask::parse(mask).unwrap().apply(&dump);
        assert_eq!(
            masked("cluster.name,cluster.lb.policy"),
            Some(json!({"@type": "Dump", "cluster":
                {"@type": "Cluster", "name": "a", "lb": {"policy": 1}}}))
        );
        assert_eq!(
            masked("list,last_updated"),
            Some(json!({"@type": "Dump", "list": [{"name": "b"}], "last_updated": "now"}))
        );
        for nothing in ["list.name", "other", "cluster.other", "last_updated.x"] {
            assert_eq!(masked(nothing), None, "{nothing}");
        }
        for everything in ["*", "", ",", "*,cluster"] {
            assert!(Mask::parse(everything).is_none(), "{everything}");
        }
    }
}
