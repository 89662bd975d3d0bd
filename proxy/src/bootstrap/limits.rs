//! Bounds on downstream connections: `overload_manager`, and the runtime keys that came before it.

use std::collections::HashMap;

use xds_proto::envoy::config::overload::v3 as pb;
use xds_proto::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;

use crate::config::compile::support::{
    At, CompileError, decode, ignored, required, type_name, unknown_type, unsupported,
};

/// How many connections clients may have open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of all listeners without `ignore_global_conn_limit`; `None`: no limit.
    pub global: Option<u64>,
    /// By listener name.
    pub listeners: HashMap<String, u64>,
}

impl ConnectionLimits {
    /// Of two bounds the lower one holds.
    fn bound(&mut self, most: u64) {
        self.global = Some(self.global.map_or(most, |known| known.min(most)));
    }

    /// A runtime key that sets a bound; false: it is none of those.
    pub(super) fn take_key(
        &mut self,
        at: At<'_>,
        key: &str,
        value: Option<f64>,
    ) -> Result<bool, CompileError> {
        let of_listener = key
            .strip_prefix("envoy.resource_limits.listener.")
            .and_then(|rest| rest.strip_suffix(".connection_limit"));
        if of_listener.is_none() && key != "overload.global_downstream_max_connections" {
            return Ok(false);
        }
        let most = match value {
            Some(most) if most >= 0.0 && most.fract() == 0.0 => most as u64,
            _ => return at.fail("is not a number of connections"),
        };
        match of_listener {
            Some(name) => drop(self.listeners.insert(name.to_owned(), most)),
            None => self.bound(most),
        }
        Ok(true)
    }

    /// envoy.config.overload.v3.OverloadManager.
    pub(super) fn take_overload(
        &mut self,
        at: At<'_>,
        m: &Option<pb::OverloadManager>,
    ) -> Result<(), CompileError> {
        let Some(pb::OverloadManager {
            refresh_interval,
            resource_monitors,
            actions,
            loadshed_points,
            buffer_factory_config,
        }) = m
        else {
            return Ok(());
        };
        unsupported!(at, actions, loadshed_points, buffer_factory_config);
        ignored!(
            "connections are counted when they come, not now and then",
            refresh_interval
        );
        for (index, m) in resource_monitors.iter().enumerate() {
            self.take_monitor(at.index("resource_monitors", index), m)?;
        }
        Ok(())
    }

    fn take_monitor(&mut self, at: At<'_>, m: &pb::ResourceMonitor) -> Result<(), CompileError> {
        let pb::ResourceMonitor { name, config_type } = m;
        ignored!("the type says what the extension is", name);
        let pb::resource_monitor::ConfigType::TypedConfig(any) = required!(at, config_type);
        if type_name(any)
            != "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
        {
            return unknown_type(at, any);
        }
        let at = at.field("typed_config");
        let config: DownstreamConnectionsConfig = decode(at, any)?;
        let DownstreamConnectionsConfig {
            max_active_downstream_connections,
        } = &config;
        match u64::try_from(*max_active_downstream_connections) {
            Ok(most @ 1..) => self.bound(most),
            _ => {
                return at
                    .field("max_active_downstream_connections")
                    .fail("must be above zero");
            }
        }
        Ok(())
    }
}
