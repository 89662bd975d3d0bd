//! How many requests each endpoint gets: by weights, priorities and health here, by locality in
//! `localities`, by zone in `zones`.
//!
//! Both proxies draw at random, and Envoy's draws have no seed, so that shares are compared by tests
//! whose false alarms are as rare as [`Z`] says. Ours is compared with what the shares are to be, too.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Setup, cluster, from, get, route, upstreams, weighted};
use crate::filters::side::{End, Side, answer};

/// Standard deviations beyond which a count is taken for wrong: one in two million is by chance.
const Z: f64 = 5.0;
const REQUESTS: usize = 3000;
/// Requests that are sent at once; they are answered one after the other.
const BATCH: usize = 50;

/// Requests by the endpoint that answered, on one connection.
fn counts(side: &Side, path: &str, requests: usize) -> BTreeMap<String, usize> {
    let tcp = side.connect();
    tcp.set_nodelay(true).unwrap();
    let mut writer = tcp.try_clone().unwrap();
    let mut reader = BufReader::new(tcp);
    let mut counts = BTreeMap::new();
    let batch = get(path, "").repeat(BATCH);
    for _ in 0..requests / BATCH {
        writer.write_all(batch.as_bytes()).unwrap();
        for _ in 0..BATCH {
            let seen = answer(&mut reader, End::Framed);
            *counts.entry(from(&seen)).or_default() += 1;
        }
    }
    counts
}

/// A quantile of chi square with so many degrees of freedom (Wilson and Hilferty).
fn chi_square_bound(degrees: usize) -> f64 {
    let k = degrees as f64;
    let spread = 2.0 / (9.0 * k);
    k * (1.0 - spread + Z * spread.sqrt()).powi(3)
}

/// Whether two samples may be of one distribution.
fn alike(ours: &BTreeMap<String, usize>, stock: &BTreeMap<String, usize>) -> Result<(), String> {
    let all: std::collections::BTreeSet<&String> = ours.keys().chain(stock.keys()).collect();
    if all.len() < 2 {
        return Ok(());
    }
    let count = |of: &BTreeMap<String, usize>, name: &String| *of.get(name).unwrap_or(&0) as f64;
    let total = |of: &BTreeMap<String, usize>| of.values().sum::<usize>() as f64;
    let (k, l) = (
        (total(stock) / total(ours)).sqrt(),
        (total(ours) / total(stock)).sqrt(),
    );
    let square: f64 = all
        .iter()
        .map(|name| {
            let (a, b) = (count(ours, name), count(stock, name));
            (k * a - l * b).powi(2) / (a + b)
        })
        .sum();
    let bound = chi_square_bound(all.len() - 1);
    match square <= bound {
        true => Ok(()),
        false => Err(format!("chi square {square:.1}, at most {bound:.1}")),
    }
}

