//! What differs between two states of the mesh.

use super::read::Object;

/// An object before and after a change; never `None` on both sides.
#[derive(Clone, Debug)]
pub struct Change {
    pub before: Option<Object>,
    pub after: Option<Object>,
}

impl Change {
    /// Something else changed for this object.
    pub fn of(object: &Object) -> Self {
        let same = Some(object.clone());
        Change {
            before: same.clone(),
            after: same,
        }
    }
}
