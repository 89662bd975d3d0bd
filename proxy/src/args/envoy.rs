//! Envoy's flags that have no effect here, each with the reason; and those with little effect.
//!
//! They are accepted so that a command line written for Envoy starts this proxy. What has no effect
//! is logged at the start.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

/// See the module. Values are checked as Envoy checks them.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Envoy's flags")]
pub struct EnvoyFlags {
    /// A label of every metric, `name:value`; may be given several times.
    #[arg(long, value_name = "NAME:VALUE", value_parser = stats_tag)]
    pub stats_tag: Vec<(String, String)>,
    /// File to write the admin server's address to.
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,
    /// As many workers as CPUs that this process may run on, unless --concurrency says otherwise.
    #[arg(long)]
    pub cpuset_threads: bool,
    /// Let the kernel write a core file if the process crashes. It has the private keys in it.
    #[arg(long)]
    pub enable_core_dump: bool,
    /// Print "disabled" and exit: processes of different versions do not share sockets.
    #[arg(long)]
    pub hot_restart_version: bool,
    /// Everything after it is ignored, as after `--`.
    #[arg(long = "ignore_rest", num_args = 0.., allow_hyphen_values = true, hide = true)]
    pub ignored: Option<Vec<String>>,
    #[arg(last = true, hide = true)]
    pub rest: Vec<String>,

