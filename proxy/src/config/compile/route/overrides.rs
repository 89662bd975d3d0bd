//! `typed_per_filter_config`: which filter runs how on a table, virtual host, route or weighted
//! cluster. The most specific level that names a filter holds.

use std::collections::{BTreeMap, HashMap};

use xds_proto::envoy::config::route::v3 as pb;
use xds_proto::google::protobuf::Any;

use crate::config::compile::filter::{self, FilterScope};
use crate::config::compile::support::{
    At, CompileError, decode, required, type_name, unknown_type,
};
use crate::config::filter::{FilterOverride, FilterOverrides};

/// The filter configuration of the levels around a `typed_per_filter_config`.
#[derive(Clone, Copy)]
pub struct OuterOverrides<'a> {
    pub overrides: &'a FilterOverrides,
    pub scope: FilterScope<'a>,
}

impl<'a> OuterOverrides<'a> {
    /// No level is around this one.
    pub fn nothing(scope: FilterScope<'a>) -> Self {
        const NOTHING: &FilterOverrides = &FilterOverrides(Vec::new());
        Self {
            overrides: NOTHING,
            scope,
        }
    }

    /// `typed_per_filter_config`, merged over that of the levels around it.
    pub fn with(
        self,
        at: At<'_>,
        configs: &HashMap<String, Any>,
    ) -> Result<FilterOverrides, CompileError> {
        let mut merged = self.overrides.clone();
        let sorted: BTreeMap<_, _> = configs.iter().collect();
        for (name, any) in sorted {
            let at = at.key("typed_per_filter_config", name);
            let Some(own) = filter_override(at, any, self.scope)? else {
                continue;
            };
            let name = self.scope.names.intern(name);
            let own = filter::on_top(own, merged.of(&name));
            merged.0.retain(|(known, _)| *known != name);
            merged.0.push((name, own));
        }
        Ok(merged)
    }
}

/// `None`: optional and not known.
fn filter_override(
    at: At<'_>,
    any: &Any,
    scope: FilterScope<'_>,
) -> Result<Option<FilterOverride>, CompileError> {
    if type_name(any) != "envoy.config.route.v3.FilterConfig" {
        return filter::of_route(at, any, scope)?
            .map_or_else(|| unknown_type(at, any), |own| Ok(Some(own)));
    }
    let pb::FilterConfig {
        config,
        is_optional,
        disabled,
    } = decode(at, any)?;
    if disabled {
        return Ok(Some(FilterOverride::Disabled));
    }
    let any = &required!(at, config);
    let at = at.field("config");
    match filter::of_route(at, any, scope)? {
        Some(own) => Ok(Some(own)),
        None if is_optional => {
            scope.counts.skip_optional(at, any);
            Ok(None)
        }
        None => unknown_type(at, any),
    }
}
