//! Access log sinks.

/// Where lines go: a file or standard output, written off the hot path.
pub struct Sink {}
