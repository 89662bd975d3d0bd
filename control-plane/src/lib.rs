//! The Anyam control plane.
