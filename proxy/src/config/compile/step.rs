//! The steps from one snapshot to the next.

use xds_proto::type_url;

use super::Name;
use super::resource::Compiled;

/// One change from the last snapshot to the next.
#[derive(Clone)]
pub enum SnapshotStep {
    /// Adds a resource, or replaces the one of its name.
    Set(Compiled),
    /// Removes a resource: its type URL and its name.
    Remove(&'static str, Name),
}

impl SnapshotStep {
    /// Whether workers may have to open or close a listening socket for it.
    pub fn is_of_socket(&self) -> bool {
        match self {
            Self::Set(Compiled::Listener(listener)) => listener.def.bind_to_port,
            Self::Set(_) => false,
            Self::Remove(kind, _) => *kind == type_url::LISTENER,
        }
    }
}
