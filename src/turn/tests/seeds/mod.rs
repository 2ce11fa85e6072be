//! A hundred thousand turns under randomly timed faults, on a paused clock. Each seed is one service
//! that runs the same way every time: many turns of several conversations run at once, while
//! providers fail in every way, actors die and restart, the store fails or is slow, and visitors
//! leave, return and stop.
//!
//! `FAILSOFT_SEED=7` plays that seed. `FAILSOFT_SEED_TURNS=10000000` plays that many turns and
//! reports its progress every minute. `FAILSOFT_SEED_FROM=5000` starts with that seed, to resume a
//! long run.

mod chance;
mod check;
mod visit;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The interval between progress reports of a long run.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The number of turns played by default.
const DEFAULT_TURNS: u64 = 100_000;

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number"))
    })
}

/// Plays one seed. If a guarantee is broken, prints the command that plays it again.
///
/// Each seed gets its own actix system. With a shared one, the leftovers of millions of turns would
/// fill the memory.
fn play_seed(seed: u64) {
    let system = super::Paused::new();
    let played = catch_unwind(AssertUnwindSafe(|| system.block_on(world::play(seed))));
    if played.is_err() {
        eprintln!("seed {seed} breaks a guarantee; to play it again:");
        eprintln!("    FAILSOFT_SEED={seed} cargo test --lib turn::tests::seeds -- --nocapture");
        panic!("seed {seed} breaks a guarantee");
    }
}

#[test]
fn turns_keep_their_guarantees_for_every_seed() {
    if let Some(seed) = env_number("FAILSOFT_SEED") {
        return play_seed(seed);
    }
    let turns = env_number("FAILSOFT_SEED_TURNS").unwrap_or(DEFAULT_TURNS);
    let from = env_number("FAILSOFT_SEED_FROM").unwrap_or_default();
    let seeds = from + turns.div_ceil(world::TURNS_PER_SERVICE);
    let next = AtomicU64::new(from);
    let is_broken = AtomicBool::new(false);
    let reported_minutes = AtomicU64::new(0);
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_broken.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let played = catch_unwind(|| play_seed(seed));
                    is_broken.fetch_or(played.is_err(), Ordering::Relaxed);
                    let minutes = started.elapsed().as_secs() / REPORT_INTERVAL.as_secs();
                    if reported_minutes.fetch_max(minutes, Ordering::Relaxed) < minutes {
                        println!("seed {seed} of {from} to {seeds} after {minutes} min");
                    }
                }
            });
        }
    });
    println!(
        "{turns} turns, seeds {from} to {seeds}, in {:?}",
        started.elapsed()
    );
    assert!(
        !is_broken.into_inner(),
        "a seed breaks a guarantee; the command to play it again is above"
    );
}

/// Without this, a failure could not be reproduced.
#[test]
fn seed_is_played_the_same_each_time() {
    let ends = |seed| super::Paused::new().block_on(world::play(seed));
    for seed in [0, 1, 2] {
        assert!(ends(seed) == ends(seed), "seed {seed}");
    }
}
