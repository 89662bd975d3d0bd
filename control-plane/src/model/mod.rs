//! What the mesh is.
//!
//! - [`manifest`]: what users write, one typed object a manifest
//! - [`mesh`]: all objects joined, indexed, immutable; the next state from the last

pub mod manifest;
pub mod mesh;

pub use manifest::object::{Key, Kind, ObjectId};
pub use manifest::read::Object;
pub use mesh::{Mesh, MeshOptions};
