//! How much state a stream may take: names that its client subscribes to, and resources that the
//! client holds, as it says or as it was sent.
//!
//! A stream may take a fixed number of bytes, and what a client takes that subscribes to everything in
//! the newest view by name and holds it. So the bound grows with the mesh, whatever a client makes up.

use super::resources::{Extent, View};

/// Of a name subscribed to, besides its bytes: here and in the dispatcher's index.
pub(super) const NAME: usize = 320;
/// Of a resource that the client holds, besides the bytes of its name and version.
pub(super) const HELD: usize = 200;
/// Of one more reference to a name.
pub(super) const MARK: usize = 48;
/// Bytes of a version that the translation makes.
const VERSION: usize = 24;

/// The bytes that one stream may take.
#[derive(Debug)]
pub(super) struct Budget {
    own: usize,
    /// As it was when it last did not suffice.
    granted: usize,
}

impl Budget {
    /// `own`: bytes whatever there is in the mesh.
    pub(super) fn new(own: usize) -> Self {
        Budget { own, granted: own }
    }

    pub(super) fn granted(&self) -> usize {
        self.granted
    }

    /// Whether so many bytes are within the budget. Everything in the view is counted only when
    /// they are not within what was granted before.
    pub(super) fn allows(&mut self, bytes: usize, view: &dyn View) -> bool {
        if bytes > self.granted {
            let whole = state(view.extent());
            self.granted = self.granted.max(self.own.saturating_add(whole));
        }
        bytes <= self.granted
    }
}

/// What a client takes that subscribes to everything by name, and holds it.
fn state(everything: Extent) -> usize {
    let Extent {
        resources,
        name_bytes,
    } = everything;
    resources * (NAME + HELD + VERSION) + 2 * name_bytes
}
