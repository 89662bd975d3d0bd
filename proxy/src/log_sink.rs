//! Where log lines go: each destination has a thread of its own, behind a bounded queue.
//!
//! A destination that is not read (a full pipe) costs lines, which are counted: it holds up neither
//! a worker nor the end of the process. Files are opened anew on demand, so that they can be
//! rotated.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

/// Bytes in flight to one writer; the queue itself takes memory only for what is in it.
const QUEUE_BYTES: usize = 4 << 20;
/// What a piece costs besides its bytes.
const PIECE: usize = 64;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    Stdout,
    Stderr,
    File(PathBuf),
}

enum Job {
    Write(Vec<u8>),
    /// Reply once everything before was written.
    Flush(SyncSender<()>),
    /// Look whether to open the file again.
    Reopen,
}

/// What a writer thread shares with those who write.
#[derive(Default)]
struct WriterState {
    reopen: AtomicBool,
    queued: AtomicUsize,
}

/// One open destination, shared by all workers and by every log that names it.
pub struct Sink {
    index: usize,
    target: Destination,
    queue: Sender<Job>,
    shared: Arc<WriterState>,
    /// A worker hands its lines over once they are so many bytes.
    chunk: usize,
    dropped: IntCounter,
}

/// Opens sinks, one for each target.
pub struct Sinks {
    open: Mutex<Vec<Arc<Sink>>>,
    dropped: IntCounter,
    chunk: usize,
    threads: AtomicU32,
}

impl Sinks {
    /// `dropped` counts the pieces that were dropped because their destination accepted no writes;
    /// `chunk`: see [`Sink::chunk`].
    pub fn new(dropped: IntCounter, chunk: usize) -> Self {
        Self {
            open: Mutex::default(),
            dropped,
            chunk,
            threads: AtomicU32::new(0),
        }
    }

    /// The sink of `target`, opened on first use.
    ///
    /// # Errors
    /// When the file cannot be opened for appending or its thread cannot start.
    pub fn open(&self, target: Destination) -> io::Result<Arc<Sink>> {
        let mut open = self.all();
        if let Some(sink) = open.iter().find(|sink| sink.target == target) {
            return Ok(sink.clone());
        }
        let writer = Writer::open(&target)?;
        let (queue, jobs) = channel();
        let shared = Arc::new(WriterState::default());
        let (path, state) = (target.path().map(Path::to_owned), shared.clone());
        let dropped = self.dropped.clone();
        let number = self.threads.fetch_add(1, Relaxed);
        std::thread::Builder::new()
            .name(format!("log-{number}"))
            .spawn(move || write_jobs(&jobs, writer, path.as_deref(), &state, &dropped))?;
        let sink = Arc::new(Sink {
            index: open.len(),
            target,
            queue,
            shared,
            chunk: self.chunk,
            dropped: self.dropped.clone(),
        });
        open.push(sink.clone());
        Ok(sink)
    }

    /// Opens every file again, as after a rotation. One that cannot be opened is kept as it is.
    pub fn reopen(&self) {
        for sink in self.all().iter() {
            // The writer exists as long as its sink; one that was already notified will check the
            // flag.
            if !sink.shared.reopen.swap(true, Relaxed) {
                let _ = sink.queue.send(Job::Reopen);
            }
        }
    }

    /// Waits until everything handed over so far is written, but no longer than `limit`: for the
    /// end of the process.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let begin = |sink: &Arc<Sink>| {
            let (done, wait) = sync_channel(1);
            sink.queue.send(Job::Flush(done)).ok().map(|()| wait)
        };
        let waiting: Vec<_> = self.all().iter().filter_map(begin).collect();
        for wait in waiting {
            // A destination that is not read keeps what it has not taken.
            let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Sink>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination {
    fn path(&self) -> Option<&Path> {
        match self {
            Destination::File(path) => Some(path),
            Destination::Stdout | Destination::Stderr => None,
        }
    }
}

impl Sink {
    /// Its number among all sinks, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Queues whole lines; drops and counts them when too much is queued already.
    pub fn write(&self, lines: Vec<u8>) {
        let size = lines.len() + PIECE;
        let before = self.shared.queued.fetch_add(size, Relaxed);
        if before >= QUEUE_BYTES || self.queue.send(Job::Write(lines)).is_err() {
            self.shared.queued.fetch_sub(size, Relaxed);
            self.dropped.inc();
        }
    }
}

enum Writer {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    File(File),
}

impl Writer {
    fn open(target: &Destination) -> io::Result<Self> {
        Ok(match target {
            Destination::Stdout => Writer::Stdout(io::stdout()),
            Destination::Stderr => Writer::Stderr(io::stderr()),
            Destination::File(path) => Writer::File(append(path)?),
        })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Writer::Stdout(out) => out.write_all(lines).and_then(|()| out.flush()),
            Writer::Stderr(out) => out.write_all(lines),
            Writer::File(file) => file.write_all(lines),
        }
    }
}

