//! What the mesh is: typed objects and what follows from them together.
//!
//! - [`object`], [`values`]: what all objects share; values checked while they are read
//! - [`service`], [`workload`], [`route`] (read by [`route_spec`],
//!   [`match_spec`], [`filter_spec`]),
//!   [`authorization`], [`policy`], [`grant`]: the objects; [`read`]: a manifest into one of them
//! - [`vip`]: addresses for services that were given none
//! - [`mesh`]: an immutable state of everything, indexed; [`attach`]: which route governs which
//!   service; [`join`]: which workloads it selects;
//!   [`builder`]: the next state from the last, and the [`change`]s between; [`leaving`]: what outlives a change for a moment
//! - [`status`]: conditions of objects

pub mod manifest;
pub mod mesh;

pub use manifest::object::{Key, Kind, ObjectId};
pub use manifest::read::Object;
pub use mesh::{Mesh, MeshOptions};
