//! `--log-format`: spdlog's patterns, as Envoy uses them.
//!
//! Source: spdlog's wiki, "Custom formatting"; `%_` and `%j` are Envoy's own. Times are UTC.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::escape::{self, Civil, strftime};

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<PatternPart>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternPart {
    Literal(String),
    /// For `strftime`.
    Time(&'static str),
    Level,
    LevelLetter,
    Module,
    Thread,
    Process,
    /// Path of the source file, or its last part.
    File {
        whole: bool,
    },
    Line,
    FileAndLine,
    Message(Escape),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    /// As C writes control characters.
    C,
    Json,
}

impl Pattern {
    /// # Errors
    /// Names the flag that is not known.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let flag = rest.next().ok_or("ends in `%`")?;
            let part = match flag {
                '%' => {
                    literal.push('%');
                    continue;
                }
                // Where colours begin and end, and the function's name: there is none.
                '^' | '$' | '!' => continue,
                flag => part(flag).ok_or_else(|| format!("`%{flag}` is not supported"))?,
            };
            if !literal.is_empty() {
                parts.push(PatternPart::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(PatternPart::Literal(literal));
        }
        Ok(Self(parts))
    }
}

fn part(flag: char) -> Option<PatternPart> {
    Some(match flag {
        'Y' => PatternPart::Time("%Y"),
        'm' => PatternPart::Time("%m"),
        'd' => PatternPart::Time("%d"),
        'H' => PatternPart::Time("%H"),
        'M' => PatternPart::Time("%M"),
        'S' => PatternPart::Time("%S"),
        'T' | 'X' => PatternPart::Time("%T"),
        'R' => PatternPart::Time("%H:%M"),
        'D' | 'x' => PatternPart::Time("%m/%d/%Y"),
        'e' => PatternPart::Time("%3f"),
        'f' => PatternPart::Time("%6f"),
        'F' => PatternPart::Time("%9f"),
        'E' => PatternPart::Time("%s"),
        'z' => PatternPart::Literal("+00:00".to_owned()),
        'l' => PatternPart::Level,
        'L' => PatternPart::LevelLetter,
        'n' => PatternPart::Module,
        't' => PatternPart::Thread,
        'P' => PatternPart::Process,
        'g' => PatternPart::File { whole: true },
        's' => PatternPart::File { whole: false },
        '#' => PatternPart::Line,
        '@' => PatternPart::FileAndLine,
        'v' => PatternPart::Message(Escape::None),
        '_' => PatternPart::Message(Escape::C),
        'j' => PatternPart::Message(Escape::Json),
        _ => return None,
    })
}

/// A message and its fields, as one text.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
    }
}

impl<S, N> FormatEvent<S, N> for Pattern
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = Civil::from_unix(since.as_secs());
        let metadata = event.metadata();
        let mut message = Message::default();
        event.record(&mut message);
        let file = metadata.file().unwrap_or_default();
        let last = file.rsplit('/').next().unwrap_or_default();
        let line = metadata.line().unwrap_or_default();
        for part in &self.0 {
            match part {
                PatternPart::Literal(text) => out.write_str(text)?,
                PatternPart::Time(format) => {
                    let mut text = Vec::new();
                    strftime(&mut text, format, &time, since).map_err(|_| fmt::Error)?;
                    out.write_str(&String::from_utf8_lossy(&text))?;
                }
                PatternPart::Level => out.write_str(level(metadata.level()))?,
                PatternPart::LevelLetter => {
                    let first = level(metadata.level()).chars().next();
                    out.write_char(first.unwrap_or('-').to_ascii_uppercase())?;
                }
                PatternPart::Module => out.write_str(module(metadata.target()))?,
                PatternPart::Thread => {
                    out.write_str(std::thread::current().name().unwrap_or("unnamed"))?;
                }
                PatternPart::Process => write!(out, "{}", std::process::id())?,
                PatternPart::File { whole: true } => out.write_str(file)?,
                PatternPart::File { whole: false } => out.write_str(last)?,
                PatternPart::Line => write!(out, "{line}")?,
                PatternPart::FileAndLine => write!(out, "{last}:{line}")?,
                PatternPart::Message(Escape::None) => out.write_str(&message.0)?,
                PatternPart::Message(Escape::C) => out.write_str(&escape_c(&message.0))?,
                PatternPart::Message(Escape::Json) => {
                    let mut text = Vec::new();
                    escape::json_part(message.0.as_bytes(), &mut text);
                    out.write_str(&String::from_utf8_lossy(&text))?;
                }
            }
        }
        out.write_char('\n')
    }
}

/// Envoy's names.
fn level(level: &Level) -> &'static str {
    match *level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

/// `anyam_proxy::xds::client` is `xds`, as `/logging` calls it.
fn module(target: &str) -> &str {
    let own = target.strip_prefix("anyam_proxy::").unwrap_or(target);
    own.split("::").next().unwrap_or(own)
}

/// Control characters and the backslash as C writes them.
pub fn escape_c(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || c == '\\' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    fn logged(pattern: &str) -> String {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(line);
                Ok(line.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = text.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Pattern::parse(pattern).unwrap())
            .with_writer(move || Lines(lines.clone()));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "anyam_proxy::xds::client", left = 3, "two\nlines");
        });
        let text = text.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_is_as_its_pattern_says() {
        let line = logged("[%l][%L][%n][%t] %s 100%% %^%_%$");
        let thread = std::thread::current();
        let expected = format!(
            "[warning][W][xds][{}] log_format.rs 100% two\\nlines left=3\n",
            thread.name().unwrap()
        );
        assert_eq!(line, expected);
        assert_eq!(logged("%v"), "two\nlines left=3\n");
        assert_eq!(logged("%j"), "two\\u000alines left=3\n");
        let time = logged("%Y-%m-%dT%T.%eZ");
        assert_eq!(time.len(), "2026-01-01T00:00:00.000Z\n".len(), "{time}");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in ["%", "%v%", "%q"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
