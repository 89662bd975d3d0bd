//! Limits of connections to the gRPC port. Sans-IO.
//!
//! A peer without a certificate of the mesh (joining, or in its handshake) holds a permit of a
//! separate pool for at most 30 s; one source may hold half of that pool. When either bound is
//! reached, the oldest such connection is closed. So connections with a certificate are always
//! admitted up to their own limits and are never displaced by others. A source is refused only when
//! connections with a certificate hold all of its permits.
//!
//! One certificate is good for any number of connections, from any number of addresses. So each
//! [`Holder`] has a limit, too, and beyond it the oldest of its own connections is closed: a
//! workload's key, stolen or not, does not take the permits of other workloads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::identity::{Identity, Peer, VerifiedPeer};

/// Connections in their handshake, or without a certificate, at most.
const UNVERIFIED: usize = 2048;
/// They hold at most 1/`PART` of the descriptors, whatever the limit above.
const PART: u64 = 4;
/// A /64 of IPv6 counts as one source. It may be one host or a whole network, so it has the permits
/// of this many IPv4 addresses.
const NETWORK: usize = 4;
/// Connections of one workload at most. Its proxy has one or two, and as many again while it
/// restarts or while they reach their age.
pub const OF_WORKLOAD: usize = 32;

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

    /// A certificate without a workload may be that of a whole Deployment, so it has more, but never
    /// all connections.
    fn of_holder(&self, holder: &Holder) -> usize {
        let half = (self.verified / 2).max(1);
        match holder {
            Holder::Workload(..) => half.min(OF_WORKLOAD),
            Holder::Identity(_) => half,
            Holder::Plaintext => usize::MAX,
        }
    }

    /// Time between GOAWAY and the end: its streams move to another connection, not all at once.
    pub fn grace(&self) -> Duration {
        self.age.div_f64(10.0).max(Duration::from_secs(1))
    }
}

/// Who has a connection whose peer is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The workload that a certificate names, under its identity. Workloads of one service account
    /// are different ones.
    Workload(Identity, String),
    /// All that have a certificate of this identity which names no workload.
    Identity(Identity),
    /// Clients of the plaintext port.
    Plaintext,
}

impl Holder {
    /// `None`: the peer has no certificate.
    pub fn of(peer: &Peer) -> Option<Self> {
        match &peer.verified {
            Some(VerifiedPeer {
                identity, workload, ..
            }) => Some(match workload.is_empty() {
                true => Holder::Identity(identity.clone()),
                false => Holder::Workload(identity.clone(), workload.clone()),
            }),
            None => peer.insecure.then_some(Holder::Plaintext),
        }
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
        self.verified.saturating_add(self.unverified.len())
    }
}

/// Connections by age, with their source; dropping the sender ends the connection.
type ByAge = BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>;

#[derive(Default)]
struct OpenConnections {
    unverified: ByAge,
    verified: usize,
    by_holder: HashMap<Holder, ByAge>,
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

    /// The same for a connection with a certificate.
    fn end_verified(&mut self, holder: &Holder, id: u64) {
        let Some(own) = self.by_holder.get_mut(holder) else {
            return;
        };
        let Some((source, _)) = own.remove(&id) else {
            return;
        };
        if own.is_empty() {
            self.by_holder.remove(holder);
        }
        self.verified = self.verified.saturating_sub(1);
        if let Some(of) = self.by_source.get_mut(&source) {
            of.verified = of.verified.saturating_sub(1);
        }
        self.forget_empty(source);
    }

