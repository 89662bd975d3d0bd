mod limits;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use super::*;
use crate::config::balancing::LocalityPolicy;
use crate::config::endpoint::{AssignmentPolicy, HealthStatus, LbValue};
use crate::upstream::endpoint::Endpoint;

fn value(text: &str) -> LbValue {
    LbValue {
        value: text.as_bytes().into(),
        elements: None,
    }
}

fn list(elements: &[&str]) -> LbValue {
    LbValue {
        value: elements.join("\n").into_bytes().into(),
        elements: Some(elements.iter().map(|e| e.as_bytes().into()).collect()),
    }
}

fn metadata(pairs: &[(&str, LbValue)]) -> LbMetadata {
    let mut pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| ((*key).into(), value.clone()))
        .collect();
    pairs.sort_by(|(a, _), (b, _)| Box::<str>::cmp(a, b));
    pairs.into()
}

/// `a=1 b=2`.
fn parsed(text: &str) -> LbMetadata {
    let pairs = text
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap());
    let pairs: Vec<_> = pairs.map(|(key, text)| (key, value(text))).collect();
    metadata(&pairs)
}

fn criteria(text: &str) -> Arc<SubsetCriteria> {
    Arc::new(SubsetCriteria {
        pairs: parsed(text),
        variants: Vec::new(),
    })
}

/// Endpoints with these ports from 1 on.
fn priority(all: &[LbMetadata]) -> Priority {
    let endpoint = |(metadata, port): (&LbMetadata, u16)| {
        Arc::new(Endpoint {
            lb_metadata: Some(Arc::new(metadata.clone())),
            ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], port)))
        })
    };
    Priority {
        endpoints: all.iter().zip(1..).map(endpoint).collect(),
    }
}

fn selector(keys: &[&str], fallback: Option<SelectorFallback>) -> SubsetSelector {
    SubsetSelector {
        keys: keys.iter().map(|key| (*key).into()).collect(),
        single_host: false,
        fallback,
    }
}

fn settings(selectors: Vec<SubsetSelector>, fallback: SubsetFallback) -> SubsetSettings {
    SubsetSettings {
        selectors,
        fallback,
        default_subset: LbMetadata::default(),
        locality_weight_aware: false,
        scale_locality_weight: false,
        panic_mode_any: false,
        list_as_any: false,
        allow_redundant_keys: false,
        metadata_fallback: false,
    }
}

fn balance_settings() -> BalanceSettings<'static> {
    BalanceSettings {
        policy: LbPolicy::RoundRobin,
        slow_start: None,
        locality: LocalityPolicy::Ignored,
        scale_locality_weight: false,
        panic_threshold: 50,
        assignment: AssignmentPolicy::default(),
        own_locality: None,
        local: None,
        now: Instant::now(),
        start: 0,
    }
}

/// A table and what is chosen by it.
struct Fixture {
    table: SubsetTable,
    all: Balance,
}

impl Fixture {
    /// With one selector, of these keys.
    fn settings(keys: &[&str]) -> SubsetSettings {
        settings(vec![selector(keys, None)], SubsetFallback::None)
    }

    fn new(settings: SubsetSettings, priorities: &[Priority]) -> Self {
        let balance = balance_settings();
        Self {
            table: SubsetTable::new(&Arc::new(settings), priorities, &balance, None),
            all: balance.balance(priorities),
        }
    }

    /// Ports that are chosen, and by what.
    fn chosen(&self, criteria: Option<&Arc<SubsetCriteria>>) -> (BTreeSet<u16>, Vec<SubsetChoice>) {
        let turn = RoundRobinCursor::default();
        let mut random = fastrand::Rng::with_seed(1);
        let what = SubsetPick {
            policy: LbPolicy::RoundRobin,
            all: &self.all,
            turn: &turn,
            criteria,
            input: PickInput::default(),
        };
        let mut last = Vec::new();
        let ports = (0..50).filter_map(|_| {
            let (choice, counts) = self.table.pick(&what, &mut random);
            last = counts.to_vec();
            Some(choice?.endpoint.address.port())
        });
        (ports.collect(), last)
    }

    fn ports(&self, asked: &str) -> Vec<u16> {
        self.chosen(Some(&criteria(asked))).0.into_iter().collect()
    }
}

