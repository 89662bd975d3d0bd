//! How much state a stream may take: the names that its client subscribes to, and the resources
//! that the client holds, because it listed them or because they were sent to it.
//!
//! The bound is a fixed number of bytes plus the state of a client that subscribes by name to every
//! resource of the newest view and holds it. It grows with the mesh, and not with names that a
//! client makes up.

use super::resources::{Extent, View};

/// Bytes of a name subscribed to, besides the text: here and in the dispatcher's index.
pub(super) const NAME: usize = 320;
/// Bytes of a resource that the client holds, besides its name and version.
pub(super) const HELD: usize = 200;
/// Bytes of one more reference to a name.
pub(super) const MARK: usize = 48;
/// Bytes of a version that the translation makes.
const VERSION: usize = 24;

/// The sum of sizes in bytes, `usize::MAX` where it would be more.
pub(super) fn sum<const N: usize>(sizes: [usize; N]) -> usize {
    sizes.into_iter().fold(0, usize::saturating_add)
}

/// The bytes that one stream may take.
#[derive(Debug)]
pub(super) struct Budget {
    own: usize,
    /// The bound as it was last computed: when an older value did not suffice.
    granted: usize,
}

impl Budget {
    /// `own`: the part of the bound that does not depend on the mesh, in bytes.
    pub(super) fn new(own: usize) -> Self {
        Budget { own, granted: own }
    }

    pub(super) fn granted(&self) -> usize {
        self.granted
    }

    /// Whether this many bytes are within the budget. The resources of the view are counted only
    /// when the bytes exceed what was granted before.
    pub(super) fn allows(&mut self, bytes: usize, view: &dyn View) -> bool {
        if bytes > self.granted {
            let whole = state(view.extent());
            self.granted = self.granted.max(self.own.saturating_add(whole));
        }
        bytes <= self.granted
    }
}

/// The state of a client that subscribes to everything by name and holds it.
fn state(everything: Extent) -> usize {
    let Extent {
        resources,
        name_bytes,
    } = everything;
    const OF_RESOURCE: usize = NAME + HELD + VERSION;
    sum([
        resources.saturating_mul(OF_RESOURCE),
        name_bytes,
        name_bytes,
    ])
}
