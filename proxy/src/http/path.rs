//! Path normalisation.

/// How paths are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {}
