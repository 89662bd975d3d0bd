//! Access logs: a worker renders lines into buffers that it owns; a full buffer, or the worker's
//! tick, hands them to their sink.

use std::cell::RefCell;
use std::sync::Arc;

use super::format::render_line;
use super::record::Record;
use crate::config::access_log::AccessLog;
use crate::log_sink::Sink;

/// Spare capacity for the line that fills a buffer.
const LAST_LINE: usize = 1024;

/// A line being written. Dropped by a panic it removes its part, which would else run into the next
/// line.
struct LogLine<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    is_whole: bool,
}

impl<'a> LogLine<'a> {
    fn begin(buffer: &'a mut Vec<u8>) -> Self {
        Self {
            start: buffer.len(),
            buffer,
            is_whole: false,
        }
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.buffer.truncate(self.start);
        }
    }
}

/// A sink and the lines it has not been handed yet.
type UnsentLines = (Arc<Sink>, Vec<u8>);

/// A worker's own buffers, one for each sink it has used.
#[derive(Default)]
pub struct WorkerLogs {
    /// By the sink's number.
    buffers: RefCell<Vec<Option<UnsentLines>>>,
}

impl WorkerLogs {
    /// Renders `record` to every log whose filter accepts it.
    pub fn write(&self, logs: &[Arc<AccessLog>], record: &Record<'_>) {
        if logs.is_empty() {
            return;
        }
        let mut buffers = self.buffers.borrow_mut();
        for log in logs {
            let index = log.sink.index();
            let chunk = log.sink.chunk();
            if buffers.len() <= index {
                buffers.resize_with(index.saturating_add(1), || None);
            }
            let Some(waiting) = buffers.get_mut(index) else {
                continue;
            };
            let fresh = || Vec::with_capacity(chunk.saturating_add(LAST_LINE));
            let (sink, buffer) = waiting.get_or_insert_with(|| (log.sink.clone(), fresh()));
            let mut line = LogLine::begin(buffer);
            render_line(log, record, line.buffer);
            line.is_whole = true;
            drop(line);
            if buffer.len() >= chunk {
                let full = std::mem::replace(buffer, fresh());
                sink.write(full);
            }
        }
    }

    /// Hands over what is buffered: on the worker's tick (at most a second late) and at its end.
    pub fn flush(&self) {
        for (sink, buffer) in self.buffers.borrow_mut().iter_mut().flatten() {
            if !buffer.is_empty() {
                sink.write(std::mem::take(buffer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::access_log::{
        Comparison, ComparisonOp, Format, JsonField, JsonValue, LogFilter, LogFormat, Operator,
        Part,
    };
    use crate::log_sink::{Destination, Sinks};
    use crate::metrics::ResponseFlags;
    use prometheus::IntCounter;
    use std::time::{Duration, SystemTime};

    fn operator(operator: Operator) -> JsonValue {
        JsonValue::Format(Format(vec![Part::Operator(operator)]))
    }

    #[test]
    fn lines_reach_the_file_filtered_and_in_their_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let sinks = Sinks::new(IntCounter::new("dropped", "dropped").unwrap(), 16 << 10);
        let sink = sinks.open(Destination::File(path.clone())).unwrap();
        let text = AccessLog {
            sink: sink.clone(),
            format: LogFormat::Text(Format(vec![
                Part::Operator(Operator::ResponseCode),
                Part::Literal(" ".into()),
                Part::Operator(Operator::ResponseFlags),
                Part::Literal(" ".into()),
                Part::Operator(Operator::Path),
                Part::Literal("\n".into()),
            ])),
            filter: Some(LogFilter::Status(Comparison {
                op: ComparisonOp::AtLeast,
                value: 500,
            })),
        };
        let json = AccessLog {
            sink,
            format: LogFormat::Json {
                fields: vec![
                    JsonField::new("code", operator(Operator::ResponseCode)),
                    JsonField::new("path", operator(Operator::Path)),
                    JsonField::new("sni", operator(Operator::RequestedServerName)),
                ],
                omit_empty: false,
            },
            filter: None,
        };
        let logs = [Arc::new(text), Arc::new(json)];
        let worker = WorkerLogs::default();
        let ok = Record {
            code: 200,
            path: Some(b"/a\nb"),
            ..Record::begun(SystemTime::now())
        };
        let bad = Record {
            code: 503,
            flags: ResponseFlags::NO_HEALTHY_UPSTREAM,
            path: Some(b"/a\nb"),
            ..Record::begun(SystemTime::now())
        };
        worker.write(&logs, &ok);
        worker.write(&logs, &bad);
        worker.flush();
        sinks.flush(Duration::from_secs(30));
        let lines = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                r#"{"code":200,"path":"/a\u000ab","sni":null}"#,
                r"503 UH /a\x0ab",
                r#"{"code":503,"path":"/a\u000ab","sni":null}"#,
            ]
        );
    }
}
