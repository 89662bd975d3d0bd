//! What crosses a process boundary in Anyam.

pub mod inspect;
