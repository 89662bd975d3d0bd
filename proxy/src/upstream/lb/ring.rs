//! The ring of RING_HASH (ketama): each endpoint at many points, a key goes to the next point.

use super::indices::Indices;
use crate::config::cluster::HashFunction;
use crate::upstream::hash;

/// Points in ascending order, and the endpoint at each.
pub(super) struct Ring {
    points: Box<[u64]>,
    endpoints: Indices,
}

impl Ring {
    /// `keys`: what endpoints are hashed by; `weights`: their shares of one. The least share gets a
    /// whole number of points, so that at least `minimum` come about; at most `maximum`.
    pub fn new(
        keys: &[impl AsRef<[u8]>],
        weights: &[f64],
        (minimum, maximum): (u32, u32),
        function: HashFunction,
    ) -> Self {
        let least = weights.iter().copied().fold(1.0, f64::min);
        let scale = (least * f64::from(minimum)).ceil() / least;
        let scale = scale.min(f64::from(maximum));
        let mut ring: Vec<(u64, u32)> = Vec::new();
        // Sums over all endpoints, as in Envoy: where the numbers of points are not whole, the order
        // of the endpoints decides who gets one more.
        let (mut made, mut wanted) = (0.0, 0.0);
        let mut text = Vec::new();
        let mut decimal = itoa::Buffer::new();
        for ((key, weight), endpoint) in keys.iter().zip(weights).zip(0u32..) {
            wanted += scale * weight;
            let mut number = 0u64;
            while made < wanted {
                text.clear();
                text.extend_from_slice(key.as_ref());
                text.push(b'_');
                text.extend_from_slice(decimal.format(number).as_bytes());
                let point = match function {
                    HashFunction::XxHash => hash::xx(&text, 0),
                    HashFunction::MurmurHash2 => hash::murmur(&text),
                };
                ring.push((point, endpoint));
                number = number.wrapping_add(1);
                made += 1.0;
            }
        }
        ring.sort_unstable();
        Self {
            points: ring.iter().map(|(point, _)| *point).collect(),
            endpoints: Indices::new(ring.iter().map(|(_, endpoint)| *endpoint), keys.len()),
        }
    }

    /// `attempt`: how many points further on, when the endpoints before were not acceptable.
    pub fn at(&self, key: u64, attempt: u32) -> Option<usize> {
        let next = self.points.partition_point(|point| *point < key);
        let at = next.saturating_add(usize::try_from(attempt).ok()?);
        // Beyond the last point comes the first.
        self.endpoints.get(at.checked_rem(self.points.len())?)
    }
}
