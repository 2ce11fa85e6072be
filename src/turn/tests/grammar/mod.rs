//! The grammar of a turn, `start (attempt | token | restart)* done`, and its other guarantees under
//! random faults, visitors and limits.

mod cases;
mod play;
mod rules;
mod text_rules;

use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::config::MidStream;
use crate::store::flaky::StoreFault;
use cases::{Case, ProviderCase, TurnCase};

/// The number of random services, each with one or two turns. The seeds play many more turns; a
/// failure found here is reduced to its smallest case.
const CASES: u32 = 1_000;

/// Prints the smallest failing case. Each case has its own actors; all share one paused clock.
#[test]
fn turn_keeps_its_guarantees_in_random_cases() {
    let system = Paused::new();
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

/// While `b` is silent before a continuation that does not fit, its hedge `c` fails. `b` failed last
/// and answers anew.
#[actix_rt::test(system = "Paused")]
async fn provider_is_retried_after_a_failed_hedge() {
    let provider = |scripts| ProviderCase {
        scripts,
        probe: hang(),
        context_tokens: 0,
        prefill: false,
        continues_answers: false,
        same_provider: 0,
        max_concurrent: 3,
        first_token: vec![s(10)],
        stall_timeout: s(10),
        attempt_timeout: s(60),
    };
    let silent = |script: Script| [vec![ScriptStep::Pause(ms(100))], script].concat();
    let case = Case {
        providers: vec![
            provider(vec![break_after("The quick brown fox", FaultKind::Reset)]),
            provider(vec![silent(reply("Sure! Here it is.")), reply("The end.")]),
            provider(vec![fail_with(FaultKind::ServerError)]),
        ],
        max_attempts: 6,
        turn_limit: s(120),
        min_chars: 0,
        old_turns: 0,
        store_fault: StoreFault::None,
        mid_stream: MidStream::Continue,
        hedge_after: ms(1),
        turns: vec![TurnCase {
            follows_for: Some(s(999)),
            stops_after: None,
            joiners: Vec::new(),
            preferred_provider: None,
            no_failover: false,
        }],
    };
    let tried = play::play(&case).await;
    assert_eq!(tried, ["a reset", "b diverged", "c server_error", "b ok"]);
}
