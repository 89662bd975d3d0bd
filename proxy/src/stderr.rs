//! Lines for stderr that may not hold up the process: a pipe that is not read blocks who writes to it.

use std::io::Write;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Prints `line` from a thread of its own, and returns once that is done or `limit` is over. The
/// lock of stderr is waited for there too: a log's thread may hold it, in a write that blocks.
pub fn print(line: String, limit: Duration) {
    let (done, printed) = channel();
    let printing = move || {
        // Where stderr is closed there is nothing to be done; the caller may have gone on.
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
