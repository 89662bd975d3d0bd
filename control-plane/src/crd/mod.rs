//! CustomResourceDefinitions of our own kinds, generated from the types that manifests are parsed
//! into (`model::manifest`), so that a manifest means the same in a folder and in a cluster.
//!
//! - [`all`]: the definitions, of which `deploy/helm/anyam/files/crds` has one file each
//! - `structural`: a type's JSON schema into the structural schema that the API server requires

mod structural;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use self::structural::UnknownFields;
use crate::model::Kind;
use crate::model::manifest::authorization::AuthorizationSpec;
use crate::model::manifest::policy::{BackendSpec, MeshSpec};
use crate::model::manifest::workload::WorkloadSpec;
use crate::source::kubernetes::kinds::WatchedKind;

/// Category of all our kinds: `kubectl get anyam`.
const CATEGORY: &str = "anyam";
/// The label of definitions that are kinds of policies (GEP-713). Inherited: an object for a namespace,
/// or the mesh, holds for what is in it.
const POLICY: &str = "gateway.networking.k8s.io/policy";
const DIRECT: Option<&str> = Some("direct");
const INHERITED: Option<&str> = Some("inherited");
/// Bound on the conditions of one object.
const MAX_CONDITIONS: usize = 8;

/// A CustomResourceDefinition.
pub struct Definition {
    /// For example `workloads.mesh.anyam.dev`.
    pub name: String,
    pub kind: Kind,
    pub manifest: Value,
}

/// What differs between the definitions of our kinds.
struct Traits {
    short_name: &'static str,
    /// Name, type and JSON path of each column of `kubectl get`.
    columns: &'static [(&'static str, &'static str, &'static str)],
    spec: fn(&mut SchemaGenerator) -> Schema,
    /// How it is attached to what it is for, if it is a policy: the value of [`POLICY`].
    attachment: Option<&'static str>,
    /// Kept in the kinds that guard access: a field that a newer version knows, or a misspelt one, may
    /// narrow what an object opens. It must not be pruned, with nothing said, for clients without
    /// strict validation: the reader names it in the status, and refuses what it may have narrowed.
    unknown: UnknownFields,
}

const ACCEPTED: (&str, &str, &str) = (
    "Accepted",
    "string",
    ".status.conditions[?(@.type=='Accepted')].status",
);
const TARGETS: (&str, &str, &str) = ("Targets", "string", ".spec.targetRefs[*].name");
const SELECTOR: (&str, &str, &str) = ("Selector", "string", ".spec.selector.matchLabels");
const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

/// `None`: not a kind of ours.
fn traits(kind: Kind) -> Option<Traits> {
    Some(match kind {
        Kind::Workload => Traits {
            short_name: "awl",
            columns: &[
                ("Addresses", "string", ".spec.addresses[*]"),
                ("Account", "string", ".spec.serviceAccount"),
                ACCEPTED,
                AGE,
            ],
            spec: WorkloadSpec::json_schema,
            attachment: None,
            unknown: UnknownFields::Pruned,
        },
        Kind::MeshPolicy => Traits {
            short_name: "amp",
            columns: &[
                TARGETS,
                SELECTOR,
                ("mTLS", "string", ".spec.mtls.mode"),
                ("Egress", "string", ".spec.egress.mode"),
                ACCEPTED,
                AGE,
            ],
            spec: MeshSpec::json_schema,
            attachment: INHERITED,
            unknown: UnknownFields::Kept,
        },
        Kind::AuthorizationPolicy => Traits {
            short_name: "aap",
            columns: &[
                TARGETS,
                SELECTOR,
                ("Action", "string", ".spec.action"),
                ACCEPTED,
                AGE,
            ],
            spec: AuthorizationSpec::json_schema,
            attachment: INHERITED,
            unknown: UnknownFields::Kept,
        },
        Kind::BackendPolicy => Traits {
            short_name: "abp",
            columns: &[
                TARGETS,
                ("Balancer", "string", ".spec.loadBalancer"),
                ACCEPTED,
                AGE,
            ],
            spec: BackendSpec::json_schema,
            attachment: DIRECT,
            unknown: UnknownFields::Pruned,
        },
        Kind::Service
        | Kind::EndpointSlice
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::ReferenceGrant
        | Kind::BackendTlsPolicy
        | Kind::ConfigMap => return None,
    })
}

/// All definitions, sorted by name.
pub fn all() -> Vec<Definition> {
    let mut all: Vec<_> = Kind::ALL
        .into_iter()
        .filter_map(|kind| Some(define(kind, &traits(kind)?)))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn define(kind: Kind, traits: &Traits) -> Definition {
    let api_version = kind.api_versions().first().copied().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or_default();
    let plural = WatchedKind::Manifest(kind).plural();
    let name = format!("{plural}.{group}");
    let column = |(name, kind, path): &(&str, &str, &str)| json!({"name": name, "type": kind, "jsonPath": path});
    let columns: Vec<_> = traits.columns.iter().map(column).collect();
    let mut labels = json!({"app.kubernetes.io/part-of": "anyam"});
    if let (Some(attachment), Some(labels)) = (traits.attachment, labels.as_object_mut()) {
        labels.insert(POLICY.to_owned(), attachment.into());
    }
    let manifest = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.name().to_ascii_lowercase(),
                "shortNames": [traits.short_name],
                "categories": [CATEGORY],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": object(traits)},
            }],
        },
    });
    Definition {
        name,
        kind,
        manifest,
    }
}

fn object(traits: &Traits) -> Value {
    let spec = spec(traits);
    let mut schema = json!({
        "description": spec["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status(),
        },
    });
    if let Some(schema) = schema.as_object_mut() {
        traits.unknown.mark(schema);
    }
    schema
}

fn spec(traits: &Traits) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = (traits.spec)(&mut settings.into_generator()).to_value();
    structural::rewrite(&mut schema, traits.unknown);
    schema
}

/// What the control plane found: conditions as Kubernetes has them (meta/v1 Condition).
fn status() -> Value {
    json!({
        "description": "Conditions, written by the control plane.",
        "type": "object",
        "properties": {
            "conditions": {
                "type": "array",
                "maxItems": MAX_CONDITIONS,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
                    "properties": {
                        "type": {"description": "Type of the condition, such as Accepted.", "type": "string", "maxLength": 316},
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "reason": {"description": "Reason in CamelCase.", "type": "string", "minLength": 1, "maxLength": 1024},
                        "message": {"description": "Message for users.", "type": "string", "maxLength": 32768},
                        "lastTransitionTime": {"description": "When the status changed.", "type": "string", "format": "date-time"},
                        "observedGeneration": {"description": "Generation of the object that the condition is about.", "type": "integer", "format": "int64", "minimum": 0},
                    },
                },
            },
        },
    })
}
