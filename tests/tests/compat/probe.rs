//! The rows of the table against the compiler: a resource that sets a supported or ignored field
//! compiles, one that sets a rejected field is refused with that field's path.
//!
//! Resources are made from the schema. `samples.yaml` has what the schema cannot say: which values
//! are valid, and which extensions a place takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use anyam_proxy::bootstrap;
use anyam_proxy::config::compile::Compiler;
use anyam_proxy::log_sink::Sinks;
use anyam_proxy::metrics::registry::Registry;
use anyam_proxy::snapshot::Snapshot;
use serde_json::{Map, Value, json};
use xds_proto::schema::{self, Field, Kind, Message};
use xds_proto::type_url;

use crate::scan::Scan;

/// Resources, in the order in which a message is looked for in them.
const ROOTS: [&str; 7] = [
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "anyam.workload.v1.Workload",
    BOOTSTRAP,
];
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
/// In a place whose extensions are all refused.
const SOME_EXTENSION: &str = "envoy.extensions.filters.http.router.v3.Router";

/// See `samples.yaml`.
pub struct Samples {
    messages: Map<String, Value>,
    values: Map<String, Value>,
    beside: Map<String, Value>,
    extensions: Map<String, Value>,
    pub exceptions: Map<String, Value>,
}

/// From one message to one of its fields' messages.
#[derive(Clone, Copy)]
struct Step {
    field: Field,
    /// Of the message in an `Any`: the field's own, or the `typed_config` of its message.
    extension: Option<Message>,
}

type Paths = BTreeMap<&'static str, (Message, Vec<Step>)>;

impl Samples {
    pub fn read(text: &str) -> Self {
        let mut all = xds_proto::yaml::to_json(text).unwrap();
        let mut part = |name: &str| match all[name].take() {
            Value::Object(map) => map,
            other => panic!("samples.yaml: {name}: {other}"),
        };
        Samples {
            messages: part("messages"),
            values: part("values"),
            beside: part("beside"),
            extensions: part("extensions"),
            exceptions: part("exceptions"),
        }
    }

    fn message(&self, message: Message) -> Value {
        let own = self.messages.get(message.name());
        own.cloned().unwrap_or_else(|| json!({}))
    }

    fn extensions(&self, message: Message, field: Field) -> Vec<Message> {
        let names = self.extensions.get(&key(message, field));
        let names = names.and_then(Value::as_array).into_iter().flatten();
        names
            .map(|name| schema::message(name.as_str().unwrap()).unwrap())
            .collect()
    }

    /// A value for a field: any that is valid, and not the default.
    fn value(&self, message: Message, field: Field) -> Value {
        if let Some(value) = self.values.get(&key(message, field)) {
            return value.clone();
        }
        if field.is_map() {
            let entry = field.message().unwrap();
            let value = entry.field_by_name("value").unwrap();
            return json!({ "a": self.one(message, field, value) });
        }
        match field.is_list() {
            true => json!([self.one(message, field, field)]),
            false => self.one(message, field, field),
        }
    }

    /// One element of `place`, of the type that `field` has.
    fn one(&self, message: Message, place: Field, field: Field) -> Value {
        match field.kind() {
            Kind::Bool => json!(true),
            Kind::String => json!("a"),
            Kind::Bytes => json!("YQ=="),
            Kind::Enum => {
                let values = field.enumeration().unwrap().values();
                json!(values.map(|(_, number)| number).find(|number| *number != 0))
            }
            Kind::Message => {
                let inner = field.message().unwrap();
                match inner.name().strip_prefix("google.protobuf.") {
                    Some("Any") => {
                        let known = self.extensions(message, place);
                        let some = schema::message(SOME_EXTENSION).unwrap();
                        self.extension(known.first().copied().unwrap_or(some))
                    }
                    Some("Duration") => json!("1s"),
                    Some("Timestamp") => json!("2026-01-01T00:00:00Z"),
                    Some("Struct") => json!({ "a": "b" }),
                    Some("BoolValue") => json!(true),
                    Some("StringValue" | "Value") => json!("a"),
                    Some("BytesValue") => json!("YQ=="),
                    Some("Empty") | None => self.message(inner),
                    Some(_) => json!(1),
                }
            }
            _ => json!(1),
        }
    }

    fn extension(&self, message: Message) -> Value {
        let mut value = self.message(message);
        value["@type"] = format!("{}{}", type_url::PREFIX, message.name()).into();
        value
    }

    /// Sets a field; the other cases of its oneof go.
    fn set(&self, place: &mut Value, message: Message, field: Field, value: Value) {
        let place = place.as_object_mut().unwrap();
        if field.oneof().is_some() {
            let others = message.fields().filter(|it| it.oneof() == field.oneof());
            for other in others.filter(|other| other.name() != field.name()) {
                place.remove(other.name());
            }
        }
        place.insert(field.name().to_owned(), value);
        let beside = self.beside.get(&key(message, field));
        for (name, value) in beside.and_then(Value::as_object).into_iter().flatten() {
            match value {
                Value::Null => place.remove(name),
                value => place.insert(name.clone(), value.clone()),
            };
        }
    }

