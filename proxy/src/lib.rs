//! The Anyam sidecar proxy.
