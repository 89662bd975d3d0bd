//! Manifests with random changes: the schema and the reader take the same.

use serde_json::{Value, json};

use super::judge::Judge;
use super::{good, is_for_the_api_server, is_for_the_reader, read};

/// One change somewhere in a spec, of a kind that the YAML reader does not take for something else:
/// text stays text, as it may be written without quotes.
fn mutate(random: &mut fastrand::Rng, value: &mut Value) {
    const TEXTS: [&str; 14] = [
        "",
        "*",
        "a*b",
        "*.x",
        "0s",
        "5s",
        "1h1m1s1ms",
        "7d",
        "UPPER",
        "10.0.0.0/8",
        "::1",
        "127.0.0.1",
        "Service",
        "/a",
    ];
    let within = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if within > 0 && random.u8(..) < 200 {
        let at = random.usize(..within);
        match value {
            Value::Array(list) if random.u8(..) < 30 => drop(list.remove(at)),
            Value::Array(list) if random.u8(..) < 30 => list.push(list[at].clone()),
            Value::Array(list) => mutate(random, &mut list[at]),
            Value::Object(map) => {
                let key = map.keys().nth(at).unwrap().clone();
                match random.u8(..) {
                    0..20 => drop(map.shift_remove(&key)),
                    20..25 => drop(map.insert("surprise".into(), json!("x"))),
                    // The API server drops it from a map of ports, too; the reader refuses it there.
                    25..35 if key.parse::<u16>().is_err() => drop(map.insert(key, Value::Null)),
                    _ => mutate(random, &mut map[&key]),
                }
            }
            _ => {}
        }
        return;
    }
    *value = match (&*value, random.u8(..)) {
        (_, 0..20) => json!([]),
        (_, 20..40) => json!({}),
        (Value::String(_), _) => json!(TEXTS[random.usize(..TEXTS.len())]),
        (Value::Number(_), _) => json!(
            *random
                .choice(&[-1i64, 0, 1, 101, 399, 65_536, 5_000_000_000])
                .unwrap()
        ),
        (Value::Bool(value), _) => json!(!value),
        (other, _) => (*other).clone(),
    };
}

#[test]
fn what_one_takes_the_other_takes() {
    let judge = Judge::new();
    let mut random = fastrand::Rng::with_seed(7);
    let good = good();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..8_000 {
        let mut object = good[random.usize(..good.len())].clone();
        for _ in 0..random.usize(1..4) {
            mutate(&mut random, &mut object["spec"]);
        }
        let (read, validated) = (read(&object), judge.look(&object));
        match (&read, &validated) {
            (Ok(()), Ok(())) => taken += 1,
            (Err(_), Err(_)) => refused += 1,
            (Err(error), Ok(())) if is_for_the_api_server(error) => refused += 1,
            (Err(error), Ok(())) if is_for_the_reader(&object, error) => refused += 1,
            _ => panic!("the reader: {read:?}\nthe schema: {validated:?}\n{object:#}"),
        }
    }
    assert!(taken > 800 && refused > 800, "{taken} {refused}");
}
