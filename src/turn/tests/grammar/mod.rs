//! The grammar of a turn, `start (attempt | token | restart)* done`, and its other guarantees under
//! random faults, visitors and limits.

mod cases;
mod play;
mod rules;

use proptest::test_runner::{Config, TestRunner};

/// The number of random services, each with one or two turns. The seeds play many more turns; a
/// failure found here is reduced to its smallest case.
const CASES: u32 = 1_000;

/// Prints the smallest failing case. Each case has its own actors; all share one paused clock.
#[test]
fn turn_keeps_its_guarantees_in_random_cases() {
    let system = super::Paused::new();
    let started = std::time::Instant::now();
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&cases::case(), |case| {
        system.block_on(play::play(&case));
        Ok(())
    });
    println!("{CASES} cases in {:?}", started.elapsed());
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