    /// Ends the oldest connection of a holder that has as many as it may.
    fn make_room(&mut self, holder: &Holder, max: usize) {
        let own = self.by_holder.get(holder);
        let oldest = own
            .filter(|own| own.len() >= max)
            .and_then(|own| own.keys().next().copied());
        if let Some(oldest) = oldest {
            self.end_verified(holder, oldest);
        }
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
    id: u64,
    /// `None`: unverified.
    holder: Option<Holder>,
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
        open.next = open.next.wrapping_add(1);
        let (keep, displaced) = oneshot::channel();
        open.unverified.insert(id, (source, keep));
        let of = open.by_source.entry(source).or_default();
        of.unverified.insert(id);
        let permit = ConnectionPermit {
            admission: Arc::clone(self),
            source,
            id,
            holder: None,
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
    /// The peer has shown a certificate of this mesh: only newer connections of `holder` displace it
    /// from here on. If the holder has as many connections as it may, its oldest is ended.
    ///
    /// # Errors
    /// When as many such connections as may be are open, in all or from this source.
    pub fn verified(&mut self, holder: Holder) -> Result<Displaced, Refused> {
        let limits = self.admission.limits;
        let mut open = self.admission.lock();
        open.make_room(&holder, limits.of_holder(&holder));
        if open.verified >= limits.verified {
            return Err(Refused::Full);
        }
        // If it was displaced just now, another proxy may have taken its permit.
        let of = open.by_source.entry(self.source).or_default();
        if of.verified >= limits.of_source(self.source) {
            return Err(Refused::Address);
        }
        of.verified = of.verified.saturating_add(1);
        open.verified = open.verified.saturating_add(1);
        open.end_unverified(self.id);
        let (keep, displaced) = oneshot::channel();
        let own = open.by_holder.entry(holder.clone()).or_default();
        own.insert(self.id, (self.source, keep));
        self.holder = Some(holder);
        Ok(displaced)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        match &self.holder {
            None => open.end_unverified(self.id),
            Some(holder) => open.end_verified(holder, self.id),
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

    fn identity() -> Identity {
        Identity::parse("spiffe://mesh.local/ns/shop/sa/web").unwrap()
    }

    /// One of many workloads of a service account.
    fn web(n: usize) -> Holder {
        Holder::Workload(identity(), format!("web-{n}"))
    }

    #[test]
    fn the_oldest_without_a_certificate_makes_room_and_no_other() {
        let admission = admission(10, 5000);
        let (mut proxy, _) = admission.enter(address(1)).unwrap();
        let mut proxy_displaced = proxy.verified(web(0)).unwrap();
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
        let open = proxy_displaced.try_recv();
        assert_eq!(open, Err(oneshot::error::TryRecvError::Empty));
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
        connected.verified(web(0)).unwrap();
        let mut silent: Vec<_> = (0..UNVERIFIED / 2).map(enter).collect();
        let (mut proxy, _keep) = enter(3);
        assert!(is_displaced(&mut silent[0]) && !is_displaced(&mut silent[1]));
        assert!(!is_displaced(&mut elsewhere));
        // However many come while it shakes hands, up to its source's share.
        silent.extend((1..UNVERIFIED / 2).map(enter));
        proxy.verified(web(1)).unwrap();
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
            let id = usize::try_from(permit.id).unwrap();
            permit.verified(web(id)).map(|_| permit)
        };
        let mut silent = enter(address(1)).unwrap();
        let mut permits: Vec<_> = (0..3).map(|_| proxy(address(1)).unwrap()).collect();
        assert!(is_displaced(&mut silent));
        assert_eq!(enter(address(1)).err(), Some(Refused::Address));
        let mapped: IpAddr = "::ffff:0.0.0.1".parse().unwrap();
        assert_eq!(enter(mapped).err(), Some(Refused::Address));
        // Displaced during its handshake; connections with a certificate hold all permits by now.
        assert_eq!(silent.0.verified(web(0)).err(), Some(Refused::Address));
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
        permits[0].verified(web(0)).unwrap();
        permits[1].verified(web(1)).unwrap();
        assert_eq!(permits[2].verified(web(2)).err(), Some(Refused::Full));
        permits.remove(0);
        assert!(permits[1].verified(web(2)).is_ok());
    }

    #[test]
    fn a_holder_displaces_its_own_oldest_wherever_that_comes_from() {
        let admission = admission(200, 50);
        let enter = |ip: IpAddr, holder: Holder| {
            let (mut permit, _) = admission.enter(ip).unwrap();
            let displaced = permit.verified(holder)?;
            Ok::<_, Refused>((permit, displaced))
        };
        let mut other = enter(address(1), web(1)).unwrap();
        let mut own: Vec<_> = (0..OF_WORKLOAD + 2)
            .map(|n| enter(address(n), web(0)).unwrap())
            .collect();
        let displaced: Vec<bool> = own.iter_mut().map(is_displaced).collect();
        assert_eq!(displaced.iter().filter(|it| **it).count(), 2);
        assert!(displaced[0] && displaced[1] && !is_displaced(&mut other));
        assert_eq!(admission.open(), (OF_WORKLOAD + 1, 0));
        // Without a workload's name it has half of all, so that others have the rest.
        let mut unnamed: Vec<_> = (0..150)
            .map(|n| enter(address(1000 + n), Holder::Identity(identity())).unwrap())
            .collect();
        assert_eq!(admission.open(), (OF_WORKLOAD + 1 + 100, 0));
        assert!(is_displaced(&mut unnamed[49]) && !is_displaced(&mut unnamed[50]));
        assert!(enter(address(2), web(2)).is_ok());
        drop((own, unnamed, other));
        assert_eq!(admission.open(), (0, 0));
        let open = admission.lock();
        assert!(open.by_source.is_empty() && open.by_holder.is_empty());
    }
}
