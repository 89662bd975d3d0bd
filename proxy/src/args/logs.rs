//! Where diagnostics and access logs go, and how, in Envoy's words.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use super::LogLevel;
use crate::telemetry::log_format::Pattern;

/// The most that a worker gathers before it hands access log lines over.
const MAX_CHUNK: usize = 1 << 20;

#[derive(Debug, Clone, ClapArgs)]
pub struct LogOptions {
    /// File for diagnostics, in place of stderr. SIGUSR1 opens it again.
    #[arg(long, value_name = "FILE")]
    pub log_path: Option<PathBuf>,
    /// Lines of diagnostics, in spdlog's pattern syntax (`%Y-%m-%d %T.%e`, `%t`, `%l`, `%n`, `%v`, …).
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub log_format: Option<Pattern>,
    /// Write control characters in diagnostics as C does: a message is always one line.
    #[arg(long)]
    pub log_format_escaped: bool,
    /// Levels of single modules, `module:level,…`.
    #[arg(long, value_name = "MODULE:LEVEL", value_delimiter = ',', value_parser = component)]
    pub component_log_level: Vec<(String, String)>,
    /// Milliseconds that access log lines wait in a worker at most [default: 1000].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub file_flush_interval_msec: Option<u32>,
    /// Kilobytes of access log lines that a worker gathers before it hands them over [default: 16].
    #[arg(long, value_name = "KB", value_parser = clap::value_parser!(u32).range(1..))]
    pub file_flush_min_size_kb: Option<u32>,
}

impl LogOptions {
    pub fn flush_interval(&self) -> Duration {
        Duration::from_millis(self.file_flush_interval_msec.unwrap_or(1000).into())
    }

    /// Bytes.
    pub fn chunk(&self) -> usize {
        let kilobytes = self.file_flush_min_size_kb.unwrap_or(16);
        let kilobytes = usize::try_from(kilobytes).unwrap_or(usize::MAX);
        kilobytes.saturating_mul(1024).min(MAX_CHUNK)
    }
}

/// Whether the module exists is checked only when the level is set.
fn component(text: &str) -> Result<(String, String), String> {
    let (module, level) = text.split_once(':').ok_or("expected module:level")?;
    LogLevel::from_str(level, false)?;
    Ok((module.to_owned(), level.to_owned()))
}
