//! A pod or pod template as JSON, with the parts taken out that injection reads and adds to. Every
//! other field stays as it is.

use serde_json::{Map, Value};

use super::InjectError;

pub(super) type JsonObject = Map<String, Value>;

/// A pod whose metadata and lists have the types that the Kubernetes API gives them.
#[derive(Clone, Debug)]
pub(super) struct PodManifest {
    /// Without `metadata` and `spec`.
    json: JsonObject,
    /// Without `annotations`.
    metadata: JsonObject,
    /// Without the lists below.
    pub(super) spec: JsonObject,
    pub(super) annotations: JsonObject,
    pub(super) init_containers: Vec<JsonObject>,
    pub(super) containers: Vec<JsonObject>,
    pub(super) volumes: Vec<JsonObject>,
}

pub(super) fn shape(place: impl Into<String>, expected: &'static str) -> InjectError {
    InjectError::Shape {
        place: place.into(),
        expected,
    }
}

impl PodManifest {
    /// # Errors
    /// A part that injection reads has another type than in the Kubernetes API.
    pub(super) fn read(json: &Value) -> Result<Self, InjectError> {
        let Value::Object(json) = json else {
            return Err(shape("the pod", "an object"));
        };
        let mut json = json.clone();
        if !json.contains_key("spec") {
            return Err(shape("spec", "an object"));
        }
        let mut metadata = take_object(&mut json, "metadata", "")?;
        let mut spec = take_object(&mut json, "spec", "")?;
        if let Some(Value::Object(labels)) = metadata.get("labels") {
            texts(labels, "metadata.labels")?;
        }
        let annotations = take_object(&mut metadata, "annotations", "metadata.")?;
        texts(&annotations, "metadata.annotations")?;
        let init_containers = take_named(&mut spec, "initContainers")?;
        let containers = take_named(&mut spec, "containers")?;
        if containers.is_empty() {
            return Err(shape("spec.containers", "a list of at least one container"));
        }
        let volumes = take_named(&mut spec, "volumes")?;
        Ok(PodManifest {
            json,
            metadata,
            spec,
            annotations,
            init_containers,
            containers,
            volumes,
        })
    }

    pub(super) fn into_json(self) -> Value {
        let PodManifest {
            mut json,
            mut metadata,
            mut spec,
            annotations,
            init_containers,
            containers,
            volumes,
        } = self;
        let lists = [
            ("initContainers", init_containers),
            ("containers", containers),
            ("volumes", volumes),
        ];
        for (field, list) in lists {
            let list: Vec<Value> = list.into_iter().map(Value::Object).collect();
            put(&mut spec, field, list.is_empty(), list);
        }
        put(
            &mut metadata,
            "annotations",
            annotations.is_empty(),
            annotations,
        );
        put(&mut json, "metadata", metadata.is_empty(), metadata);
        put(&mut json, "spec", false, spec);
        Value::Object(json)
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.metadata.get("labels")?.get(name)?.as_str()
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)?.as_str()
    }

    pub(super) fn all_containers(&self) -> impl Iterator<Item = &JsonObject> {
        self.init_containers.iter().chain(&self.containers)
    }

    pub(super) fn all_containers_mut(&mut self) -> impl Iterator<Item = &mut JsonObject> {
        self.init_containers.iter_mut().chain(&mut self.containers)
    }
}

pub(super) fn name(of: &JsonObject) -> &str {
    of.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The value at a path of objects.
pub(super) fn at<'a>(of: &'a JsonObject, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = of.get(*first)?;
    rest.iter().try_fold(value, |value, field| value.get(field))
}

/// Takes the object in a field, whose place in `of` is kept; an absent one is empty.
fn take_object(of: &mut JsonObject, field: &str, place: &str) -> Result<JsonObject, InjectError> {
    match of.get_mut(field).map(Value::take) {
        None | Some(Value::Null) => Ok(JsonObject::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(shape(format!("{place}{field}"), "an object")),
    }
}

/// Takes a list of objects with names.
fn take_named(spec: &mut JsonObject, field: &str) -> Result<Vec<JsonObject>, InjectError> {
    let list = match spec.get_mut(field).map(Value::take) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(shape(format!("spec.{field}"), "a list")),
    };
    let named = list
        .into_iter()
        .enumerate()
        .map(|(index, element)| match element {
            Value::Object(object) if !name(&object).is_empty() => Ok(object),
            _ => Err(shape(
                format!("spec.{field}[{index}]"),
                "an object with a name",
            )),
        });
    named.collect()
}

/// Puts back what was taken; an empty one is left out.
fn put(of: &mut JsonObject, field: &str, is_empty: bool, value: impl Into<Value>) {
    match is_empty {
        true => drop(of.shift_remove(field)),
        false => drop(of.insert(field.to_owned(), value.into())),
    }
}

fn texts(all: &JsonObject, place: &str) -> Result<(), InjectError> {
    match all.iter().find(|(_, value)| !value.is_string()) {
        None => Ok(()),
        Some((name, _)) => {
            let expected = "a string; put numbers, true and false into quotes";
            Err(shape(format!("{place}[{name}]"), expected))
        }
    }
}
