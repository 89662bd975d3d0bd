//! `/config_dump`: envoy.admin.v3.ConfigDump, from the resources as they came. Private keys and
//! tokens are redacted.

use std::time::SystemTime;

use bytes::Bytes;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::mask::Mask;
use super::query::PageError;
use super::{Admin, rfc3339, set};
use crate::xds::client::DumpedResource;
use crate::xds::resource_type::ResourceType;

/// The parts of the dump that the request selects.
pub(super) struct Selection<'a> {
    /// A list of the dump, as `dynamic_active_clusters`.
    pub(super) resource: Option<&'a str>,
    /// Of each entry of that list, or of each part of the dump.
    pub(super) mask: Option<Mask>,
    pub(super) name: Option<Regex>,
    pub(super) endpoints: bool,
}

/// The names of a type's lists in Envoy's dump.
struct Lists {
    dump: &'static str,
    of: &'static str,
    /// Key of the resource inside an entry.
    item: &'static str,
    statics: &'static str,
    active: &'static str,
    warming: &'static str,
}

fn lists(kind: ResourceType) -> Option<Lists> {
    let lists = |dump, of, item, statics, active, warming| Lists {
        dump,
        of,
        item,
        statics,
        active,
        warming,
    };
    Some(match kind {
        ResourceType::Cluster => lists(
            "ClustersConfigDump",
            "clusters",
            "cluster",
            "static_clusters",
            "dynamic_active_clusters",
            "dynamic_warming_clusters",
        ),
        ResourceType::Route => lists(
            "RoutesConfigDump",
            "routes",
            "route_config",
            "static_route_configs",
            "dynamic_route_configs",
            "dynamic_warming_route_configs",
        ),
        ResourceType::Secret => lists(
            "SecretsConfigDump",
            "secrets",
            "secret",
            "static_secrets",
            "dynamic_active_secrets",
            "dynamic_warming_secrets",
        ),
        ResourceType::Endpoint => lists(
            "EndpointsConfigDump",
            "endpoints",
            "endpoint_config",
            "static_endpoint_configs",
            "dynamic_endpoint_configs",
            "dynamic_warming_endpoint_configs",
        ),
        ResourceType::Listener | ResourceType::Workload | ResourceType::Name => return None,
    })
}

/// # Errors
/// There is no such list.
pub(super) async fn config_dump(
    admin: &Admin,
    selection: &Selection<'_>,
) -> Result<Value, PageError> {
    let resources = match &admin.xds {
        Some(xds) => xds.dump().await,
        None => Vec::new(),
    };
    let wanted = |name: &str| selection.name.as_ref().is_none_or(|re| re.is_match(name));
    let resources: Vec<DumpedResource> = resources
        .into_iter()
        .filter(|resource| wanted(&resource.key.name))
        .collect();
    let statics: Vec<&(ResourceType, String, Bytes)> = admin
        .statics
        .iter()
        .filter(|(_, name, _)| wanted(name))
        .collect();
    let mut configs = vec![json!({
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        "bootstrap": message("envoy.config.bootstrap.v3.Bootstrap", &admin.bootstrap),
        "last_updated": rfc3339(admin.started),
    })];
    for kind in ResourceType::ALL {
        if kind == ResourceType::Endpoint && !selection.endpoints {
            continue;
        }
        let of = resources
            .iter()
            .filter(|resource| resource.key.kind == kind);
        let given = statics.iter().filter(|(k, ..)| *k == kind);
        let given = given.map(|(_, name, body)| (name.as_str(), body));
        match (lists(kind), kind) {
            (Some(lists), _) => configs.push(by_lists(admin, kind, &lists, of, given)),
            (None, ResourceType::Listener) => configs.push(listeners(admin, of, given)),
            (None, _) => configs.extend(ours(kind, of)),
        }
    }
    if let Some(list) = selection.resource {
        configs = only(&configs, list)?;
    }
    if let Some(mask) = &selection.mask {
        configs = configs.iter().filter_map(|part| mask.apply(part)).collect();
    }
    Ok(json!({ "configs": configs }))
}

/// The entries of one list.
fn only(configs: &[Value], list: &str) -> Result<Vec<Value>, PageError> {
    let Some(found) = configs.iter().find_map(|config| config.get(list)) else {
        return Err(PageError::missing(format!(
            "{list} not found in config dump"
        )));
    };
    let Value::Array(entries) = found else {
        let why =
            format!("{list} is not a repeated field. Use ?mask={list} to get only this field");
        return Err(PageError::bad(why));
    };
    Ok(entries.clone())
}

