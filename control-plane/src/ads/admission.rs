//! Limits of connections to the gRPC port. Sans-IO.
//!
//! A peer without a certificate of the mesh (joining, or in its handshake) holds a permit of a
//! separate pool for at most 30 s; one source may hold half of that pool. When either bound is
//! reached, the oldest such connection is closed. So connections with a certificate are always
//! admitted up to their own limits and are never displaced. A source is refused only when
//! connections with a certificate hold all of its permits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Connections in their handshake, or without a certificate, at most.
const UNVERIFIED: usize = 2048;
/// They hold at most 1/`PART` of the descriptors, whatever the limit above.
const PART: u64 = 4;
/// A /64 of IPv6 counts as one source. It may be one host or a whole network, so it has the permits
/// of this many IPv4 addresses.
const NETWORK: usize = 4;

/// What connections to the gRPC port may take up.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections of peers with a certificate.
    pub verified: usize,
    /// Connections in their handshake, or without a certificate; half of them from one source.
    pub unverified: usize,
    /// Connections from one source address, whatever their identity; a /64 has [`NETWORK`] times
    /// as many.
    pub of_address: usize,
    /// How long a connection may be open: then GOAWAY, and after [`Self::grace`] its end.
    pub age: Duration,
}

impl ConnectionLimits {
    /// How many connections without a certificate there may be, with so many open files.
    pub fn unverified_of(files: u64) -> usize {
        usize::try_from(files / PART).map_or(UNVERIFIED, |part| part.clamp(2, UNVERIFIED))
    }

    fn of_source(&self, source: IpAddr) -> usize {
        match source {
            IpAddr::V4(_) => self.of_address,
            IpAddr::V6(_) => self.of_address.saturating_mul(NETWORK),
        }
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
    #[error("too many connections; raise --max-streams or add a replica")]
    Full,
}

impl Refused {
    /// For the metric.
    pub fn label(self) -> &'static str {
        match self {
            Refused::Address => "address",
            Refused::Full => "full",
        }
    }
}

/// Connections of one source.
#[derive(Default)]
struct OfSource {
    verified: usize,
    /// By age.
    unverified: BTreeSet<u64>,
}

impl OfSource {
    fn all(&self) -> usize {
        self.verified + self.unverified.len()
    }
}

#[derive(Default)]
struct OpenConnections {
    /// By age; dropping the sender ends the connection.
    unverified: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    verified: usize,
    by_source: HashMap<IpAddr, OfSource>,
    next: u64,
}

impl OpenConnections {
    /// Ends a connection without a certificate, or takes it off the list if it has ended. A
    /// displaced connection is not counted from here on, although its task ends a little later.
    fn end_unverified(&mut self, id: u64) {
        let Some((source, _)) = self.unverified.remove(&id) else {
            return;
        };
        if let Some(of) = self.by_source.get_mut(&source) {
            of.unverified.remove(&id);
        }
        self.forget_empty(source);
    }

    fn forget_empty(&mut self, source: IpAddr) {
        if self.by_source.get(&source).is_some_and(|of| of.all() == 0) {
            self.by_source.remove(&source);
        }
    }
}

/// See the module.
pub struct Admission {
    limits: ConnectionLimits,
    open: Mutex<OpenConnections>,
}

