//! Address families of a Service or workload.

use std::net::IpAddr;

use serde::Deserialize;

/// An entry of `ipFamilies` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum IpFamily {
    IPv4,
    IPv6,
}

/// A set of address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    pub const V4: Self = Families {
        v4: true,
        v6: false,
    };
    pub const BOTH: Self = Families { v4: true, v6: true };

    /// Those of a list; both if it is empty.
    pub fn listed(list: &[IpFamily]) -> Self {
        Families {
            v4: list.is_empty() || list.contains(&IpFamily::IPv4),
            v6: list.is_empty() || list.contains(&IpFamily::IPv6),
        }
    }

    pub fn of(addresses: &[IpAddr]) -> Self {
        Families {
            v4: addresses.iter().any(IpAddr::is_ipv4),
            v6: addresses.iter().any(IpAddr::is_ipv6),
        }
    }

    pub fn have(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}
