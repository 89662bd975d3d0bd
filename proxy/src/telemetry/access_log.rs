//! Access log sinks: lines leave the worker in chunks and are written by a thread of their own.
//!
//! A worker renders into a buffer it owns; a full buffer, or the worker's tick, hands it over a
//! bounded queue. A reader that does not keep up (a stuck pipe) costs lines, which are counted,
//! never a stalled worker.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use prometheus::IntCounter;

use super::format::render_line;
use super::record::Record;
use crate::config::access_log::AccessLog;

/// A worker hands its buffer over at this size.
const CHUNK: usize = 16 << 10;
/// Chunks in flight to the writer: 4 MiB.
const QUEUE: usize = 256;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
}

enum Job {
    Write(Vec<u8>),
    /// Answer once everything before was written.
    Flush(SyncSender<()>),
}

/// One open destination, shared by all workers and by every log that names it.
pub struct Sink {
    index: usize,
    target: Target,
    queue: SyncSender<Job>,
    dropped: IntCounter,
}

/// Opens sinks, one for each target.
pub struct Sinks {
    open: std::sync::Mutex<Vec<Arc<Sink>>>,
    dropped: IntCounter,
    threads: AtomicU32,
}

impl Sinks {
    /// `dropped` counts the chunks that a stuck destination lost.
    pub fn new(dropped: IntCounter) -> Self {
        Self {
            open: std::sync::Mutex::default(),
            dropped,
            threads: AtomicU32::new(0),
        }
    }

    /// The sink of `target`, opened on first use.
    ///
    /// # Errors
    /// When the file cannot be opened for appending or its thread cannot start.
    pub fn open(&self, target: Target) -> io::Result<Arc<Sink>> {
        let mut open = self
            .open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(sink) = open.iter().find(|sink| sink.target == target) {
            return Ok(sink.clone());
        }
        let writer: Box<dyn Write + Send> = match &target {
            Target::Stdout => Box::new(io::stdout()),
            Target::Stderr => Box::new(io::stderr()),
            Target::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let (queue, jobs) = sync_channel(QUEUE);
        let number = self.threads.fetch_add(1, Relaxed);
        std::thread::Builder::new()
            .name(format!("access-log-{number}"))
            .spawn(move || write_jobs(&jobs, writer))?;
        let sink = Arc::new(Sink {
            index: open.len(),
            target,
            queue,
            dropped: self.dropped.clone(),
        });
        open.push(sink.clone());
        Ok(sink)
    }

    /// Waits until everything handed over so far is written. For shutdown.
    pub fn flush(&self) {
        let open = self
            .open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        for sink in open {
            let (done, wait) = sync_channel(1);
            if sink.queue.send(Job::Flush(done)).is_ok() {
                // The writer is gone only at the end of the process: nothing is left to wait for.
                let _ = wait.recv();
            }
        }
    }
}

fn write_jobs(jobs: &Receiver<Job>, mut writer: Box<dyn Write + Send>) {
    for job in jobs {
        match job {
            Job::Write(chunk) => {
                if let Err(error) = writer.write_all(&chunk).and_then(|()| writer.flush()) {
                    tracing::warn!(%error, "an access log could not be written; its lines are lost");
                }
            }
            Job::Flush(done) => {
                // Nobody waits any more: nothing to tell.
                let _ = done.send(());
            }
        }
    }
}

impl Sink {
    fn hand_over(&self, chunk: Vec<u8>) {
        match self.queue.try_send(Job::Write(chunk)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.inc(),
        }
    }
}

/// A line that is being written. Should that panic, what there is of it goes: the next line would be
/// glued to it.
struct Line<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    is_whole: bool,
}

impl<'a> Line<'a> {
    fn begin(buffer: &'a mut Vec<u8>) -> Self {
        Self {
            start: buffer.len(),
            buffer,
            is_whole: false,
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.buffer.truncate(self.start);
        }
    }
}

/// A sink and the lines it has not been handed yet.
type Waiting = (Arc<Sink>, Vec<u8>);

/// A worker's own buffers, one for each sink it has used.
#[derive(Default)]
pub struct WorkerLogs {
    /// By the sink's number.
    buffers: RefCell<Vec<Option<Waiting>>>,
}

impl WorkerLogs {
    /// Renders `record` to every log whose filter lets it through.
    pub fn write(&self, logs: &[Arc<AccessLog>], record: &Record<'_>) {
        if logs.is_empty() {
            return;
        }
        let mut buffers = self.buffers.borrow_mut();
        for log in logs {
            let index = log.sink.index;
            if buffers.len() <= index {
                buffers.resize_with(index + 1, || None);
            }
            let (sink, buffer) = buffers[index]
                .get_or_insert_with(|| (log.sink.clone(), Vec::with_capacity(CHUNK + 1024)));
            let mut line = Line::begin(buffer);
            render_line(log, record, line.buffer);
            line.is_whole = true;
            drop(line);
            if buffer.len() >= CHUNK {
                let full = std::mem::replace(buffer, Vec::with_capacity(CHUNK + 1024));
                sink.hand_over(full);
            }
        }
    }

    /// Hands over what is buffered: on the worker's tick (at most a second late) and at its end.
    pub fn flush(&self) {
        for (sink, buffer) in self.buffers.borrow_mut().iter_mut().flatten() {
            if !buffer.is_empty() {
                sink.hand_over(std::mem::take(buffer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::access_log::{
        Format, JsonField, JsonValue, LogFilter, LogFormat, Operator, Part,
    };
    use crate::metrics::ResponseFlags;
    use std::time::SystemTime;

    fn operator(operator: Operator) -> JsonValue {
        JsonValue::Format(Format(vec![Part::Operator(operator)]))
    }

    #[test]
    fn lines_reach_the_file_filtered_and_in_their_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let sinks = Sinks::new(IntCounter::new("dropped", "dropped").unwrap());
        let sink = sinks.open(Target::File(path.clone())).unwrap();
        assert!(Arc::ptr_eq(
            &sink,
            &sinks.open(Target::File(path.clone())).unwrap()
        ));
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
            filter: Some(LogFilter::StatusAtLeast(500)),
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
        sinks.flush();
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
