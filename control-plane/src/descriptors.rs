//! Open files: as many as the kernel lets the process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft RLIMIT_NOFILE to the hard one, and returns it; `u64::MAX`: there is none. The
/// soft one is low by tradition, for programs that use select(2).
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not raised");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}
