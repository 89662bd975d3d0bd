//! Zone-aware routing: requests stay in the proxy's own locality as far as its endpoints do not get
//! more requests than those of others by that. Source: Envoy's documentation of zone aware routing.

use std::sync::Arc;

use super::locality::Localities;
use crate::config::balancing::ZoneAware;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::local::LocalHosts;

/// Shares are reckoned in parts of this.
const WHOLE: u64 = 10_000;

/// How requests of the first priority are spread over its localities.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ZoneRouting {
    /// Percent of requests that it is for.
    enabled: u32,
    route: ZoneRoute,
}

#[derive(Debug, PartialEq, Eq)]
enum ZoneRoute {
    /// All to the first locality.
    Direct,
    Residual {
        /// The share that the first locality gets, of [`WHOLE`].
        first: u64,
        /// Cumulative: what localities have left for the rest.
        capacity: Box<[u64]>,
    },
}

/// Why the priority's localities make no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneObstacle {
    /// There are too few localities to choose from.
    FewLocalities,
    /// The local cluster has no endpoint in the proxy's locality.
    LocalClusterNotOk,
    /// The cluster has fewer healthy endpoints than `min_cluster_size`.
    ClusterTooSmall,
}

/// What was decided for one pick; for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneChoice {
    AllDirectly,
    Sampled,
    CrossZone,
    NoCapacityLeft,
}

impl ZoneRouting {
    /// `healthy`: endpoints of the priority by locality.
    pub fn new(
        settings: &ZoneAware,
        local: &LocalHosts,
        localities: &Localities,
        healthy: &[Vec<Arc<Endpoint>>],
    ) -> Result<Self, ZoneObstacle> {
        let few = local.localities < 2 && settings.force_local_zone.is_none();
        if localities.len() < 2 || few {
            return Err(ZoneObstacle::FewLocalities);
        }
        if !local.has_own {
            return Err(ZoneObstacle::LocalClusterNotOk);
        }
        let count = healthy.iter().map(Vec::len).fold(0, usize::saturating_add);
        if (count as u64) < settings.min_cluster_size {
            return Err(ZoneObstacle::ClusterTooSmall);
        }
        Ok(Self {
            enabled: settings.routing_enabled,
            route: route(settings, local, localities.has_own, healthy),
        })
    }

    /// The locality of a pick; `None`: any.
    pub fn choose(&self, random: &mut fastrand::Rng) -> Option<(usize, ZoneChoice)> {
        if random.u32(0..100) >= self.enabled {
            return None;
        }
        let ZoneRoute::Residual { first, capacity } = &self.route else {
            return Some((0, ZoneChoice::AllDirectly));
        };
        if random.u64(0..WHOLE) < *first {
            return Some((0, ZoneChoice::Sampled));
        }
        let total = capacity.last().copied().unwrap_or(0);
        if total == 0 {
            let any = random.usize(0..capacity.len().max(1));
            return Some((any, ZoneChoice::NoCapacityLeft));
        }
        let point = random.u64(0..total);
        let at = capacity.partition_point(|bound| *bound <= point);
        Some((at, ZoneChoice::CrossZone))
    }
}