/// Never waits. To open a FIFO for writing alone would wait for its reader, or fail; a reader that
/// leaves and comes back later would end the log. Open for both it takes lines until it is full.
fn append(path: &Path) -> io::Result<File> {
    let is_fifo = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(is_fifo)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // Its thread does wait, for a destination that is full.
    rustix::io::ioctl_fionbio(&file, false)?;
    Ok(file)
}

fn write_jobs(
    jobs: &Receiver<Job>,
    mut writer: Writer,
    path: Option<&Path>,
    shared: &WriterState,
    dropped: &IntCounter,
) {
    // Logged once each time that writing begins to fail: the log itself may be what cannot be
    // written.
    let mut failing = false;
    for job in jobs {
        if shared.reopen.swap(false, Relaxed)
            && let Some(path) = path
        {
            match append(path) {
                Ok(file) => writer = Writer::File(file),
                Err(error) => {
                    tracing::error!(%error, ?path, "a log could not be opened again; the old file is kept");
                }
            }
        }
        match job {
            Job::Write(lines) => {
                shared.queued.fetch_sub(lines.len() + PIECE, Relaxed);
                let failed = writer.write(&lines).err();
                if let Some(error) = failed.as_ref().filter(|_| !failing) {
                    tracing::warn!(%error, ?path, "a log could not be written; its lines are lost");
                }
                failing = failed.is_some();
                dropped.inc_by(failing.into());
            }
            Job::Flush(done) => {
                // The process may have given up waiting.
                let _ = done.send(());
            }
            Job::Reopen => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const SOON: Duration = Duration::from_secs(30);

    fn sinks() -> Sinks {
        Sinks::new(IntCounter::new("dropped", "dropped").unwrap(), 16)
    }

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let sinks = sinks();
        let sink = sinks.open(Destination::File(path.clone())).unwrap();
        assert!(Arc::ptr_eq(
            &sink,
            &sinks.open(Destination::File(path.clone())).unwrap()
        ));
        let write = |line: &str| {
            sink.write(line.into());
            sinks.flush(SOON);
        };
        write("one\n");
        std::fs::rename(&path, &old).unwrap();
        write("two\n");
        sinks.reopen();
        write("three\n");
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        // What cannot be opened leaves what there is.
        std::fs::rename(&path, &old).unwrap();
        std::fs::create_dir(&path).unwrap();
        sinks.reopen();
        write("four\n");
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "three\nfour\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let sinks = sinks();
        let full = sinks.open(Destination::File("/dev/full".into())).unwrap();
        full.write(b"lost\n".into());
        sinks.flush(SOON);
        assert_eq!(sinks.dropped.get(), 1);
    }

    #[test]
    fn a_pipe_that_is_not_read_costs_lines_and_holds_up_no_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let (sinks, other) = (sinks(), folder.path().join("file"));
        // No reader has it open yet.
        let stuck = sinks.open(Destination::File(path.clone())).unwrap();
        let file = sinks.open(Destination::File(other.clone())).unwrap();
        let line = vec![b'x'; 8 << 10];
        for _ in 0..2 * QUEUE_BYTES / line.len() {
            stuck.write(line.clone());
        }
        file.write(b"fine\n".into());
        assert!(sinks.dropped.get() > 0);
        let began = Instant::now();
        sinks.flush(Duration::from_millis(200));
        assert!(began.elapsed() < SOON);
        assert_eq!(std::fs::read_to_string(other).unwrap(), "fine\n");
        // Once it is read, writing continues.
        let mut reader = File::open(&path).unwrap();
        assert!(reader.read(&mut [0; 8]).unwrap() > 0);
        drop(reader);
        let mut reader = File::open(&path).unwrap();
        let mut piece = vec![0; 64 << 10];
        while stuck.shared.queued.load(Relaxed) > 0 {
            assert!(reader.read(&mut piece).unwrap() > 0);
        }
    }
}
