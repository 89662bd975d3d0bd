//! `::6` on the loopback interface: the source of the proxy's deliveries to the app over IPv6.
//!
//! Of IPv4, all of 127.0.0.0/8 is on the interface; of IPv6 only `::1`.

use std::io;
use std::net::Ipv6Addr;

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_CREATE, NLM_F_EXCL, NetlinkDeserializable, NetlinkHeader,
    NetlinkPayload, NetlinkSerializable,
};

use super::netlink::{Netlink, NetlinkError};

const DELIVERY: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
/// Index of the loopback interface, which is the first in every network namespace.
const LOOPBACK: u32 = 1;
/// The addresses of all interfaces, one a line: address, index, prefix length, scope, flags and
/// name.
const ADDRESSES: &str = "/proc/net/if_inet6";

/// Whether IPv6 is enabled on the namespace's loopback interface.
pub fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        .is_ok_and(|disabled| disabled.trim() == "0")
}

/// Whether the interface has the address.
///
/// # Errors
/// When the list of addresses cannot be read.
pub fn is_there() -> io::Result<bool> {
    let number = format!("{:032x}", DELIVERY.to_bits());
    let all = std::fs::read_to_string(ADDRESSES)?;
    Ok(all.lines().any(|line| line.starts_with(&number)))
}

/// Adds the address; returns whether it was absent before.
///
/// # Errors
/// When the kernel refuses.
pub fn add() -> Result<bool, NetlinkError> {
    let route = Netlink::open(libc::NETLINK_ROUTE)?;
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    match route.acknowledged(AddressMessage(libc::RTM_NEWADDR), flags) {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused { error, .. }) if error.raw_os_error() == Some(libc::EEXIST) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Removes the address, if the interface has it.
///
/// # Errors
/// When the kernel refuses.
pub fn remove() -> Result<(), NetlinkError> {
    let route = Netlink::open(libc::NETLINK_ROUTE)?;
    match route.acknowledged(AddressMessage(libc::RTM_DELADDR), 0) {
        Err(NetlinkError::Refused { error, .. })
            if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

/// RTM_NEWADDR or RTM_DELADDR of [`DELIVERY`] (rtnetlink(7)).
struct AddressMessage(u16);

impl AddressMessage {
    /// `struct ifaddrmsg`: family, prefix length, flags, scope (host), index.
    fn header() -> [u8; 8] {
        let [a, b, c, d] = LOOPBACK.to_ne_bytes();
        let family = libc::AF_INET6 as u8;
        [family, 128, 0, libc::RT_SCOPE_HOST, a, b, c, d]
    }

    fn attributes() -> [DefaultNla; 1] {
        let address = DELIVERY.octets().to_vec();
        [DefaultNla::new(libc::IFA_LOCAL, address)]
    }
}

impl NetlinkSerializable for AddressMessage {
    fn message_type(&self) -> u16 {
        self.0
    }

    fn buffer_len(&self) -> usize {
        Self::header().len() + Self::attributes().as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let header = Self::header();
        if let Some((start, rest)) = buffer.split_at_mut_checked(header.len()) {
            start.copy_from_slice(&header);
            Self::attributes().as_slice().emit(rest);
        }
    }
}

impl NetlinkDeserializable for AddressMessage {
    type Error = io::Error;

    /// Only acknowledgements are received, which netlink itself defines.
    fn deserialize(header: &NetlinkHeader, _payload: &[u8]) -> io::Result<Self> {
        Ok(Self(header.message_type))
    }
}

impl From<AddressMessage> for NetlinkPayload<AddressMessage> {
    fn from(message: AddressMessage) -> Self {
        NetlinkPayload::InnerMessage(message)
    }
}
