//! ReferenceGrant.

use serde::Deserialize;

use super::object::{FieldError, Meta};
use super::values;

/// Lets routes of other namespaces send to services of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    pub meta: Meta,
    pub from: Vec<GrantFrom>,
    pub to: Vec<GrantTo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantSpec {
    from: Vec<GrantFrom>,
    to: Vec<GrantTo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantFrom {
    group: String,
    kind: String,
    #[serde(deserialize_with = "values::label")]
    namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantTo {
    #[serde(default)]
    group: String,
    kind: String,
    #[serde(default)]
    name: Option<String>,
}

impl ReferenceGrant {
    /// # Errors
    /// Returns no error today; the signature is that of the other objects.
    pub fn new(meta: Meta, spec: GrantSpec) -> Result<Self, Vec<FieldError>> {
        Ok(ReferenceGrant {
            meta,
            from: spec.from,
            to: spec.to,
        })
    }

    /// Whether a route of `kind` in `namespace` may send to the service `name` of the grant's own
    /// namespace.
    pub fn allows(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let from = self.from.iter().any(|from| {
            from.group == "gateway.networking.k8s.io"
                && from.kind == kind
                && from.namespace == namespace
        });
        let named = |to: &GrantTo| {
            to.name
                .as_deref()
                .is_none_or(|to| to.is_empty() || to == name)
        };
        from && self
            .to
            .iter()
            .any(|to| matches!(to.group.as_str(), "" | "core") && to.kind == "Service" && named(to))
    }
}
