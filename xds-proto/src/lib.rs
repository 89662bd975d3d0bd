//! What crosses a process boundary in Anyam.
