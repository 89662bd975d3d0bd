//! How long a fuzz target goes on: a number of rounds in a test, `ANYAM_FUZZ_MINUTES` in a fuzzer.
//!
//! Each round has a seed of its own. That of a round that fails is printed, and `ANYAM_FUZZ_SEED`
//! begins with it.

use std::time::{Duration, Instant};

pub struct Rounds {
    seed: u64,
    count: usize,
    left: usize,
    until: Option<Instant>,
}

impl Rounds {
    /// `rounds`: of a test.
    pub fn new(rounds: usize) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap())
        };
        let minutes = number("ANYAM_FUZZ_MINUTES");
        let seed = match (number("ANYAM_FUZZ_SEED"), minutes) {
            (Some(seed), _) => seed,
            (None, Some(_)) => fastrand::u64(..u64::MAX / 2),
            (None, None) => 1,
        };
        Self {
            seed,
            count: 0,
            left: rounds,
            until: minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes)),
        }
    }

    /// The random numbers of the next round; `None`: it was the last.
    pub fn next(&mut self) -> Option<fastrand::Rng> {
        let over = match self.until {
            Some(until) => Instant::now() >= until,
            None => self.left == 0,
        };
        if over {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        if self.count > 0 {
            self.seed = self.seed.wrapping_add(1);
        }
        self.count += 1;
        Some(fastrand::Rng::with_seed(self.seed))
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        let Self { seed, count, .. } = self;
        match std::thread::panicking() {
            true => eprintln!("failed in round {count}: ANYAM_FUZZ_SEED={seed}"),
            false => eprintln!("{count} rounds, the last with the seed {seed}"),
        }
    }
}