/// A connection's permit, given back when dropped.
pub struct ConnectionPermit {
    admission: Arc<Admission>,
    source: IpAddr,
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

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a peer that has not shown a certificate yet.
    ///
    /// # Errors
    /// When proxies with a certificate have all permits of its address.
    pub fn enter(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<(ConnectionPermit, Displaced), Refused> {
        let source = source(address);
        let mut open = self.lock();
        if let Some(of) = open.by_source.get(&source) {
            let full = of.all() >= self.limits.of_source(source);
            if full || of.unverified.len() >= self.limits.unverified / 2 {
                let oldest = of.unverified.first().copied();
                open.end_unverified(oldest.ok_or(Refused::Address)?);
            }
        }
        if open.unverified.len() >= self.limits.unverified
            && let Some(oldest) = open.unverified.keys().next().copied()
        {
            open.end_unverified(oldest);
        }
        let id = open.next;
        open.next += 1;
        let (keep, displaced) = oneshot::channel();
        open.unverified.insert(id, (source, keep));
        let of = open.by_source.entry(source).or_default();
        of.unverified.insert(id);
        let permit = ConnectionPermit {
            admission: Arc::clone(self),
            source,
            unverified: Some(id),
        };
        Ok((permit, displaced))
    }

    /// Open connections: with a certificate, and without.
    pub fn open(&self) -> (usize, usize) {
        let open = self.lock();
        (open.verified, open.unverified.len())
    }
}

impl ConnectionPermit {
    /// The peer has shown a certificate of this mesh: nothing displaces it from here on.
    ///
    /// # Errors
    /// When as many such connections as may be are open.
    pub fn verified(&mut self) -> Result<(), Refused> {
        let Some(id) = self.unverified else {
            return Ok(());
        };
        let limits = self.admission.limits;
        let mut open = self.admission.lock();
        if open.verified >= limits.verified {
            return Err(Refused::Full);
        }
        // If it was displaced just now, another proxy may have taken its permit.
        let of = open.by_source.entry(self.source).or_default();
        if of.verified >= limits.of_source(self.source) {
            return Err(Refused::Address);
        }
        of.verified += 1;
        open.verified += 1;
        open.end_unverified(id);
        self.unverified = None;
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        match self.unverified {
            Some(id) => open.end_unverified(id),
            None => {
                open.verified -= 1;
                if let Some(of) = open.by_source.get_mut(&self.source) {
                    of.verified -= 1;
                }
                open.forget_empty(self.source);
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
        // A verified connection is not in the pool any more: its sender is gone, and nothing reads
        // the receiver.
        let _ = proxy_displaced.try_recv();
        drop(silent);
        assert_eq!(admission.open(), (1, 0));
        drop(proxy);
        assert_eq!(admission.open(), (0, 0));
        assert!(admission.lock().by_source.is_empty());
    }

    fn is_displaced((_, displaced): &mut (ConnectionPermit, Displaced)) -> bool {
        displaced.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn silent_peers_of_a_source_keep_no_proxy_of_it_out() {
        let admission = admission(10, 5000);
        let ip = |n: usize| -> IpAddr {
            let host = u16::try_from(n % 7).unwrap();
            Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, host, 1).into()
        };
        let enter = |n: usize| admission.enter(ip(n)).unwrap();
        let mut elsewhere = admission.enter(address(1)).unwrap();
        let (mut connected, _keep) = enter(0);
        connected.verified().unwrap();
        let mut silent: Vec<_> = (0..UNVERIFIED / 2).map(enter).collect();
        let (mut proxy, _keep) = enter(3);
        assert!(is_displaced(&mut silent[0]) && !is_displaced(&mut silent[1]));
        assert!(!is_displaced(&mut elsewhere));
        // However many come while it shakes hands, up to its source's share.
        silent.extend((1..UNVERIFIED / 2).map(enter));
        proxy.verified().unwrap();
        assert_eq!(admission.open(), (2, UNVERIFIED / 2));
        drop((silent, connected, proxy, elsewhere));
        assert!(admission.lock().by_source.is_empty());
        assert_eq!(admission.open(), (0, 0));
    }

    #[test]
    fn one_source_is_bounded_and_so_is_the_mesh() {
        let admission = admission(100, 3);
        let enter = |ip: IpAddr| admission.enter(ip);
        let proxy = |ip: IpAddr| {
            let (mut permit, _) = enter(ip).unwrap();
            permit.verified().map(|()| permit)
        };
        let mut silent = enter(address(1)).unwrap();
        let mut permits: Vec<_> = (0..3).map(|_| proxy(address(1)).unwrap()).collect();
        assert!(is_displaced(&mut silent));
        assert_eq!(enter(address(1)).err(), Some(Refused::Address));
        let mapped: IpAddr = "::ffff:0.0.0.1".parse().unwrap();
        assert_eq!(enter(mapped).err(), Some(Refused::Address));
        // Displaced during its handshake; connections with a certificate hold all permits by now.
        assert_eq!(silent.0.verified(), Err(Refused::Address));
        drop(silent);
        assert!(enter(address(2)).is_ok());
        for host in 0..12u16 {
            let ip = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, host, host);
            permits.push(proxy(ip.into()).unwrap());
        }
        let neighbour: IpAddr = "fd00:0:0:1:ffff::9".parse().unwrap();
        assert_eq!(enter(neighbour).err(), Some(Refused::Address));
        assert!(enter("fd00:0:0:2::9".parse().unwrap()).is_ok());
        permits.remove(0);
        assert!(proxy(address(1)).is_ok());
    }

    #[test]
    fn connections_with_a_certificate_are_bounded_in_all() {
        let admission = admission(2, 10);
        let mut permits: Vec<_> = (0..3)
            .map(|n| admission.enter(address(n)).unwrap().0)
            .collect();
        permits[0].verified().unwrap();
        permits[1].verified().unwrap();
        assert_eq!(permits[2].verified(), Err(Refused::Full));
        permits.remove(0);
        assert_eq!(permits[1].verified(), Ok(()));
    }
}
