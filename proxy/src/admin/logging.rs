//! Log levels, changed at run time.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// The level in force and how to change it.
#[derive(Clone)]
pub struct Logging {
    current: Arc<Mutex<String>>,
    apply: Arc<SetFilter>,
}

/// Why a level was not set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    #[error("{0:?} is no level: trace, debug, info, warning, error, critical or off")]
    Unknown(String),
    #[error("{0:?} is no module of this proxy")]
    Module(String),
    #[error("the level could not be changed: {0}")]
    Apply(String),
}

impl Logging {
    /// `apply` replaces the filter of the subscriber.
    pub fn new(
        initial: &str,
        apply: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Logging {
            current: Arc::new(Mutex::new(initial.to_owned())),
            apply: Arc::new(Box::new(apply)),
        }
    }

    /// The directives in force, `level,module=level,…`.
    pub fn current(&self) -> String {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sets the level of everything.
    ///
    /// # Errors
    /// When `level` is none of Envoy's names.
    pub fn set_all(&self, level: &str) -> Result<(), LevelError> {
        self.replace(directive(level)?.to_owned())
    }

    /// Sets the level of one module of the proxy (`xds`, `tls`, `http`, …), beside the others.
    ///
    /// # Errors
    /// When `level` or `module` is not known.
    pub fn set_module(&self, module: &str, level: &str) -> Result<(), LevelError> {
        let level = directive(level)?;
        let known = |b: u8| b.is_ascii_lowercase() || b == b'_' || b == b':' || b.is_ascii_digit();
        if module.is_empty() || module.len() > 64 || !module.bytes().all(known) {
            return Err(LevelError::Module(module.to_owned()));
        }
        let target = format!("anyam_proxy::{module}=");
        let current = self.current();
        let mut kept: Vec<&str> = current
            .split(',')
            .filter(|part| !part.starts_with(&target))
            .take(32)
            .collect();
        let fresh = format!("{target}{level}");
        kept.push(&fresh);
        self.replace(kept.join(","))
    }

    fn replace(&self, directives: String) -> Result<(), LevelError> {
        let filter =
            EnvFilter::try_new(&directives).map_err(|e| LevelError::Apply(e.to_string()))?;
        (self.apply)(filter).map_err(LevelError::Apply)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = directives;
        Ok(())
    }
}

/// Envoy's level names as ours.
///
/// # Errors
/// When it is none of them.
pub fn directive(level: &str) -> Result<&'static str, LevelError> {
    Ok(match level {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warning" | "warn" => "warn",
        "error" | "critical" => "error",
        "off" => "off",
        other => return Err(LevelError::Unknown(other.chars().take(32).collect())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_set_for_all_and_for_modules() {
        let logging = Logging::new("info", |_| Ok(()));
        logging.set_module("xds", "debug").unwrap();
        logging.set_module("tls", "trace").unwrap();
        logging.set_module("xds", "warning").unwrap();
        assert_eq!(
            logging.current(),
            "info,anyam_proxy::tls=trace,anyam_proxy::xds=warn"
        );
        assert!(logging.set_module("a,b", "info").is_err());
        assert!(logging.set_all("loud").is_err());
        logging.set_all("critical").unwrap();
        assert_eq!(logging.current(), "error");
    }
}