    #[arg(long, hide = true, value_name = "N")]
    pub base_id: Option<u32>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub base_id_path: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub use_dynamic_base_id: bool,
    #[arg(long, hide = true)]
    pub disable_hot_restart: bool,
    #[arg(long, hide = true, value_name = "N")]
    pub restart_epoch: Option<u32>,
    #[arg(long, hide = true, value_name = "SECONDS")]
    pub parent_shutdown_time_s: Option<u32>,
    #[arg(long, hide = true)]
    pub skip_hot_restart_on_no_parent: bool,
    #[arg(long, hide = true)]
    pub skip_hot_restart_parent_stats: bool,
    #[arg(long, hide = true, value_name = "PATH")]
    pub socket_path: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    pub socket_mode: Option<String>,
    #[arg(long, hide = true, value_name = "STRATEGY")]
    pub drain_strategy: Option<DrainStrategy>,
    #[arg(long, hide = true, value_name = "VERSION")]
    pub local_address_ip_version: Option<IpVersion>,
    #[arg(long, hide = true)]
    pub allow_unknown_fields: bool,
    #[arg(long, hide = true)]
    pub allow_unknown_static_fields: bool,
    #[arg(long, hide = true)]
    pub ignore_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    pub reject_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    pub skip_deprecated_logs: bool,
    #[arg(long, hide = true, value_name = "NAMES")]
    pub disable_extensions: Option<String>,
    #[arg(long, hide = true)]
    pub enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    pub enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    pub log_stacktrace_single_entry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrainStrategy {
    Gradual,
    Immediate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IpVersion {
    V4,
    V6,
}

const NO_HOT_RESTART: &str = "there is no hot restart: start the next process and drain this one";
const UNKNOWN_FIELDS: &str =
    "fields that are not known are refused: one that is not understood may be a rule of security";

/// A flag and the reason why it has no effect.
type Reason = (&'static str, &'static str);

const BASE_ID: Reason = ("--base-id", NO_HOT_RESTART);
const BASE_ID_PATH: Reason = ("--base-id-path", NO_HOT_RESTART);
const USE_DYNAMIC_BASE_ID: Reason = ("--use-dynamic-base-id", NO_HOT_RESTART);
const RESTART_EPOCH: Reason = ("--restart-epoch", NO_HOT_RESTART);
const PARENT_SHUTDOWN_TIME: Reason = ("--parent-shutdown-time-s", NO_HOT_RESTART);
const SKIP_HOT_RESTART_ON_NO_PARENT: Reason = ("--skip-hot-restart-on-no-parent", NO_HOT_RESTART);
const SKIP_HOT_RESTART_PARENT_STATS: Reason = ("--skip-hot-restart-parent-stats", NO_HOT_RESTART);
const SOCKET_PATH: Reason = ("--socket-path", NO_HOT_RESTART);
const SOCKET_MODE: Reason = ("--socket-mode", NO_HOT_RESTART);
const DRAIN_STRATEGY: Reason = (
    "--drain-strategy",
    "every connection is drained as soon as the drain begins",
);
const LOCAL_ADDRESS_IP_VERSION: Reason = (
    "--local-address-ip-version",
    "no local address but the connection's own is reported",
);
const ALLOW_UNKNOWN_FIELDS: Reason = ("--allow-unknown-fields", UNKNOWN_FIELDS);
const ALLOW_UNKNOWN_STATIC_FIELDS: Reason = ("--allow-unknown-static-fields", UNKNOWN_FIELDS);
const IGNORE_UNKNOWN_DYNAMIC_FIELDS: Reason = ("--ignore-unknown-dynamic-fields", UNKNOWN_FIELDS);
const DISABLE_EXTENSIONS: Reason = (
    "--disable-extensions",
    "extensions cannot be switched off; a configuration that names none uses none",
);
const ENABLE_MUTEX_TRACING: Reason = (
    "--enable-mutex-tracing",
    "workers share no lock that could be contended for",
);
const ENABLE_FINE_GRAIN_LOGGING: Reason = (
    "--enable-fine-grain-logging",
    "levels are by module: --component-log-level, POST /logging?paths=",
);
const LOG_STACKTRACE_SINGLE_ENTRY: Reason = (
    "--log-stacktrace-single-entry",
    "stack traces are not logged",
);

impl EnvoyFlags {
    /// The flags that were given and have no effect, each with the reason.
    pub fn without_effect(&self) -> Vec<Reason> {
        let restarts = self.restart_epoch.is_some_and(|epoch| epoch > 0);
        let gradual = self.drain_strategy == Some(DrainStrategy::Gradual);
        let ip_version = self.local_address_ip_version.is_some();
        let on_no_parent = self.skip_hot_restart_on_no_parent;
        let all = [
            (self.base_id.is_some(), BASE_ID),
            (self.base_id_path.is_some(), BASE_ID_PATH),
            (self.use_dynamic_base_id, USE_DYNAMIC_BASE_ID),
            (restarts, RESTART_EPOCH),
            (self.parent_shutdown_time_s.is_some(), PARENT_SHUTDOWN_TIME),
            (on_no_parent, SKIP_HOT_RESTART_ON_NO_PARENT),
            (
                self.skip_hot_restart_parent_stats,
                SKIP_HOT_RESTART_PARENT_STATS,
            ),
            (self.socket_path.is_some(), SOCKET_PATH),
            (self.socket_mode.is_some(), SOCKET_MODE),
            (gradual, DRAIN_STRATEGY),
            (ip_version, LOCAL_ADDRESS_IP_VERSION),
            (self.allow_unknown_fields, ALLOW_UNKNOWN_FIELDS),
            (
                self.allow_unknown_static_fields,
                ALLOW_UNKNOWN_STATIC_FIELDS,
            ),
            (
                self.ignore_unknown_dynamic_fields,
                IGNORE_UNKNOWN_DYNAMIC_FIELDS,
            ),
            (self.disable_extensions.is_some(), DISABLE_EXTENSIONS),
            (self.enable_mutex_tracing, ENABLE_MUTEX_TRACING),
            (self.enable_fine_grain_logging, ENABLE_FINE_GRAIN_LOGGING),
            (
                self.log_stacktrace_single_entry,
                LOG_STACKTRACE_SINGLE_ENTRY,
            ),
        ];
        let given = all.into_iter().filter(|(given, _)| *given);
        given.map(|(_, flag)| flag).collect()
    }
}

/// Envoy's rules: the name of letters and digits, the value without a dot.
fn stats_tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected name:value")?;
    let named = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(named) || name.as_bytes()[0].is_ascii_digit() {
        return Err(format!(
            "{name:?} is no name of a label: letters and digits"
        ));
    }
    if value.is_empty() || value.contains('.') {
        return Err("the value must not be empty nor have a dot".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}
