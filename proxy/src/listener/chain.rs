//! Which filter chain a connection gets, in Envoy's order of evaluation: at each step the chains
//! that match most specifically stay, those without the criterion only if there is none; dropped
//! chains are not considered again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::cidr::Cidr;
use crate::config::listener::{
    ChainMatch, FilterChain, ListenerDef, SourceType, TransportProtocol,
};
use crate::policy::DetectedProtocol;

/// The facts of a connection by which its chain is chosen.
pub struct ChainMatchInput<'a> {
    pub destination: SocketAddr,
    pub source: SocketAddr,
    pub protocol: &'a DetectedProtocol,
}

type Candidates<'a> = SmallVec<[&'a Arc<FilterChain>; 16]>;

/// The chain for a connection; `None`: none matches, and there is no default.
pub fn choose<'a>(
    listener: &'a ListenerDef,
    facts: &ChainMatchInput<'_>,
) -> Option<&'a Arc<FilterChain>> {
    let mut candidates: Candidates<'a> = listener.chains.iter().collect();
    for step in STEPS {
        narrow(&mut candidates, |matches| step(matches, facts));
    }
    candidates
        .first()
        .copied()
        .or(listener.default_chain.as_ref())
}

/// How specifically one criterion of a chain matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// The chain does not have the criterion.
    NoCriterion,
    /// The criterion matches; higher is more specific.
    Yes(u16),
}

fn narrow(candidates: &mut Candidates<'_>, fit: impl Fn(&ChainMatch) -> Fit) {
    let best = candidates
        .iter()
        .map(|chain| fit(&chain.matches))
        .max()
        .unwrap_or(Fit::No);
    candidates.retain(|chain| best != Fit::No && fit(&chain.matches) == best);
}

const STEPS: [fn(&ChainMatch, &ChainMatchInput<'_>) -> Fit; 9] = [
    |m, f| {
        asked(
            m.destination_port.is_some(),
            m.destination_port == Some(f.destination.port()),
        )
    },
    |m, f| prefix(&m.prefix_ranges, f.destination.ip()),
    |m, f| server_name(&m.server_names, f.protocol),
    |m, f| match m.transport_protocol {
        None => Fit::NoCriterion,
        Some(wanted) => asked(true, wanted == transport(f.protocol)),
    },
    |m, f| application_protocol(&m.application_protocols, f.protocol),
    |m, f| prefix(&m.direct_source_prefix_ranges, f.source.ip()),
    |m, f| match m.source_type {
        SourceType::Any => Fit::NoCriterion,
        SourceType::SameIpOrLoopback => asked(true, is_local(f)),
        SourceType::External => asked(true, !is_local(f)),
    },
    |m, f| prefix(&m.source_prefix_ranges, f.source.ip()),
    |m, f| {
        asked(
            !m.source_ports.is_empty(),
            m.source_ports.contains(&f.source.port()),
        )
    },
];

fn asked(asks: bool, matches: bool) -> Fit {
    match (asks, matches) {
        (false, _) => Fit::NoCriterion,
        (true, true) => Fit::Yes(0),
        (true, false) => Fit::No,
    }
}

fn prefix(ranges: &[Cidr], ip: IpAddr) -> Fit {
    if ranges.is_empty() {
        return Fit::NoCriterion;
    }
    let longest = ranges
        .iter()
        .filter(|range| range.contains(ip))
        .map(|range| range.bits)
        .max();
    longest.map_or(Fit::No, |bits| Fit::Yes(bits.into()))
}

fn server_name(names: &[Box<str>], protocol: &DetectedProtocol) -> Fit {
    if names.is_empty() {
        return Fit::NoCriterion;
    }
    let DetectedProtocol::Tls(hello) = protocol else {
        return Fit::No;
    };
    let Some(sni) = hello.sni.as_deref() else {
        return Fit::No;
    };
    let fit = |name: &str| match name.strip_prefix('*') {
        // Longer suffixes win; an exact name wins over all.
        Some(suffix) if sni.len() > suffix.len() && sni.ends_with(suffix) => {
            Fit::Yes(u16::try_from(suffix.len()).unwrap_or(u16::MAX - 1))
        }
        None if name == sni => Fit::Yes(u16::MAX),
        _ => Fit::No,
    };
    names.iter().map(|name| fit(name)).max().unwrap_or(Fit::No)
}

fn transport(protocol: &DetectedProtocol) -> TransportProtocol {
    match protocol {
        DetectedProtocol::Tls(_) => TransportProtocol::Tls,
        _ => TransportProtocol::RawBuffer,
    }
}

fn application_protocol(wanted: &[Box<[u8]>], protocol: &DetectedProtocol) -> Fit {
    if wanted.is_empty() {
        return Fit::NoCriterion;
    }
    let has = |name: &[u8]| wanted.iter().any(|wanted| **wanted == *name);
    let found = match protocol {
        DetectedProtocol::Tls(hello) => hello.alpn.iter().position(|name| has(name)),
        DetectedProtocol::Http11 => has(b"http/1.1").then_some(0),
        DetectedProtocol::Http10 => has(b"http/1.0").then_some(0),
        DetectedProtocol::Http2 => has(b"h2c").then_some(0),
        DetectedProtocol::Tcp => None,
    };
    // The client's preference wins.
    found.map_or(Fit::No, |at| {
        Fit::Yes(u16::MAX.saturating_sub(u16::try_from(at).unwrap_or(u16::MAX)))
    })
}

fn is_local(facts: &ChainMatchInput<'_>) -> bool {
    let source = facts.source.ip().to_canonical();
    source.is_loopback() || source == facts.destination.ip().to_canonical()
}
