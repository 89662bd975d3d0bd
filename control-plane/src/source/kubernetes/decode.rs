//! Objects of the API server without the fields that are never read. They are skipped while the
//! JSON is decoded, so a list takes no more memory than what is kept of it.
//!
//! [`Manifest`] is any object that a folder may have too; [`Pod`] and [`Node`] exist in clusters
//! only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use xds_proto::yaml::{self, Place, Value};

use crate::injected::GROUP;

/// Of `metadata`: no manifest's meaning depends on these, and they are most of its bytes.
const METADATA_UNREAD: [&str; 4] = [
    "managedFields",
    "annotations",
    "ownerReferences",
    "finalizers",
];

/// An object that is read like a manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    meta: ObjectMeta,
    pub node: yaml::Node<'static>,
    pub generation: Option<i64>,
    /// Null: there is none.
    pub status: Json,
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut node = Level::Object.deserialize(deserializer)?;
        let status = node.get("status").map_or(Json::Null, yaml::Node::to_json);
        node.remove("status");
        let field = |name: &str| Some(node.get("metadata")?.get(name)?.text().to_owned());
        let meta = ObjectMeta {
            name: field("name"),
            namespace: field("namespace"),
            resource_version: field("resourceVersion"),
            ..ObjectMeta::default()
        };
        let generation = field("generation").and_then(|text| text.parse().ok());
        Ok(Manifest {
            meta,
            node,
            generation,
            status,
        })
    }
}

/// At which level of an object a value is, which determines what is skipped.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Object,
    Metadata,
    Below,
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = yaml::Node<'static>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = yaml::Node<'static>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(scalar("null", true))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(scalar(if value { "true" } else { "false" }, true))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(scalar(value.to_string(), true))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(scalar(value.to_string(), true))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(scalar(value.to_string(), true))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(scalar(text.to_owned(), false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = from.next_element_seed(Level::Below)? {
            elements.push(element);
        }
        Ok(node(Value::Sequence(elements)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = from.next_key::<String>()? {
            let (unread, below) = match (self, key.as_str()) {
                (Level::Object, "metadata") => (false, Level::Metadata),
                (Level::Metadata, name) => (METADATA_UNREAD.contains(&name), Level::Below),
                _ => (false, Level::Below),
            };
            if unread {
                from.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = from.next_value_seed(below)?;
            entries.push((scalar(key, false), value));
        }
        Ok(node(Value::Mapping(entries)))
    }
}

pub(super) fn scalar(text: impl Into<Cow<'static, str>>, plain: bool) -> yaml::Node<'static> {
    let text = text.into();
    node(Value::Scalar { text, plain })
}

pub(super) fn node(value: Value<'static>) -> yaml::Node<'static> {
    yaml::Node {
        place: Place::default(),
        value,
    }
}

/// `metadata` of what is read by field.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default)]
    creation_timestamp: Option<String>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Annotations,
}

/// Those of our group, by their names below it.
#[derive(Clone, Debug, Default)]
pub struct Annotations(BTreeMap<String, String>);

impl Annotations {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OfGroup)
    }
}

struct OfGroup;

impl<'de> Visitor<'de> for OfGroup {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Annotations, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = from.next_key::<String>()? {
            match name.strip_prefix(GROUP) {
                Some(name) => drop(all.insert(name.to_owned(), from.next_value()?)),
                None => drop(from.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Annotations(all))
    }
}

/// What is read of `metadata`, besides what kube needs.
#[derive(Clone, Debug)]
pub struct ObjectFacts {
    pub created: Option<String>,
    /// It was deleted; a pod's containers are being ended.
    pub deleted: bool,
    pub labels: BTreeMap<String, String>,
    pub annotations: Annotations,
}

impl Metadata {
    fn split(self) -> (ObjectMeta, ObjectFacts) {
        let meta = ObjectMeta {
            name: Some(self.name),
            namespace: self.namespace,
            resource_version: self.resource_version,
            ..ObjectMeta::default()
        };
        let about = ObjectFacts {
            created: self.creation_timestamp,
            deleted: self.deletion_timestamp.is_some(),
            labels: self.labels,
            annotations: self.annotations,
        };
        (meta, about)
    }
}

/// A Pod, core/v1.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "PodDocument")]
pub struct Pod {
    meta: ObjectMeta,
    pub about: ObjectFacts,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Deserialize)]
struct PodDocument {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

impl From<PodDocument> for Pod {
    fn from(from: PodDocument) -> Self {
        let (meta, about) = from.metadata.split();
        Pod {
            meta,
            about,
            spec: from.spec,
            status: from.status,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    pub service_account_name: String,
    pub host_network: bool,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    /// `Always` for an init container: it runs beside the app's containers.
    pub restart_policy: Option<String>,
    pub args: Vec<String>,
    pub ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: u16,
    pub protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    pub conditions: Vec<PodCondition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    pub ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

/// A Node, core/v1.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NodeDocument")]
pub struct Node {
    meta: ObjectMeta,
    pub about: ObjectFacts,
}

#[derive(Deserialize)]
struct NodeDocument {
    metadata: Metadata,
}

impl From<NodeDocument> for Node {
    fn from(from: NodeDocument) -> Self {
        let (meta, about) = from.metadata.split();
        Node { meta, about }
    }
}

/// `Resource` for types whose `ApiResource` is only known when they are watched.
macro_rules! resource {
    ($type:ty) => {
        impl Resource for $type {
            type DynamicType = ApiResource;
            type Scope = DynamicResourceScope;

            fn kind(of: &ApiResource) -> Cow<'_, str> {
                of.kind.as_str().into()
            }

            fn group(of: &ApiResource) -> Cow<'_, str> {
                of.group.as_str().into()
            }

            fn version(of: &ApiResource) -> Cow<'_, str> {
                of.version.as_str().into()
            }

            fn plural(of: &ApiResource) -> Cow<'_, str> {
                of.plural.as_str().into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.meta
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.meta
            }
        }
    };
}
resource!(Manifest);
resource!(Pod);
resource!(Node);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_not_kept() {
        let manifest: Manifest = serde_json::from_str(
            r#"{"metadata": {"name": "a", "namespace": "n", "resourceVersion": "7", "generation": 3,
                "annotations": {"x": "y"}, "managedFields": [{"fieldsV1": {}}], "labels": {"l": "1"}},
               "spec": {"status": 1, "annotations": [true, null, -2, 1.5]}, "status": {"a": 1}}"#,
        )
        .unwrap();
        assert_eq!(manifest.meta.resource_version.as_deref(), Some("7"));
        assert_eq!(manifest.generation, Some(3));
        assert_eq!(manifest.status, serde_json::json!({"a": 1}));
        assert_eq!(
            manifest.node.to_json(),
            serde_json::json!({
                "metadata": {"name": "a", "namespace": "n", "resourceVersion": "7", "generation": 3, "labels": {"l": "1"}},
                "spec": {"status": 1, "annotations": [true, null, -2, 1.5]},
            })
        );
    }
}
