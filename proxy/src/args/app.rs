//! What a sidecar does for its app: probes and metrics, as injection hands them over.

use clap::Args as ClapArgs;
use serde_json::Value;

#[derive(Debug, Clone, ClapArgs)]
pub struct AppArgs {
    /// Where the kubelet's probes of the app are performed, and merged metrics shown. 0: nowhere.
    #[arg(long, env = "ANYAM_STATUS_PORT", default_value_t = 0)]
    pub status_port: u16,
    /// Probes of the app, as injection writes them: a list of anyam.bootstrap.v1.AppProbe.
    #[arg(long, env = "ANYAM_APP_PROBES", value_name = "JSON", value_parser = json)]
    pub app_probes: Option<Value>,
    /// Where the app has metrics, as injection writes it: an anyam.bootstrap.v1.AppMetrics.
    #[arg(long, env = "ANYAM_APP_METRICS", value_name = "JSON", value_parser = json)]
    pub app_metrics: Option<Value>,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
