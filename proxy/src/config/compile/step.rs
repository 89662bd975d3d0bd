//! What snapshots are made of, one after the other.

use xds_proto::type_url;

use super::Name;
use super::resource::Compiled;

/// One change on the way to the next snapshot.
#[derive(Clone)]
pub enum SnapshotStep {
    /// Takes a resource in, or in the place of the one before it.
    Set(Compiled),
    /// Lets a resource go: its type URL and its name.
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
