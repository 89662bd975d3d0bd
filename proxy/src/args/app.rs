//! Probes and metrics of a sidecar's app, in the form that injection writes them.

use clap::Args as ClapArgs;
use serde_json::Value;

#[derive(Debug, Clone, ClapArgs)]
pub struct AppArgs {
    /// Port at which the app's probes are performed and merged metrics served. 0: none.
    #[arg(long, env = "ANYAM_STATUS_PORT", default_value_t = 0)]
    pub status_port: u16,
    /// The app's probes, as injection writes them: a list of anyam.bootstrap.v1.AppProbe.
    #[arg(long, env = "ANYAM_APP_PROBES", value_name = "JSON", value_parser = json)]
    pub app_probes: Option<Value>,
    /// The app's metrics endpoint, as injection writes it: an anyam.bootstrap.v1.AppMetrics.
    #[arg(long, env = "ANYAM_APP_METRICS", value_name = "JSON", value_parser = json)]
    pub app_metrics: Option<Value>,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