/// Those of Envoy's documentation of subsets.
fn documented() -> Priority {
    let of = [
        "stage=prod version=1.0 type=std xlarge=true",
        "stage=prod version=1.0 type=std",
        "stage=prod version=1.1 type=std",
        "stage=prod version=1.1 type=std",
        "stage=prod version=1.0 type=bigmem",
        "stage=prod version=1.1 type=bigmem",
        "stage=dev version=1.2-pre type=std",
    ];
    priority(&of.map(parsed))
}

fn documented_selectors() -> Vec<SubsetSelector> {
    vec![
        selector(&["stage", "type"], None),
        selector(&["stage", "version"], None),
        selector(&["version"], None),
        selector(&["version", "xlarge"], None),
    ]
}

#[test]
fn subsets_are_those_of_envoys_documentation() {
    let mut settings = settings(documented_selectors(), SubsetFallback::DefaultSubset);
    settings.default_subset = parsed("stage=prod type=std version=1.0");
    let fixture = Fixture::new(settings, &[documented()]);
    assert_eq!(fixture.table.count(), 10);
    for (asked, ports) in [
        ("stage=prod type=std", vec![1, 2, 3, 4]),
        ("stage=prod type=bigmem", vec![5, 6]),
        ("stage=dev type=std", vec![7]),
        ("stage=prod version=1.0", vec![1, 2, 5]),
        ("stage=prod version=1.1", vec![3, 4, 6]),
        ("version=1.2-pre", vec![7]),
        ("version=1.0 xlarge=true", vec![1]),
        // The default subset.
        ("version=2", vec![1, 2]),
        ("type=std", vec![1, 2]),
        ("stage=prod type=std version=1.0", vec![1, 2]),
        ("", vec![1, 2]),
    ] {
        assert_eq!(fixture.ports(asked), ports, "{asked}");
    }
    let (ports, counts) = fixture.chosen(None);
    assert_eq!(
        (ports.len(), &counts[..]),
        (2, &[SubsetChoice::Fallback][..])
    );
    let (_, counts) = fixture.chosen(Some(&criteria("version=1.1")));
    assert_eq!(counts, [SubsetChoice::Selected]);
}

#[test]
fn fallbacks_are_the_clusters_or_the_selectors() {
    let all: Vec<u16> = (1..=7).collect();
    for (fallback, of_selector, ports) in [
        (SubsetFallback::None, None, vec![]),
        (SubsetFallback::AnyEndpoint, None, all.clone()),
        (SubsetFallback::DefaultSubset, None, vec![7]),
        (
            SubsetFallback::AnyEndpoint,
            Some(SelectorFallback::None),
            vec![],
        ),
        (
            SubsetFallback::None,
            Some(SelectorFallback::AnyEndpoint),
            all,
        ),
        (
            SubsetFallback::None,
            Some(SelectorFallback::DefaultSubset),
            vec![7],
        ),
        (
            SubsetFallback::None,
            Some(SelectorFallback::Keys(vec!["version".into()])),
            vec![1, 2, 5],
        ),
    ] {
        let selectors = vec![
            selector(&["stage", "version"], of_selector.clone()),
            selector(&["version"], None),
        ];
        let mut settings = settings(selectors, fallback);
        settings.default_subset = parsed("stage=dev");
        let fixture = Fixture::new(settings, &[documented()]);
        let found = fixture.ports("stage=none version=1.0");
        assert_eq!(found, ports, "{fallback:?} {of_selector:?}");
        // Keys of no selector: as the cluster says.
        let other = fixture.ports("color=red").len();
        let expected = match fallback {
            SubsetFallback::None => 0,
            SubsetFallback::AnyEndpoint => 7,
            SubsetFallback::DefaultSubset => 1,
        };
        assert_eq!(other, expected, "{fallback:?} {of_selector:?}");
    }
}

#[test]
fn an_empty_default_subset_may_be_all_in_panic() {
    let mut settings = settings(documented_selectors(), SubsetFallback::DefaultSubset);
    settings.default_subset = parsed("stage=none");
    let fixture = Fixture::new(settings.clone(), &[documented()]);
    assert!(fixture.ports("version=9").is_empty());
    settings.panic_mode_any = true;
    let fixture = Fixture::new(settings, &[documented()]);
    let (ports, counts) = fixture.chosen(Some(&criteria("version=9")));
    assert_eq!(
        (ports.len(), &counts[..]),
        (7, &[SubsetChoice::FallbackPanic][..])
    );
}

