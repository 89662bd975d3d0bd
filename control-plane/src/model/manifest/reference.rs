//! References to backends: Gateway API's BackendObjectReference, with what a place adds to it.

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
                let core = matches!(self.group.as_str(), "" | "core");
                super::route::Destination {
                    service: core && self.kind == "Service",
                    namespace: self.namespace.take().unwrap_or_else(|| namespace.to_owned()),
                    name: std::mem::take(&mut self.name),
                    port: self.port.map(std::num::NonZeroU16::get),
                }
            }
        }
    };
}

pub(super) use reference;