fn by_lists<'a>(
    admin: &Admin,
    kind: ResourceType,
    lists: &Lists,
    resources: impl Iterator<Item = &'a DumpedResource>,
    statics: impl Iterator<Item = (&'a str, &'a Bytes)>,
) -> Value {
    let entry = |name: &str, version: &str, body: &Bytes, updated: SystemTime| {
        let mut entry = Map::new();
        if kind == ResourceType::Secret {
            entry.insert("name".into(), name.into());
        }
        if !version.is_empty() {
            entry.insert("version_info".into(), version.into());
        }
        entry.insert(lists.item.into(), resource(kind, body));
        entry.insert("last_updated".into(), rfc3339(updated).into());
        Value::Object(entry)
    };
    let given: Vec<Value> = statics
        .map(|(name, body)| entry(name, "", body, admin.started))
        .collect();
    let (mut active, mut warming, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for resource in resources {
        let name = &resource.key.name;
        if let Some((version, body, updated)) = &resource.active {
            active.push(entry(name, version, body, *updated));
        }
        if let Some((version, body, updated)) = &resource.warming {
            warming.push(entry(name, version, body, *updated));
        }
        errors.extend(
            error_state(resource).map(|state| json!({ "name": name, "error_state": state })),
        );
    }
    let mut dump = json!({
        "@type": format!("type.googleapis.com/envoy.admin.v3.{}", lists.dump),
        lists.statics: given,
        lists.active: active,
        lists.warming: warming,
    });
    if !errors.is_empty() {
        set(&mut dump, &format!("rejected_{}", lists.of), errors.into());
    }
    dump
}

fn listeners<'a>(
    admin: &Admin,
    resources: impl Iterator<Item = &'a DumpedResource>,
    statics: impl Iterator<Item = (&'a str, &'a Bytes)>,
) -> Value {
    let given: Vec<Value> = statics
        .map(|(_, body)| {
            json!({
                "listener": resource(ResourceType::Listener, body),
                "last_updated": rfc3339(admin.started),
            })
        })
        .collect();
    let state = |held: &(String, Bytes, SystemTime)| {
        json!({
            "version_info": held.0,
            "listener": resource(ResourceType::Listener, &held.1),
            "last_updated": rfc3339(held.2),
        })
    };
    let dynamic: Vec<Value> = resources
        .filter(|r| r.active.is_some() || r.warming.is_some() || r.rejected.is_some())
        .map(|resource| {
            let mut entry = json!({ "name": resource.key.name });
            if let Some(active) = &resource.active {
                set(&mut entry, "active_state", state(active));
            }
            if let Some(warming) = &resource.warming {
                set(&mut entry, "warming_state", state(warming));
            }
            if let Some(error) = error_state(resource) {
                set(&mut entry, "error_state", error);
            }
            entry
        })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "static_listeners": given,
        "dynamic_listeners": dynamic,
    })
}

/// Types that Envoy does not have, under their own names.
fn ours<'a>(
    kind: ResourceType,
    resources: impl Iterator<Item = &'a DumpedResource>,
) -> Option<Value> {
    let held: Vec<Value> = resources
        .filter_map(|r| Some((&r.key.name, r.active.as_ref()?)))
        .map(|(name, (version, body, updated))| {
            json!({
                "name": name,
                "version_info": version,
                "resource": resource(kind, body),
                "last_updated": rfc3339(*updated),
            })
        })
        .collect();
    (!held.is_empty()).then(
        || json!({ "@type": format!("{}ConfigDump", kind.type_url()), "dynamic_resources": held }),
    )
}

fn error_state(resource: &DumpedResource) -> Option<Value> {
    let (version, why, at) = resource.rejected.as_ref()?;
    Some(json!({
        "version_info": version,
        "details": why,
        "last_update_attempt": rfc3339(*at),
    }))
}

fn resource(kind: ResourceType, body: &Bytes) -> Value {
    let url = kind.type_url();
    let name = url.rsplit('/').next().unwrap_or_default();
    let mut value = message(name, body);
    if let Value::Object(map) = &mut value {
        map.shift_insert(0, "@type".into(), url.into());
    }
    value
}

fn message(full_name: &str, body: &[u8]) -> Value {
    match xds_proto::json::to_json(full_name, body) {
        Ok(mut value) => {
            redact(&mut value);
            value
        }
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Envoy's marker in place of what must not be shown.
const REDACTED: &str = "[redacted]";

/// Hides private keys, passwords and tokens, at any depth.
fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                let secret = matches!(
                    name.as_str(),
                    "private_key"
                        | "privateKey"
                        | "password"
                        | "session_ticket_keys"
                        | "sessionTicketKeys"
                        | "generic_secret"
                        | "genericSecret"
                        | "pkcs12"
                        | "hook_token"
                        | "hookToken"
                );
                match (secret, inner) {
                    (true, Value::Object(source)) => {
                        for (kind, inner) in source.iter_mut() {
                            // The name of a file is no secret.
                            if kind != "filename" {
                                *inner = REDACTED.into();
                            }
                        }
                    }
                    (true, inner) => *inner = REDACTED.into(),
                    (false, inner) => redact(inner),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hidden_and_certificates_are_not() {
        let mut value = json!({
            "tls_certificate": {
                "certificate_chain": { "inline_string": "chain" },
                "private_key": { "inline_bytes": "c2VjcmV0" },
            },
            "list": [{ "privateKey": { "filename": "/key.pem" }, "password": "x" }],
            "probes": [{ "name": "web/prestop", "hook_token": "0123456789abcdef" }],
        });
        redact(&mut value);
        let text = value.to_string();
        assert!(text.contains("\"chain\"") && text.contains("/key.pem"));
        for secret in ["c2VjcmV0", "\"x\"", "0123456789abcdef"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
