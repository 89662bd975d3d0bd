//! Hashes by which requests choose endpoints. They equal Envoy's, so that proxies of both kinds send
//! a key to the same endpoint. Sources: xxHash64 and MurmurHash64A, as in Envoy's ring hash and
//! Maglev policies.

use std::io::Write;
use std::net::IpAddr;

use smallvec::SmallVec;
use twox_hash::XxHash64;

/// Envoy's seed of MurmurHash, that of libstdc++.
const MURMUR_SEED: u64 = 0xc70f_6907;
const MURMUR_FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
/// The longest text of an address: IPv6 with an IPv4 address at its end.
const LONGEST_IP: usize = 45;

/// xxHash64.
pub fn xx(bytes: &[u8], seed: u64) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

/// xxHash64 of each in turn, with the hash of those before as its seed.
pub fn xx_all<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> u64 {
    parts.into_iter().fold(0, |seed, part| xx(part, seed))
}

/// A client's address, without its port. Envoy hashes the text of an address.
pub fn source_ip(ip: IpAddr) -> u64 {
    let mut text = SmallVec::<[u8; LONGEST_IP]>::new();
    // Writing to memory cannot fail.
    let _ = write!(text, "{ip}");
    xx(&text, 0)
}

/// MurmurHash64A.
pub fn murmur(bytes: &[u8]) -> u64 {
    let mix = |value: u64| value ^ (value >> 47);
    let length = bytes.len() as u64;
    let mut hash = MURMUR_SEED ^ length.wrapping_mul(MURMUR_FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(MURMUR_FACTOR);
        hash ^= mix(word).wrapping_mul(MURMUR_FACTOR);
        hash = hash.wrapping_mul(MURMUR_FACTOR);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev();
        hash ^= last.fold(0, |word, byte| (word << 8) | u64::from(*byte));
        hash = hash.wrapping_mul(MURMUR_FACTOR);
    }
    mix(mix(hash).wrapping_mul(MURMUR_FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xxHash64's published values; MurmurHash's are those that `std::hash<std::string>` of
    /// libstdc++ gives.
    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(xx(b"", 0), 0xef46_db37_51d8_e999);
        assert_eq!(xx(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xx(b"abc", 0), 0x44bc_2cf5_ad77_0999);
        assert_eq!(xx_all([b"a".as_slice(), b"bc"]), xx(b"bc", xx(b"a", 0)));
        assert_eq!(source_ip([10, 0, 0, 1].into()), xx(b"10.0.0.1", 0));
        for (text, hash) in [
            ("", 0x553e_9390_1e46_2a6e),
            ("a", 0x454d_dee4_88c1_ed6b),
            ("abcdefgh", 0x783d_b3e3_8db8_98bb),
            ("10.0.0.1:80_17", 0x3d93_8892_823c_2ba7),
        ] {
            assert_eq!(murmur(text.as_bytes()), hash, "{text}");
        }
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(source_ip(v6), xx(b"2001:db8::1", 0));
    }
}
