//! References to backends: Gateway API's BackendObjectReference, with what a place adds to it.

use super::route::BackendKind;

/// The kind of a reference that cannot be read, and its group, which no object has: `/` may not
/// stand in a group.
pub const UNREADABLE: (&str, &str) = ("Unreadable", "mesh.anyam.dev/");

/// What a reference of this kind and group points at.
pub fn backend_kind(kind: &str, group: &str) -> BackendKind {
    match (kind, group) {
        ("Service", "" | "core") => BackendKind::Service,
        UNREADABLE => BackendKind::Unreadable,
        (kind, "") => BackendKind::Other(kind.to_owned()),
        (kind, group) => BackendKind::Other(format!("{kind}.{group}")),
    }
}

/// A struct of the reference's fields and more. Serde's `flatten` would not do: it accepts unknown
/// fields.
macro_rules! reference {
    ($(#[$attribute:meta])* struct $name:ident { $($more:tt)* }) => {
        $(#[$attribute])*
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct $name {
            #[serde(default)]
            group: String,
            #[serde(default = "super::values::service_kind")]
            kind: String,
            #[serde(deserialize_with = "super::values::subdomain")]
            name: String,
            #[serde(default, deserialize_with = "super::values::optional_label")]
            namespace: Option<String>,
            #[serde(default)]
            port: Option<std::num::NonZeroU16>,
            $($more)*
        }

        impl $name {
            /// Where it points, written in a route of `namespace`. Takes its names.
            fn destination(&mut self, namespace: &str) -> super::route::Destination {
                super::route::Destination {
                    kind: super::reference::backend_kind(&self.kind, &self.group),
                    namespace: self.namespace.take().unwrap_or_else(|| namespace.to_owned()),
                    name: std::mem::take(&mut self.name),
                    port: self.port.map(std::num::NonZeroU16::get),
                }
            }
        }
    };
}

pub(super) use reference;
