//! Judges objects by their definition's schema as the API server does, without CEL.

use std::collections::HashMap;

use anyam_control::crd;
use jsonschema::Validator;
use serde_json::{Value, json};

pub struct Judge {
    by_kind: HashMap<&'static str, Validator>,
}

impl Judge {
    pub fn new() -> Self {
        let validator = |one: &crd::Definition| {
            let versions = &one.manifest["spec"]["versions"];
            let mut schema = versions[0]["schema"]["openAPIV3Schema"].clone();
            close(&mut schema);
            // Everything may be in there.
            schema["properties"]["metadata"] = json!({});
            jsonschema::draft202012::options()
                .should_validate_formats(true)
                .with_format("cidr", is_cidr)
                .build(&schema)
                .unwrap()
        };
        let all = crd::all();
        let by_kind = all.iter().map(|one| (one.kind.name(), validator(one)));
        Judge {
            by_kind: by_kind.collect(),
        }
    }

    /// # Errors
    /// What is wrong with it.
    pub fn look(&self, object: &Value) -> Result<(), String> {
        let mut object = object.clone();
        drop_nulls(&mut object);
        let validator = &self.by_kind[object["kind"].as_str().unwrap()];
        validator
            .validate(&object)
            .map_err(|error| format!("{}: {error}", error.instance_path()))
    }
}

/// The API server drops nulls from objects before it looks.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// kubectl asks the API server to refuse what the schema does not name, where that is not kept. Lists
/// that are sets or maps have no equal elements, or keys.
fn close(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    let open = ["additionalProperties", crate::KEPT];
    if map.contains_key("properties") && !open.iter().any(|it| map.contains_key(*it)) {
        map.insert("additionalProperties".into(), false.into());
    }
    if map.get("x-kubernetes-list-type") == Some(&json!("set")) {
        map.insert("uniqueItems".into(), true.into());
    }
    map.values_mut().for_each(close);
}

fn is_cidr(text: &str) -> bool {
    text.contains('/')
        && text
            .parse::<anyam_control::model::manifest::values::Cidr>()
            .is_ok()
}
