//! The localities of a priority, and their weights. Source: Envoy's documentation of locality weighted
//! load balancing.

use std::collections::HashMap;
use std::sync::Arc;

use super::shares::Shares;
use crate::config::Name;
use crate::upstream::endpoint::{Endpoint, Priority};

/// Weights of localities are whole numbers; a locality's effective weight is reckoned in units of this.
const UNITS: f64 = 1000.0;

/// The localities of a priority: the proxy's own first, then by name.
#[derive(Default)]
pub(super) struct Localities {
    all: Vec<LocalityInfo>,
    places: HashMap<Option<Name>, usize>,
    /// The first is the proxy's own.
    pub has_own: bool,
}

struct LocalityInfo {
    weight: u32,
    /// How many endpoints it has.
    endpoints: usize,
}

impl Localities {
    /// `own`: where the proxy is.
    pub fn of(priority: &Priority, own: Option<&str>) -> Self {
        let mut known: HashMap<&Option<Name>, LocalityInfo> = HashMap::new();
        for endpoint in &priority.endpoints {
            let info = known.entry(&endpoint.locality).or_insert(LocalityInfo {
                weight: 0,
                endpoints: 0,
            });
            info.weight = endpoint.locality_weight;
            info.endpoints = info.endpoints.saturating_add(1);
        }
        let is_own = |name: &Option<Name>| own.is_some() && name.as_deref() == own;
        let mut sorted: Vec<_> = known.into_iter().collect();
        sorted.sort_by_key(|(name, _)| (!is_own(name), parts(name)));
        Self {
            has_own: sorted.first().is_some_and(|(name, _)| is_own(name)),
            places: sorted
                .iter()
                .map(|(name, _)| (*name).clone())
                .zip(0..)
                .collect(),
            all: sorted.into_iter().map(|(_, info)| info).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Endpoints by locality.
    pub fn split(&self, endpoints: &[Arc<Endpoint>]) -> Vec<Vec<Arc<Endpoint>>> {
        let mut split = vec![Vec::new(); self.len()];
        for endpoint in endpoints {
            let place = self.places.get(&endpoint.locality);
            if let Some(of) = place.and_then(|place| split.get_mut(*place)) {
                of.push(endpoint.clone());
            }
        }
        split
    }

    /// Configured weights; `scaled`: by the part of each locality's endpoints that `split` has, for
    /// subsets.
    pub fn weights(&self, split: &[Vec<Arc<Endpoint>>], scaled: bool) -> Vec<u32> {
        let weight = |(info, endpoints): (&LocalityInfo, &Vec<Arc<Endpoint>>)| {
            if !scaled {
                return info.weight;
            }
            let part = endpoints.len() as f64 / info.endpoints.max(1) as f64;
            // Not above the weight itself.
            (f64::from(info.weight) * part).round() as u32
        };
        self.all.iter().zip(split).map(weight).collect()
    }
}

/// Region, zone and sub-zone.
fn parts(name: &Option<Name>) -> impl Ord + use<> {
    let parts = name.iter().flat_map(|name| name.split('/'));
    parts.map(str::to_owned).collect::<Vec<_>>()
}

/// Shares by weight times availability; `None`: nothing has any. `eligible` of `all` can be chosen.
/// `overprovisioning` in percent.
pub(super) fn effective_shares(
    weights: &[u32],
    all: &[Vec<Arc<Endpoint>>],
    eligible: &[Vec<Arc<Endpoint>>],
    overprovisioning: u32,
) -> Option<Shares> {
    let effective = weights.iter().zip(all).zip(eligible);
    let effective = effective.map(|((weight, all), eligible)| {
        let available = eligible.len() as f64 / all.len().max(1) as f64;
        let available = (available * f64::from(overprovisioning) / 100.0).min(1.0);
        let effective = f64::from(*weight) * available * UNITS;
        // A locality that has an endpoint and a weight is never without any.
        if effective > 0.0 {
            (effective.round() as u64).max(1)
        } else {
            0
        }
    });
    let shares = Shares::new(effective);
    (shares.total() > 0).then_some(shares)
}

/// Endpoints with their shares of one, for tables of hashes: by the weights of localities, and by their
/// own within each. As in Envoy, availability has no influence, and localities without a weight get
/// nothing.
pub(super) fn shares_by_locality(
    weights: &[u32],
    eligible: Vec<Vec<Arc<Endpoint>>>,
) -> (Vec<Arc<Endpoint>>, Vec<f64>) {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let (mut endpoints, mut shares) = (Vec::new(), Vec::new());
    for (weight, of) in weights.iter().zip(eligible) {
        if *weight == 0 {
            continue;
        }
        let share = f64::from(*weight) / total;
        let sum: f64 = of.iter().map(|e| f64::from(e.weight.max(1))).sum();
        shares.extend(of.iter().map(|e| f64::from(e.weight.max(1)) * share / sum));
        endpoints.extend(of);
    }
    (endpoints, shares)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn endpoint(locality: Option<&str>, weight: u32) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            locality: locality.map(Into::into),
            locality_weight: weight,
            ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], 80)))
        })
    }

    #[test]
    fn the_own_locality_comes_first() {
        let endpoints = [("b/z/", 2), ("a-b/z/", 3), ("a/z/", 4), ("b/z/", 2)];
        let mut endpoints = endpoints
            .map(|(name, weight)| endpoint(Some(name), weight))
            .to_vec();
        endpoints.push(endpoint(None, 0));
        let priority = Priority { endpoints };
        let weights = |own| {
            let localities = Localities::of(&priority, own);
            let split = localities.split(&priority.endpoints);
            (localities.has_own, localities.weights(&split, false))
        };
        assert_eq!(weights(None), (false, vec![0, 4, 3, 2]));
        assert_eq!(weights(Some("b/z/")), (true, vec![2, 0, 4, 3]));
        assert_eq!(weights(Some("c/z/")), (false, vec![0, 4, 3, 2]));
    }

    #[test]
    fn weights_of_a_subset_are_scaled_by_its_part() {
        let priority = Priority {
            endpoints: vec![
                endpoint(Some("a"), 10),
                endpoint(Some("a"), 10),
                endpoint(Some("b"), 10),
            ],
        };
        let localities = Localities::of(&priority, None);
        let split = localities.split(&priority.endpoints[1..]);
        assert_eq!(localities.weights(&split, true), [5, 10]);
        assert_eq!(localities.weights(&split, false), [10, 10]);
    }

    /// The table of Envoy's documentation: locality X has weight 1, Y has 2, all of Y is healthy.
    #[test]
    fn shares_follow_weight_and_availability() {
        for (healthy, of_x) in [
            (100, 33.3),
            (70, 32.9),
            (69, 32.6),
            (50, 25.9),
            (25, 14.9),
            (0, 0.0),
        ] {
            let all = [
                vec![endpoint(Some("x"), 1); 100],
                vec![endpoint(Some("y"), 2); 100],
            ];
            let eligible = [all[0][..healthy].to_vec(), all[1].clone()];
            let shares = effective_shares(&[1, 2], &all, &eligible, 140).unwrap();
            let share = shares.weight(0) as f64 * 100.0 / shares.total() as f64;
            assert!((share - of_x).abs() < 0.5, "{healthy}: {share}");
        }
    }

    proptest! {
        #[test]
        fn no_share_without_weight_and_endpoint(
            localities in prop::collection::vec((0u32..5, 0usize..4, 0usize..4), 1..6), factor in 1u32..300,
        ) {
            let weights: Vec<u32> = localities.iter().map(|(weight, ..)| *weight).collect();
            let make = |count: usize| vec![endpoint(None, 1); count];
            let eligible: Vec<_> = localities.iter().map(|(_, up, _)| make(*up)).collect();
            let all: Vec<_> = localities.iter().map(|(_, up, down)| make(up + down)).collect();
            let shares = effective_shares(&weights, &all, &eligible, factor);
            let wanted = |(weight, up, _): &(u32, usize, usize)| *weight > 0 && *up > 0;
            prop_assert_eq!(shares.is_some(), localities.iter().any(wanted));
            for (at, locality) in localities.iter().enumerate() {
                let weight = shares.as_ref().map_or(0, |shares| shares.weight(at));
                prop_assert_eq!(weight > 0, wanted(locality));
            }
            let (endpoints, parts) = shares_by_locality(&weights, eligible);
            prop_assert_eq!(endpoints.len(), parts.len());
            prop_assert!(parts.iter().sum::<f64>() < 1.000_001);
        }
    }
}
