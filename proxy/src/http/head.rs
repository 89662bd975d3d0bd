//! The head of a message.

/// A well-known header's small number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderId {
    Other,
}
