//! Disjoint ranges of ports or addresses, as the kernel requires of a set's elements.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Disjoint ranges in ascending order, both ends included; no two are adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// Merges ranges that overlap or are adjacent: the kernel refuses sets with overlaps.
    pub fn merged(ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut all: Vec<_> = ranges.into_iter().collect();
        all.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                Some((_, end)) if end.checked_add(1).is_none_or(|next| first <= next) => {
                    *end = last.max(*end);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// The union of both.
    pub fn and(&self, other: &Self) -> Self {
        Self::merged(self.iter().chain(other.iter()))
    }

    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As nft writes IPv4 addresses, prefixes and ranges.
    pub fn ipv4_text(&self) -> impl Iterator<Item = String> {
        self.iter()
            .map(|range| text(range, 32, |number| ipv4(number).to_string()))
    }

    /// As nft writes IPv6 addresses, prefixes and ranges.
    pub fn ipv6_text(&self) -> impl Iterator<Item = String> {
        self.iter()
            .map(|range| text(range, 128, |number| ipv6(number).to_string()))
    }
}

/// The address with this number, of which only the last 32 bits count.
pub fn ipv4(number: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(number as u32)
}

pub fn ipv6(number: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(number)
}

fn text((first, last): (u128, u128), width: u32, address: impl Fn(u128) -> String) -> String {
    // A prefix varies in its last bits only: all zeros at the beginning, all ones at the end.
    let differing = first ^ last;
    let bits = width - (128 - differing.leading_zeros());
    let is_prefix = differing & differing.wrapping_add(1) == 0 && first & differing == 0;
    match (is_prefix, first == last) {
        (_, true) => address(first),
        (true, false) => format!("{}/{bits}", address(first)),
        (false, false) => format!("{}-{}", address(first), address(last)),
    }
}
