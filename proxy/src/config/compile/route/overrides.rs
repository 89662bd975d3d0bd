//! `typed_per_filter_config`.

use std::collections::HashMap;

use xds_proto::envoy::config::route::v3 as pb;
use xds_proto::google::protobuf::Any;

use crate::config::Name;
use crate::config::compile::policy;
use crate::config::compile::support::{At, CompileError, decode, type_name, unknown_type};
use crate::config::route::RbacOverride;

pub type Overrides = Vec<(Name, RbacOverride)>;

/// `typed_per_filter_config` on top of what the level above says.
pub fn overrides(
    at: At<'_>,
    configs: &HashMap<String, Any>,
    outer: &[(Name, RbacOverride)],
) -> Result<Overrides, CompileError> {
    let mut merged = outer.to_vec();
    for (filter, any) in configs {
        let at = at.key("typed_per_filter_config", filter);
        let Some(own) = filter_override(at, any)? else {
            continue;
        };
        merged.retain(|(name, _)| **name != **filter);
        merged.push((filter.as_str().into(), own));
    }
    Ok(merged)
}

/// `None`: optional and not known, or without effect.
fn filter_override(at: At<'_>, any: &Any) -> Result<Option<RbacOverride>, CompileError> {
    match type_name(any) {
        "envoy.config.route.v3.FilterConfig" => {
            let pb::FilterConfig {
                config,
                is_optional,
                disabled,
            } = decode(at, any)?;
            if disabled {
                return Ok(Some(RbacOverride::Disabled));
            }
            match config {
                None => Ok(None),
                Some(any) => match filter_override(at.field("config"), &any) {
                    Err(_) if is_optional && !is_rbac(&any) => Ok(None),
                    other => other,
                },
            }
        }
        _ if is_rbac(any) => policy::per_route(at, any).map(Some),
        _ => unknown_type(at, any),
    }
}

fn is_rbac(any: &Any) -> bool {
    type_name(any) == "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"
}
