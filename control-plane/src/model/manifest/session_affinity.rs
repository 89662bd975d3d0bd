//! A Service's `sessionAffinity`: calls of one address go to one endpoint. kube-proxy remembers which
//! client has which endpoint, for a time; the mesh remembers none, and takes the endpoint by a hash of
//! the address.

use serde::Deserialize;

use super::object::FieldError;

/// Seconds. The API server writes them where a manifest has none.
const DEFAULT_TIMEOUT: u32 = 10800;

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
pub(super) enum SessionAffinity {
    #[default]
    None,
    ClientIP,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionAffinityConfig {
    #[serde(default, rename = "clientIP")]
    client_ip: Option<ClientIpConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientIpConfig {
    #[serde(default)]
    timeout_seconds: Option<u32>,
}

impl SessionAffinity {
    /// The field of it that the mesh does not use. `external_name`: of a Service of that type, which
    /// has no endpoints.
    pub(super) fn unsupported(
        self,
        config: Option<SessionAffinityConfig>,
        external_name: bool,
    ) -> Option<FieldError> {
        if self == Self::None {
            return None;
        }
        if external_name {
            let message = "`ClientIP` is not supported by the mesh, and not used; supported: None";
            return Some(FieldError::new("spec.sessionAffinity", message));
        }
        let seconds = config?.client_ip?.timeout_seconds?;
        (seconds != DEFAULT_TIMEOUT).then(|| {
            let message = format!(
                "`{seconds}` is not used by the mesh: an address keeps its endpoint while the endpoints are the same"
            );
            FieldError::new("spec.sessionAffinityConfig.clientIP.timeoutSeconds", message)
        })
    }
}
