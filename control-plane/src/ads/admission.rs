//! Limits of connections to the gRPC port. Sans-IO.
//!
//! A peer without a certificate of the mesh (it may be about to join) has a place for moments, in a
//! pool of its own: when that is full, the oldest such connection makes room. So whatever such
//! peers do, proxies with a certificate come in, and none that is connected is displaced.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Connections in their handshake, or without a certificate, at most.
const UNVERIFIED: usize = 2048;
/// They have at most this part of the descriptors, whatever their number.
const PART: u64 = 4;

/// What connections to the gRPC port may take up.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections of peers with a certificate.
    pub verified: usize,
    /// Connections in their handshake, or without a certificate; half of them from one address.
    pub unverified: usize,
    /// Connections from one source address, whatever their identity.
    pub of_address: usize,
    /// How long a connection may be open: then GOAWAY, and after [`Self::grace`] its end.
    pub age: Duration,
}

impl ConnectionLimits {
    /// How many connections without a certificate there may be, with so many open files.
    pub fn unverified_of(files: u64) -> usize {
        usize::try_from(files / PART).map_or(UNVERIFIED, |part| part.clamp(2, UNVERIFIED))
    }

    /// Time between GOAWAY and the end: its streams move to another connection, not all at once.
    pub fn grace(&self) -> Duration {
        (self.age / 10).max(Duration::from_secs(1))
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("too many connections from this address; raise --max-connections-per-address")]
    Address,
    #[error("too many connections without a certificate from this address")]
    UnverifiedOfAddress,
    #[error("too many connections; raise --max-streams or add a replica")]
    Full,
}

impl Refused {
    /// For the metric.
    pub fn label(self) -> &'static str {
        match self {
            Refused::Address => "address",
            Refused::UnverifiedOfAddress => "unverified",
            Refused::Full => "full",
        }
    }
}

#[derive(Default)]
struct OfAddress {
    all: usize,
    unverified: usize,
}

#[derive(Default)]
struct Open {
    /// By age; dropping the sender ends the connection.
    unverified: BTreeMap<u64, oneshot::Sender<()>>,
    verified: usize,
    by_address: HashMap<IpAddr, OfAddress>,
    next: u64,
}

/// See the module.
pub struct Admission {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

/// A connection's place, given back when dropped.
pub struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
    /// `None`: verified.
    unverified: Option<u64>,
}

/// What counts as one source: an IPv4 address, or a /64, of which a host of IPv6 has all.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

/// Resolves when the connection must make room for another.
pub type Displaced = oneshot::Receiver<()>;

impl Admission {
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Admission {
            limits,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a peer of which nothing is known yet.
    ///
    /// # Errors
    /// When its address has as many as it may.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<(Place, Displaced), Refused> {
        let address = source(address);
        let mut open = self.lock();
        let of = open.by_address.entry(address).or_default();
        let refused = match () {
            () if of.all >= self.limits.of_address => Some(Refused::Address),
            () if of.unverified >= self.limits.unverified / 2 => Some(Refused::UnverifiedOfAddress),
            () => None,
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
        of.all += 1;
        of.unverified += 1;
        if open.unverified.len() >= self.limits.unverified {
            // Its place is given back when its task has noticed.
            open.unverified.pop_first();
        }
        let id = open.next;
        open.next += 1;
        let (keep, displaced) = oneshot::channel();
        open.unverified.insert(id, keep);
        let place = Place {
            admission: Arc::clone(self),
            address,
            unverified: Some(id),
        };
        Ok((place, displaced))
    }

    /// Open connections: with a certificate, and without.
    pub fn open(&self) -> (usize, usize) {
        let open = self.lock();
        (open.verified, open.unverified.len())
    }
}

impl Place {
    /// The peer has shown a certificate of this mesh: nothing displaces it from here on.
    ///
    /// # Errors
    /// When as many such connections as may be are open.
    pub fn verified(&mut self) -> Result<(), Refused> {
        let mut open = self.admission.lock();
        if open.verified >= self.admission.limits.verified {
            return Err(Refused::Full);
        }
        if let Some(id) = self.unverified.take() {
            open.verified += 1;
            open.unverified.remove(&id);
            if let Some(of) = open.by_address.get_mut(&self.address) {
                of.unverified -= 1;
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        match self.unverified {
            Some(id) => drop(open.unverified.remove(&id)),
            None => open.verified -= 1,
        }
        if let Some(of) = open.by_address.get_mut(&self.address) {
            of.all -= 1;
            of.unverified -= usize::from(self.unverified.is_some());
            if of.all == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(verified: usize, of_address: usize) -> Arc<Admission> {
        Admission::new(ConnectionLimits {
            verified,
            unverified: UNVERIFIED,
            of_address,
            age: Duration::from_secs(3600),
        })
    }

    fn address(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    #[test]
    fn the_oldest_without_a_certificate_makes_room_and_no_other() {
        let admission = admission(10, 5000);
        let (mut proxy, mut proxy_displaced) = admission.enter(address(1)).unwrap();
        proxy.verified().unwrap();
        let mut silent: Vec<_> = (0..UNVERIFIED + 1)
            .map(|n| admission.enter(address(n / 1000 + 2)).unwrap())
            .collect();
        assert!(
            silent[0]
                .1
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        assert!(
            silent[1]
                .1
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
        );
        assert_eq!(admission.open(), (1, UNVERIFIED));
        // Verified: its sender went with its place in the pool, and is not looked at any more.
        let _ = proxy_displaced.try_recv();
        drop(silent);
        assert_eq!(admission.open(), (1, 0));
        drop(proxy);
        assert_eq!(admission.open(), (0, 0));
        assert!(admission.lock().by_address.is_empty());
    }

    #[test]
    fn an_address_has_its_bound_and_the_mesh_its_own() {
        let admission = admission(2, 3);
        let mut places: Vec<_> = (0..3)
            .map(|_| admission.enter(address(1)).unwrap().0)
            .collect();
        assert_eq!(admission.enter(address(1)).err(), Some(Refused::Address));
        let mapped: IpAddr = "::ffff:0.0.0.1".parse().unwrap();
        assert_eq!(admission.enter(mapped).err(), Some(Refused::Address));
        assert!(admission.enter(address(2)).is_ok());
        for host in 1..4u16 {
            let ip = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, host, host);
            places.push(admission.enter(ip.into()).unwrap().0);
        }
        let neighbour: IpAddr = "fd00:0:0:1:ffff::9".parse().unwrap();
        assert_eq!(admission.enter(neighbour).err(), Some(Refused::Address));
        assert!(admission.enter("fd00:0:0:2::9".parse().unwrap()).is_ok());
        places[0].verified().unwrap();
        places[1].verified().unwrap();
        assert_eq!(places[2].verified(), Err(Refused::Full));
        places.remove(0);
        assert_eq!(places[1].verified(), Ok(()));
    }
}