/// `has_own`: the first locality is the proxy's own.
fn route(
    settings: &ZoneAware,
    local: &LocalHosts,
    has_own: bool,
    healthy: &[Vec<Arc<Endpoint>>],
) -> ZoneRoute {
    let count = |endpoints: &Vec<Arc<Endpoint>>| match settings.by_weight {
        true => endpoints
            .iter()
            .map(|e| u64::from(e.weight))
            .fold(0, u64::saturating_add),
        false => endpoints.len() as u64,
    };
    let total = healthy.iter().map(count).fold(0, u64::saturating_add);
    // What a locality has of all the cluster's endpoints, and what it has of the local cluster's.
    let shares = |endpoints: &Vec<Arc<Endpoint>>| {
        let Some(first) = endpoints.first() else {
            return (0, 0);
        };
        let upstream = count(endpoints).saturating_mul(WHOLE).checked_div(total);
        let local = local.share(&first.locality, settings.by_weight);
        (upstream.unwrap_or(0), local)
    };
    let shares: Vec<(u64, u64)> = healthy.iter().map(shares).collect();
    let own = shares.first().copied().filter(|_| has_own);
    if let Some((upstream, of_local)) = own {
        let healthy = healthy.first().map_or(0, Vec::len) as u64;
        let forced = settings
            .force_local_zone
            .is_some_and(|least| healthy >= least.into());
        if upstream > 0 && upstream >= of_local || forced {
            return ZoneRoute::Direct;
        }
    }
    let first =
        own.and_then(|(upstream, of_local)| upstream.saturating_mul(WHOLE).checked_div(of_local));
    let mut sum: u64 = 0;
    let left = shares
        .iter()
        .zip(0usize..)
        .map(|((upstream, of_local), at)| {
            let left = match at == 0 && has_own {
                true => 0,
                false => upstream.saturating_sub(*of_local),
            };
            sum = sum.saturating_add(left);
            sum
        });
    ZoneRoute::Residual {
        capacity: left.collect(),
        first: first.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::config::endpoint::HealthStatus;
    use crate::upstream::endpoint::Priority;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn endpoints(numbers: &[usize]) -> Vec<Arc<Endpoint>> {
        let of = |(number, name): (&usize, &str)| {
            let endpoint = Arc::new(Endpoint {
                locality: Some(name.into()),
                ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], 80)))
            });
            vec![endpoint; *number]
        };
        numbers.iter().zip(NAMES).flat_map(of).collect()
    }

    /// The proxy is in `a`; numbers of endpoints by locality.
    fn routing(
        settings: &ZoneAware,
        local: &[usize],
        upstream: &[usize],
    ) -> Result<ZoneRouting, ZoneObstacle> {
        let local = endpoints(local);
        let healthy = local
            .iter()
            .map(|endpoint| (endpoint, HealthStatus::Healthy));
        let local = LocalHosts::new(healthy, Some("a"));
        let priority = Priority {
            endpoints: endpoints(upstream),
        };
        let localities = Localities::of(&priority, Some("a"));
        let split = localities.split(&priority.endpoints);
        ZoneRouting::new(settings, &local, &localities, &split)
    }

    fn residual(first: u64, capacity: &[u64]) -> ZoneRoute {
        ZoneRoute::Residual {
            first,
            capacity: capacity.into(),
        }
    }

    #[test]
    fn routes_are_those_of_envoys_documentation() {
        let settings = ZoneAware::default();
        for (local, upstream, expected) in [
            // As many, or more, of the cluster as of the local one.
            (vec![2, 2], vec![5, 5], ZoneRoute::Direct),
            (vec![1, 3], vec![5, 5], ZoneRoute::Direct),
            // 40 % of callers, 25 % of endpoints: 62.5 % stay, the rest goes where something is left.
            (
                vec![4, 4, 2],
                vec![10, 20, 10],
                residual(6250, &[0, 1000, 1500]),
            ),
            (vec![3, 1], vec![2, 4], residual(4444, &[0, 4166])),
            // None of the endpoints is here: the proxy's locality is not among those of the cluster.
            (vec![1, 1], vec![0, 3, 3], residual(0, &[0, 5000])),
        ] {
            let found = routing(&settings, &local, &upstream).unwrap();
            assert_eq!(found.route, expected, "{local:?} {upstream:?}");
        }
    }

    #[test]
    fn preconditions_are_envoys() {
        use ZoneObstacle::{ClusterTooSmall, FewLocalities, LocalClusterNotOk};
        let settings = ZoneAware::default();
        let forced = ZoneAware {
            force_local_zone: Some(2),
            ..settings
        };
        for (settings, local, upstream, why) in [
            (settings, vec![2, 2], vec![9], FewLocalities),
            (settings, vec![2], vec![9, 9], FewLocalities),
            (settings, vec![0, 2, 2], vec![9, 9], LocalClusterNotOk),
            (settings, vec![2, 2], vec![2, 3], ClusterTooSmall),
            (forced, vec![0, 2], vec![9, 9], LocalClusterNotOk),
        ] {
            assert_eq!(
                routing(&settings, &local, &upstream),
                Err(why),
                "{local:?} {upstream:?}"
            );
        }
        let route =
            |local: &[usize], upstream: &[usize]| routing(&forced, local, upstream).unwrap().route;
        assert_eq!(route(&[9, 1], &[2, 9]), ZoneRoute::Direct);
        assert_eq!(route(&[9], &[2, 9]), ZoneRoute::Direct);
        assert_ne!(route(&[9, 1], &[1, 9]), ZoneRoute::Direct);
    }

    #[test]
    fn a_part_of_requests_can_be_left_out() {
        let settings = ZoneAware {
            routing_enabled: 25,
            ..ZoneAware::default()
        };
        let routing = routing(&settings, &[1, 1], &[5, 5]).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let routed = (0..10_000)
            .filter(|_| routing.choose(&mut random).is_some())
            .count();
        assert!((2300..2700).contains(&routed), "{routed}");
    }

    proptest! {
        /// No endpoint gets more than by an even spread where callers are spread as the local cluster is.
        #[test]
        fn endpoints_of_all_localities_get_the_same(
            local in prop::collection::vec(1usize..6, 4), upstream in prop::collection::vec(2usize..8, 4),
        ) {
            let settings = ZoneAware::default();
            let total = |numbers: &[usize]| numbers.iter().sum::<usize>() as f64;
            let mut got = [0.0; 4];
            for own in 0..4 {
                // By symmetry: the caller's locality is the first.
                let turn = |numbers: &[usize]| { let mut n = numbers.to_vec(); n.swap(0, own); n };
                let routing = routing(&settings, &turn(&local), &turn(&upstream)).unwrap();
                let callers = local[own] as f64 / total(&local);
                let mut parts = [0.0; 4];
                match routing.route {
                    ZoneRoute::Direct => parts[0] = 1.0,
                    ZoneRoute::Residual { first, capacity } => {
                        parts[0] = first as f64 / WHOLE as f64;
                        let mut before = 0;
                        for (at, bound) in capacity.iter().enumerate() {
                            let part = (bound - before) as f64 / capacity[3] as f64;
                            parts[at] += (1.0 - first as f64 / WHOLE as f64) * part;
                            before = *bound;
                        }
                    }
                }
                parts.swap(0, own);
                for (got, part) in got.iter_mut().zip(parts) {
                    *got += callers * part;
                }
            }
            prop_assert!((got.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            for (got, number) in got.iter().zip(&upstream) {
                let even = *number as f64 / total(&upstream);
                prop_assert!((got - even).abs() < 0.002, "{got} {even}");
            }
        }
    }
}