#[test]
fn redundant_keys_are_left_out_where_that_is_allowed() {
    let selectors = vec![
        selector(&["stage", "version"], None),
        selector(&["version"], None),
    ];
    let mut settings = settings(selectors, SubsetFallback::None);
    let asked = "color=red stage=prod version=1.1";
    let strict = Fixture::new(settings.clone(), &[documented()]);
    assert!(strict.ports(asked).is_empty());
    settings.allow_redundant_keys = true;
    let fixture = Fixture::new(settings, &[documented()]);
    assert_eq!(fixture.ports(asked), [3, 4, 6]);
    assert_eq!(fixture.ports("color=red version=1.2-pre"), [7]);
    assert!(fixture.ports("color=red").is_empty());
}

#[test]
fn lists_are_any_of_their_elements() {
    let all = [
        metadata(&[("version", list(&["1", "2"])), ("stage", value("prod"))]),
        metadata(&[("version", value("2")), ("stage", list(&["prod", "dev"]))]),
        metadata(&[("version", list(&["2", "2"])), ("stage", list(&[]))]),
    ];
    let selectors = vec![
        selector(&["version"], None),
        selector(&["stage", "version"], None),
    ];
    let mut settings = settings(selectors, SubsetFallback::None);
    let fixture = Fixture::new(settings.clone(), &[priority(&all)]);
    assert!(fixture.ports("version=1").is_empty());
    assert_eq!(fixture.ports("version=2"), [2]);
    settings.list_as_any = true;
    let fixture = Fixture::new(settings, &[priority(&all)]);
    assert_eq!(fixture.ports("version=1"), [1]);
    assert_eq!(fixture.ports("version=2"), [1, 2, 3]);
    assert_eq!(fixture.ports("stage=dev version=2"), [2]);
    assert_eq!(fixture.ports("stage=prod version=2"), [1, 2]);
}

#[test]
fn variants_are_tried_in_turn() {
    let listed = Arc::new(SubsetCriteria {
        pairs: parsed("version=1.0 fallback_list=x"),
        variants: vec![
            criteria("version=7"),
            criteria("version=1.1"),
            criteria("version=1.0"),
        ],
    });
    let mut settings = settings(documented_selectors(), SubsetFallback::None);
    let ports = |settings: &SubsetSettings| {
        let fixture = Fixture::new(settings.clone(), &[documented()]);
        fixture
            .chosen(Some(&listed))
            .0
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert!(ports(&settings).is_empty());
    settings.metadata_fallback = true;
    assert_eq!(ports(&settings), [3, 4, 6]);
}

#[test]
fn a_single_host_is_chosen_whatever_its_health() {
    let mut of_key = selector(&["key"], None);
    of_key.single_host = true;
    let mut first = priority(&["key=a", "key=b", "key=b"].map(parsed));
    let second = priority(&["key=c"].map(parsed));
    let sick = Endpoint {
        health: HealthStatus::Unhealthy,
        lb_metadata: Some(Arc::new(parsed("key=a"))),
        ..Endpoint::at(SocketAddr::from(([10, 0, 0, 2], 8)))
    };
    first.endpoints.insert(0, Arc::new(sick));
    let settings = settings(vec![of_key], SubsetFallback::None);
    let fixture = Fixture::new(settings, &[first, second]);
    assert_eq!(fixture.ports("key=a"), [8]);
    assert_eq!(fixture.ports("key=b"), [2]);
    assert_eq!(fixture.ports("key=c"), [1]);
}

#[test]
fn priorities_and_panic_are_those_of_the_subset() {
    let endpoint = |port, version: &str, health| {
        Arc::new(Endpoint {
            health,
            lb_metadata: Some(Arc::new(parsed(&format!("version={version}")))),
            ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], port)))
        })
    };
    use HealthStatus::{Healthy, Unhealthy};
    let first = Priority {
        endpoints: vec![
            endpoint(1, "1", Unhealthy),
            endpoint(2, "1", Unhealthy),
            endpoint(3, "2", Healthy),
            endpoint(4, "2", Healthy),
            endpoint(5, "2", Healthy),
        ],
    };
    let second = Priority {
        endpoints: vec![endpoint(6, "1", Healthy)],
    };
    let settings = settings(vec![selector(&["version"], None)], SubsetFallback::None);
    let fixture = Fixture::new(settings.clone(), &[first.clone(), second]);
    assert_eq!(fixture.ports("version=1"), [6]);
    let fixture = Fixture::new(settings, &[first]);
    assert_eq!(fixture.ports("version=1"), [1, 2]);
}
