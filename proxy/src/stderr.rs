//! Writes lines to stderr without blocking the process: writing to a pipe that is not read blocks.

use std::io::Write;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Prints `line` from a thread of its own, and returns once that is done or `limit` is over. That
/// thread also waits for the lock of stderr, which a log's thread may hold in a write that blocks.
pub fn print(line: String, limit: Duration) {
    let (done, printed) = channel();
    let printing = move || {
        // A failure means that stderr is closed, or that the caller no longer waits.
        let _ = writeln!(std::io::stderr(), "{line}");
        let _ = done.send(());
    };
    if thread::Builder::new()
        .name("stderr".to_owned())
        .spawn(printing)
        .is_ok()
    {
        let _ = printed.recv_timeout(limit);
    }
}
