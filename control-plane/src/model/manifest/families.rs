//! Address families of a Service or workload.

use std::net::IpAddr;

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
