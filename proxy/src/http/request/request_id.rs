//! `x-request-id`: kept when it comes from inside the mesh, otherwise generated.

use crate::config::http::HttpConnectionManager;
use crate::message::head::{Head, HeaderId};

pub(super) fn request_id(head: &mut Head, manager: &HttpConnectionManager) {
    let from_outside = manager.use_remote_address && !manager.preserve_external_request_id;
    let keep = head.has(HeaderId::XRequestId) && !from_outside;
    if manager.generate_request_id && !keep {
        head.set(HeaderId::XRequestId, &uuid());
    }
}

/// A random (version 4) UUID. It identifies a request and need not be secret.
fn uuid() -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bits = fastrand::u128(..);
    bits = bits & !(0xf << 76) | 4 << 76;
    bits = bits & !(0x3 << 62) | 2 << 62;
    let mut text = [b'-'; 36];
    for (at, slot) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            bits = bits.rotate_left(4);
            *slot = HEX.get(bits as usize & 0xf).copied().unwrap_or(b'0');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_version_4_uuids() {
        let (first, second) = (uuid(), uuid());
        assert_ne!(first, second);
        assert_eq!(first[14], b'4');
        assert!(matches!(first[19], b'8' | b'9' | b'a' | b'b'));
        let dashes = first.iter().filter(|b| **b == b'-').count();
        assert_eq!((dashes, first[8], first[23]), (4, b'-', b'-'));
    }
}
