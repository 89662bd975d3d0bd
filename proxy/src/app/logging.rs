//! Diagnostics on stderr, with a level that can be changed live.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::admin::logging::Logging;

/// Installs the subscriber of this process. `level` as `tracing` spells it; libraries stay at
/// warnings unless a level is set that names them.
///
/// # Errors
/// When there is a subscriber already.
pub fn init(level: &str) -> Result<Logging, String> {
    let directives = format!("{level},h2=warn,hyper=warn,tonic=warn,tower=warn,rustls=warn");
    let filter = EnvFilter::try_new(&directives).map_err(|e| e.to_string())?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|e| e.to_string())?;
    Ok(Logging::new(&directives, move |filter| {
        handle.reload(filter).map_err(|e| e.to_string())
    }))
}
