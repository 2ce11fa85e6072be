//! The grammar of a turn under any faults, any visitors, any limits: `start (attempt | token | restart)* done`, and what a turn promises
//! besides.

mod cases;
mod play;
mod rules;

use proptest::test_runner::{Config, TestRunner};

/// Houses that are tried, each with a turn or two. The seeds play many more turns; what is found here is told as its smallest case.
const CASES: u32 = 1_000;

/// The smallest case that fails is printed; each is a run of actors of its own on one paused clock.
#[test]
fn a_turn_keeps_its_promises_whatever_happens() {
    let system = super::Paused::new();
    let begun = std::time::Instant::now();
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&cases::case(), |case| {
        system.block_on(play::play(&case));
        Ok(())
    });
    println!("{CASES} cases in {:?}", begun.elapsed());
    if let Err(failure) = ran {
        panic!("{failure}");
    }
}