/// Endpoints as a test describes them.
pub(super) struct Group {
    pub priority: u32,
    /// The zone, and the weight of the locality.
    pub zone: Option<(&'static str, u32)>,
    pub healthy: usize,
    pub degraded: usize,
    pub unhealthy: usize,
    /// Of each endpoint.
    pub weight: u32,
}

pub(super) fn group(priority: u32, healthy: usize, degraded: usize, unhealthy: usize) -> Group {
    Group {
        priority,
        zone: None,
        healthy,
        degraded,
        unhealthy,
        weight: 1,
    }
}

pub(super) fn zone(name: &'static str, weight: u32, healthy: usize, unhealthy: usize) -> Group {
    Group {
        zone: Some((name, weight)),
        ..group(0, healthy, 0, unhealthy)
    }
}

/// A cluster, with servers from a common stock, and the share that each group's healthy and degraded
/// endpoints have together; `None`: it is only compared.
pub(super) struct Case {
    name: String,
    groups: Vec<Group>,
    more: Value,
    policy: Value,
    shares: Option<Vec<f64>>,
}

impl Case {
    pub fn cluster(&self, stock: &[SocketAddr]) -> (Value, Vec<Vec<String>>) {
        let mut servers = stock.iter();
        let mut places = Vec::new();
        let mut endpoints = Vec::new();
        for group in &self.groups {
            let health = [
                ("HEALTHY", group.healthy),
                ("DEGRADED", group.degraded),
                ("UNHEALTHY", group.unhealthy),
            ];
            let health = health
                .iter()
                .flat_map(|(name, number)| vec![*name; *number]);
            let (mut all, mut names) = (Vec::new(), Vec::new());
            for status in health {
                let at = *servers.next().unwrap();
                let mut endpoint = weighted(at, group.weight);
                endpoint["health_status"] = status.into();
                all.push(endpoint);
                names.push(at.to_string());
            }
            let mut locality = json!({"priority": group.priority, "lb_endpoints": all});
            if let Some((zone, weight)) = group.zone {
                locality["locality"] = json!({"region": "r", "zone": zone});
                if weight > 0 {
                    locality["load_balancing_weight"] = weight.into();
                }
            }
            endpoints.push(locality);
            places.push(names);
        }
        let mut made = cluster(&self.name, &[], self.more.clone());
        made["load_assignment"]["endpoints"] = endpoints.into();
        if !self.policy.is_null() {
            made["load_assignment"]["policy"] = self.policy.clone();
        }
        (made, places)
    }
}

/// Compares all clusters; `more`: further static clusters, and fields of the bootstrap.
pub(super) fn compare(cases: &[Case], more: (Vec<Value>, Value)) {
    let stock = upstreams(24);
    let mut clusters = Vec::new();
    let mut places = Vec::new();
    for case in cases {
        let (cluster, of) = case.cluster(&stock);
        clusters.push(cluster);
        places.push(of);
    }
    clusters.extend(more.0);
    let routes = cases
        .iter()
        .map(|case| route(&format!("/{}/", case.name), &case.name, json!({})));
    let mut setup = Setup::new(clusters, routes.collect());
    setup.more = more.1;
    let pair = setup.start();
    for (case, places) in cases.iter().zip(places) {
        let path = format!("/{}/", case.name);
        let ours = counts(&pair.ours, &path, REQUESTS);
        let stock = counts(&pair.stock, &path, REQUESTS);
        if let Err(why) = alike(&ours, &stock) {
            panic!("{}: {why}\nAnyam {ours:?}\nEnvoy {stock:?}", case.name);
        }
        let Some(shares) = &case.shares else {
            continue;
        };
        for (share, names) in shares.iter().zip(&places) {
            let got: usize = names.iter().filter_map(|name| ours.get(name)).sum();
            let (got, wanted) = (got as f64, share * REQUESTS as f64);
            let deviation = (REQUESTS as f64 * share * (1.0 - share)).sqrt();
            let close = (got - wanted).abs() <= Z * deviation + 2.0;
            assert!(close, "{}: {got} of {names:?}, not {wanted}", case.name);
        }
    }
}

pub(super) fn case(name: &str, groups: Vec<Group>, more: Value, shares: &[f64]) -> Case {
    Case {
        name: name.to_owned(),
        groups,
        more,
        policy: Value::Null,
        shares: (!shares.is_empty()).then(|| shares.to_vec()),
    }
}

/// Names of `lb_policy` that draw among endpoints.
pub(super) const DRAWING: [&str; 3] = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"];

#[test]
fn priorities_share_as_in_envoy() {
    let panic =
        |percent: u32| json!({"common_lb_config": {"healthy_panic_threshold": {"value": percent}}});
    let mut cases = vec![
        case(
            "spills",
            vec![group(0, 1, 0, 1), group(1, 2, 0, 0)],
            json!({}),
            &[0.7, 0.3],
        ),
        case(
            "enough",
            vec![group(0, 3, 0, 1), group(1, 2, 0, 0)],
            json!({}),
            &[1.0, 0.0],
        ),
        case(
            "none",
            vec![group(0, 0, 0, 2), group(1, 2, 0, 0)],
            json!({}),
            &[0.0, 1.0],
        ),
        // Below 100 % together: normalised; the first is in panic, the second is not.
        case(
            "one-panics",
            vec![group(0, 1, 0, 9), group(1, 6, 0, 4)],
            panic(50),
            &[0.15, 0.85],
        ),
        case(
            "all-panic",
            vec![group(0, 1, 0, 3), group(1, 2, 0, 6)],
            json!({}),
            &[0.34, 0.66],
        ),
        case(
            "few",
            vec![group(0, 1, 0, 5), group(1, 2, 0, 4)],
            panic(20),
            &[0.34, 0.66],
        ),
        case("no-panic", vec![group(0, 1, 0, 9)], panic(0), &[1.0]),
        case("degraded", vec![group(0, 1, 2, 1)], json!({}), &[1.0]),
        case(
            "degraded-first",
            vec![group(0, 0, 2, 0), group(1, 1, 0, 3)],
            json!({}),
            &[0.65, 0.35],
        ),
        case(
            "degraded-last",
            vec![group(0, 1, 1, 2), group(1, 1, 2, 1), group(2, 1, 0, 3)],
            json!({}),
            &[],
        ),
    ];
    let heavy = Group {
        weight: 9,
        ..group(0, 1, 0, 0)
    };
    let mut weighed = case(
        "weighed",
        vec![heavy, group(0, 0, 0, 9), group(1, 1, 0, 0)],
        json!({}),
        &[0.7, 0.0, 0.3],
    );
    weighed.policy = json!({"weighted_priority_health": true});
    let factor = case(
        "factor",
        vec![group(0, 1, 0, 1), group(1, 2, 0, 0)],
        json!({}),
        &[0.5, 0.5],
    );
    cases.push(Case {
        policy: json!({"overprovisioning_factor": 100}),
        ..factor
    });
    cases.push(weighed);
    compare(&cases, (Vec::new(), json!({})));
}

#[test]
fn weights_share_as_in_envoy() {
    let heavy = |weight, number| Group {
        weight,
        ..group(0, number, 0, 0)
    };
    let groups = || vec![heavy(1, 4), heavy(5, 2), heavy(11, 1)];
    let shares = [4.0 / 25.0, 10.0 / 25.0, 11.0 / 25.0];
    let even = [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0];
    let cases: Vec<Case> = DRAWING
        .iter()
        .map(|policy| {
            let shares = if *policy == "RANDOM" { even } else { shares };
            case(
                &policy.to_lowercase(),
                groups(),
                json!({"lb_policy": policy}),
                &shares,
            )
        })
        .collect();
    compare(&cases, (Vec::new(), json!({})));
}

/// What the test itself may miss: shares that differ by a quarter are seen.
#[test]
fn samples_that_differ_are_told_apart() {
    let sample = |counts: [usize; 3]| {
        let names = ["a", "b", "c"].map(str::to_owned);
        names.into_iter().zip(counts).collect::<BTreeMap<_, _>>()
    };
    let of = sample([1000, 1000, 1000]);
    assert!(alike(&of, &sample([1030, 960, 1010])).is_ok());
    assert!(alike(&of, &sample([1250, 900, 850])).is_err());
    assert!(alike(&of, &sample([1000, 2000, 0])).is_err());
}