    /// Goes into a field's message, which is made where it is not there.
    fn enter<'v>(&self, place: &'v mut Value, message: Message, step: Step) -> &'v mut Value {
        let Step { field, extension } = step;
        let Some(extension) = extension else {
            if inside(field, &mut place[field.name()]).is_none() {
                self.set(place, message, field, self.value(message, field));
            }
            return inside(field, &mut place[field.name()]).unwrap();
        };
        let any = self.extension(extension);
        let one = match is_any(field) {
            true => any,
            false => json!({ "name": "a", "typed_config": any }),
        };
        let value = match (field.is_map(), field.is_list()) {
            (true, _) => json!({ "a": one }),
            (_, true) => json!([one]),
            _ => one,
        };
        self.set(place, message, field, value);
        let one = inside(field, &mut place[field.name()]).unwrap();
        match is_any(field) {
            true => one,
            false => &mut one["typed_config"],
        }
    }

    /// The resource in which `path` leads to a message whose `field` is set.
    fn resource(
        &self,
        (root, steps): &(Message, Vec<Step>),
        message: Message,
        field: Field,
    ) -> Value {
        let mut value = self.message(*root);
        let (mut place, mut at) = (&mut value, *root);
        for step in steps {
            place = self.enter(place, at, *step);
            at = step.target();
        }
        self.set(place, message, field, self.value(message, field));
        value
    }

    /// How messages are reached by fields that are not refused, the shortest way.
    fn paths(&self, scan: &Scan) -> Paths {
        let mut paths = Paths::new();
        for root in ROOTS {
            let root = schema::message(root).unwrap();
            let mut queue = VecDeque::from([(root, Vec::new())]);
            while let Some((message, steps)) = queue.pop_front() {
                if paths.contains_key(message.name()) {
                    continue;
                }
                for field in message.fields() {
                    if crate::verdict(scan, message.name(), field).0 == "rejected" {
                        continue;
                    }
                    for step in self.steps(message, field) {
                        let steps = [&steps[..], &[step]].concat();
                        queue.push_back((step.target(), steps));
                    }
                }
                paths.insert(message.name(), (root, steps));
            }
        }
        paths
    }

    fn steps(&self, message: Message, field: Field) -> Vec<Step> {
        let extensions = self.extensions(message, field).into_iter().map(Some);
        let own = (target(field).is_some() && !is_any(field)).then_some(None);
        let all = own.into_iter().chain(extensions);
        all.map(|extension| Step { field, extension }).collect()
    }
}

impl Step {
    fn target(self) -> Message {
        self.extension.or_else(|| target(self.field)).unwrap()
    }
}

/// A field's message; a map's values'.
fn target(field: Field) -> Option<Message> {
    match field.is_map() {
        true => field.message()?.field_by_name("value")?.message(),
        false => field.message(),
    }
}

fn is_any(field: Field) -> bool {
    target(field).is_some_and(|message| message.name() == "google.protobuf.Any")
}

/// The message in a field's value.
fn inside(field: Field, value: &mut Value) -> Option<&mut Value> {
    match (field.is_list(), field.is_map()) {
        _ if value.is_null() => None,
        (true, _) => value.as_array_mut()?.first_mut(),
        (_, true) => value.as_object_mut()?.values_mut().next(),
        _ => Some(value),
    }
}

fn key(message: Message, field: Field) -> String {
    format!("{}.{}", message.name(), field.name())
}

fn compiler() -> Compiler {
    let registry = Registry::new().unwrap();
    let dropped = registry.counter("dropped", "Lost.").unwrap();
    let sinks = Arc::new(Sinks::new(dropped, 16 << 10));
    Compiler::new(&registry, sinks, Arc::default()).unwrap()
}

/// Compiles a resource.
fn accepts(compiler: &Compiler, root: Message, value: &Value) -> Result<(), String> {
    if root.name() == BOOTSTRAP {
        let message = xds_proto::json::decode_json(value).map_err(|e| format!("sample: {e}"))?;
        let made = bootstrap::from_message(message);
        return made.map(|_| ()).map_err(|error| error.to_string());
    }
    let bytes =
        xds_proto::json::from_json(root.name(), value).map_err(|e| format!("sample: {e}"))?;
    let url = format!("{}{}", type_url::PREFIX, root.name());
    let made = compiler.compile(&url, &bytes, &Snapshot::default());
    made.map(|_| ()).map_err(|error| error.to_string())
}

/// Whether an error refuses a field by its path, or the oneof that it is a case of.
fn names(error: &str, message: Message, field: Field) -> bool {
    let (path, why) = error.split_once(": ").unwrap_or_default();
    let steps = path.split('.');
    let mut steps = steps.map(|step| step.split('[').next().unwrap_or_default());
    steps.clone().any(|step| step == field.name())
        || why.contains("support")
            && steps
                .next_back()
                .is_some_and(|last| message.field_by_name(last).is_none())
}

/// What the table has and the compiler does not do.
pub fn differences(scan: &Scan, samples: &Samples) -> Vec<String> {
    let compiler = compiler();
    let paths = samples.paths(scan);
    let mut wrong = Vec::new();
    let mut excepted: BTreeSet<&String> = samples.exceptions.keys().collect();
    let listed = |message: &Message| {
        scan.messages.contains(message.name()) && !message.name().starts_with("google.")
    };
    for message in schema::messages().filter(listed) {
        if excepted.remove(&message.name().to_owned()) {
            continue;
        }
        let Some(path) = paths.get(message.name()) else {
            wrong.push(format!("{}: no resource has it", message.name()));
            continue;
        };
        for field in message.fields() {
            let (status, _) = crate::verdict(scan, message.name(), field);
            let resource = samples.resource(path, message, field);
            let found = accepts(&compiler, path.0, &resource);
            let fits = match (&found, status) {
                (Err(error), "rejected") => names(error, message, field),
                (found, _) => found.is_ok() && status != "rejected",
            };
            let key = key(message, field);
            if excepted.remove(&key) {
                if fits {
                    wrong.push(format!("{key}: needs no exception"));
                }
            } else if !fits {
                let found = found.err().unwrap_or_else(|| "compiles".to_owned());
                wrong.push(format!("{key}: {status}, but: {found}\n    {resource}"));
            }
        }
    }
    wrong.extend(
        excepted
            .into_iter()
            .map(|key| format!("{key}: no such row")),
    );
    wrong
}
