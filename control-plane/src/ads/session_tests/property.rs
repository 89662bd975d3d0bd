//! Any history of changes, subscriptions and answers.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize, u8),
    Remove(usize, usize),
    Subscribe(usize, Vec<usize>),
    Unsubscribe(usize, Vec<usize>),
    Take,
    Answer(bool),
}

const TYPES: [&str; 4] = [CLUSTER, ENDPOINT, LISTENER, ROUTE];

const NAMES: [&str; 5] = ["a", "b", "c", "d", "*"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names = || prop::collection::vec(0..NAMES.len(), 1..3);
    let step = prop_oneof![
        (0..4usize, 0..4usize, 0..3u8).prop_map(|(t, n, v)| Step::Set(t, n, v)),
        (0..4usize, 0..4usize).prop_map(|(t, n)| Step::Remove(t, n)),
        (0..4usize, names()).prop_map(|(t, n)| Step::Subscribe(t, n)),
        (0..4usize, names()).prop_map(|(t, n)| Step::Unsubscribe(t, n)),
        Just(Step::Take),
        prop::bool::weighted(0.8).prop_map(Step::Answer),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: once everything was taken and accepted, a delta client
    /// has exactly what it subscribed to, as it is now, and nothing else is sent.
    #[test]
    fn every_history_ends_in_the_newest_state(steps in steps(), forgetful in any::<bool>()) {
        let mesh = if forgetful { shop().forgetful() } else { shop() };
        let mut client = Client::delta(&mesh);
        let mut in_flight: Vec<Push> = Vec::new();
        for step in steps {
            match step {
                Step::Set(t, n, v) => mesh.change(&[(TYPES[t], NAMES[n], Some(&v.to_string()))]),
                Step::Remove(t, n) => mesh.change(&[(TYPES[t], NAMES[n], None)]),
                Step::Subscribe(t, n) => {
                    let names: Vec<_> = n.iter().map(|n| NAMES[*n]).collect();
                    client.subscribe(TYPES[t], &names);
                }
                Step::Unsubscribe(t, n) => {
                    let names: Vec<_> = n.iter().map(|n| NAMES[*n]).collect();
                    // A delta client drops by itself what it unsubscribes from.
                    client.unsubscribe(TYPES[t], &names);
                    let session = &client.session;
                    let kind = session.kinds.iter().find(|kind| &*kind.type_url == TYPES[t]);
                    client.has.retain(|(of, name), _| {
                        of != TYPES[t] || kind.is_some_and(|kind| kind.wants(name))
                    });
                }
                Step::Take => in_flight.extend(client.next()),
                Step::Answer(good) => {
                    if let Some(push) = in_flight.pop() {
                        client.answer(&push, (!good).then_some("no"));
                    }
                }
            }
        }
        for kind in &client.session.kinds {
            prop_assert_eq!(kind.counted(), kind.bytes());
        }
        for push in in_flight {
            client.answer(&push, None);
        }
        client.drain();
        // Whatever was refused is changed once more, so that it is accepted.
        let all: Vec<_> = TYPES.iter().flat_map(|t| NAMES[..4].iter().map(move |n| (*t, *n))).collect();
        for (type_url, name) in &all {
            mesh.change(&[(type_url, name, Some("last"))]);
        }
        client.drain();
        for kind in &client.session.kinds {
            for name in &NAMES[..4] {
                let key = (kind.type_url.to_string(), name.to_string());
                let has = client.has.get(&key).map(String::as_str);
                prop_assert_eq!(has, kind.wants(name).then_some("v4last"), "{:?}", key);
            }
        }
        prop_assert!(client.session.status().iter().all(|kind| kind.synced));
    }
}
