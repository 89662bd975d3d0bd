//! Diagnostics on stderr or in a file, with a level that can be changed at run time.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::admin::logging::Logging;
use crate::args::Process;
use crate::log_sink::{Destination, Sink, Sinks};
use crate::telemetry::log_format::escape_c;

/// Logs of this process.
#[derive(Clone)]
pub struct Logs {
    /// Destinations of all of them.
    pub sinks: Arc<Sinks>,
    /// Chunks dropped because a destination did not accept writes; to be registered.
    pub dropped: IntCounter,
    pub levels: Logging,
}

/// Installs the subscriber of this process; libraries stay at warnings, and those that read peers' bytes
/// at errors, unless a level is set that names them: what peers send must not fill a disk.
///
/// # Errors
/// When there is a subscriber already, or --log-path cannot be written to.
pub fn init(process: &Process) -> Result<Logs, String> {
    let options = &process.logs;
    let dropped = IntCounter::new(
        "anyam_access_log_dropped_total",
        "Pieces of logs that a destination lost because it was not read.",
    );
    let dropped = dropped.map_err(|e| e.to_string())?;
    let sinks = Arc::new(Sinks::new(dropped.clone(), options.chunk()));
    let target = options
        .log_path
        .clone()
        .map_or(Destination::Stderr, Destination::File);
    let sink = sinks
        .open(target)
        .map_err(|error| format!("--log-path cannot be written to: {error}"))?;
    let level = process.log_level.as_filter();
    let (libraries, of_peers) = match level {
        "off" => ("off", "off"),
        "error" => ("error", "error"),
        _ => ("warn", "error"),
    };
    let directives = format!(
        "{level},h2={of_peers},rustls={of_peers},\
         hyper={libraries},tonic={libraries},tower={libraries}"
    );
    let filter = EnvFilter::try_new(&directives).map_err(|e| e.to_string())?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer()
        .with_ansi(options.log_path.is_none() && io::stderr().is_terminal())
        .with_writer(Lines {
            sink,
            escaped: options.log_format_escaped,
        });
    let lines = match options.log_format.clone() {
        Some(pattern) => lines.event_format(pattern).boxed(),
        None => lines.boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|e| e.to_string())?;
    let levels = Logging::new(&directives, move |filter| {
        handle.reload(filter).map_err(|e| e.to_string())
    });
    for (module, level) in &options.component_log_level {
        levels
            .set_module(module, level)
            .map_err(|error| format!("--component-log-level: {error}"))?;
    }
    Ok(Logs {
        sinks,
        dropped,
        levels,
    })
}

/// Hands each line to the sink's thread, so that a full pipe does not block the thread that logs.
#[derive(Clone)]
struct Lines {
    sink: Arc<Sink>,
    escaped: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    /// The subscriber writes each event in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = match self.escaped {
            true => {
                let text = String::from_utf8_lossy(event);
                let line = text.strip_suffix('\n').unwrap_or(&text);
                format!("{}\n", escape_c(line)).into_bytes()
            }
            false => event.to_vec(),
        };
        self.sink.write(text);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
