//! Two providers in a race: who goes on, what is shown of it, and what the breakers, the budget and the report make of it.

use std::time::Duration;

use crate::chat::{Failure, Fault, Finish, Frame, ProviderState, Source};
use crate::provider::paused::{Paused, pass};
use crate::provider::scripted::{Act, Script, breaks, fails, says, silent};
use crate::turn::desk::Wishes;
use crate::turn::log::Cancel;
use crate::turn::reader::Reader;
use crate::turn::stage::{House, Stage};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Silence for so long, then this.
fn late(milliseconds: u64, mut script: Script) -> Script {
    script.insert(0, Act::Wait(ms(milliseconds)));
    script
}

/// A house that hedges after a second.
fn house<const N: usize>(scripts: [Vec<Script>; N]) -> House {
    let mut house = House::following(scripts);
    house.settings.routing.hedge_after = ms(1_000);
    house
}

async fn answered(stage: &Stage) -> Reader {
    answered_with(stage, stage.desk.usual()).await
}

async fn answered_with(stage: &Stage, wishes: Wishes) -> Reader {
    let log = stage.ask_with("m", wishes);
    let reader = Reader::follow(&log).await;
    stage.assert_idle().await;
    reader
}

/// The attempts as `done` reports them: each one's number, provider, outcome, milliseconds.
fn tried(reader: &Reader) -> Vec<String> {
    let each = reader.done().tried.iter();
    each.map(|one| {
        format!(
            "{} {} {} {}",
            one.attempt,
            one.provider,
            one.outcome.as_str(),
            one.ms
        )
    })
    .collect()
}

/// The `attempt` frames: each one's number and provider, and whom it comes after.
fn opened(reader: &Reader) -> Vec<String> {
    let attempt = |frame: &Frame| match frame {
        Frame::Attempt {
            attempt,
            provider,
            after,
            ..
        } => {
            let after = after
                .as_ref()
                .map(|after| format!(" after {}", after.provider))
                .unwrap_or_default();
            Some(format!("{attempt} {provider}{after}"))
        }
        _ => None,
    };
    reader.frames.iter().filter_map(attempt).collect()
}

async fn failures(stage: &Stage) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    for stand in &stage.stands {
        let vitals = stand.vitals().await;
        counts.push((vitals.successes, vitals.failures));
    }
    counts
}

#[actix_rt::test(system = "Paused")]
async fn who_speaks_in_time_is_not_raced() {
    for script in [
        late(999, says("Hello.")),
        vec![
            Act::Wait(ms(900)),
            Act::Think,
            Act::Wait(ms(4_000)),
            Act::Say("Hello.".into()),
            Act::End(Finish::Stop),
        ],
    ] {
        let stage = house([vec![script], vec![]]).open();
        let reader = answered(&stage).await;
        assert_eq!(
            (reader.done().text.as_str(), stage.calls(1).len()),
            ("Hello.", 0)
        );
        assert_eq!(opened(&reader), ["1 a"]);
    }
}

#[actix_rt::test(system = "Paused")]
async fn the_second_answers_where_the_first_stays_silent() {
    let stage = house([vec![silent()], vec![late(500, says("Hello."))]]).open();
    let reader = answered(&stage).await;
    assert_eq!(opened(&reader), ["1 a", "2 b"]);
    assert_eq!(tried(&reader), ["1 a stopped 1500", "2 b ok 500"]);
    assert_eq!(reader.kinds(), "start attempt attempt token done");
    let done = reader.done();
    assert_eq!(
        (done.provider.as_deref(), done.attempts, done.drafts.len()),
        (Some("b"), 2, 0)
    );
    assert_eq!((done.first_token_ms, done.total_ms), (Some(1_500), 1_500));
    assert_eq!(
        failures(&stage).await,
        [(0, 0), (1, 0)],
        "the one that was given up counts nothing"
    );
}

#[actix_rt::test(system = "Paused")]
async fn the_first_answers_where_it_speaks_first_and_nothing_is_shown_of_the_second() {
    let stage = house([
        vec![late(1_400, says("Hello."))],
        vec![late(500, says("Good day."))],
    ])
    .open();
    let reader = answered(&stage).await;
    assert_eq!(opened(&reader), ["1 a"]);
    assert_eq!(tried(&reader), ["1 a ok 1400", "2 b stopped 400"]);
    assert_eq!(
        (reader.done().text.as_str(), reader.done().attempts),
        ("Hello.", 2)
    );
    assert_eq!(failures(&stage).await, [(1, 0), (0, 0)]);
}

#[actix_rt::test(system = "Paused")]
async fn a_thought_is_a_word() {
    let thinks = vec![
        Act::Think,
        Act::Wait(ms(3_000)),
        Act::Say("Hello.".into()),
        Act::End(Finish::Stop),
    ];
    let stage = house([vec![silent()], vec![late(100, thinks)]]).open();
    let reader = answered(&stage).await;
    assert_eq!(tried(&reader), ["1 a stopped 1100", "2 b ok 3100"]);
}

#[actix_rt::test(system = "Paused")]
async fn one_that_fails_in_the_race_leaves_it_to_the_other() {
    let first_fails = house([
        vec![late(1_200, fails(Fault::Reset))],
        vec![late(900, says("Hello."))],
    ])
    .open();
    let reader = answered(&first_fails).await;
    assert_eq!(opened(&reader), ["1 a", "2 b after a"]);
    assert_eq!(tried(&reader), ["1 a reset 1200", "2 b ok 900"]);
    assert_eq!(failures(&first_fails).await, [(0, 1), (1, 0)]);

    let second_fails = house([
        vec![late(3_000, says("Hello."))],
        vec![fails(Fault::ServerError)],
    ])
    .open();
    let reader = answered(&second_fails).await;
    assert_eq!(opened(&reader), ["1 a"]);
    assert_eq!(tried(&reader), ["1 a ok 3000", "2 b server_error 0"]);
    assert_eq!(failures(&second_fails).await, [(1, 0), (0, 1)]);
    let empty = vec![Act::End(Finish::Stop)];
    let says_nothing = house([vec![late(3_000, says("Hello."))], vec![empty]]).open();
    assert_eq!(
        tried(&answered(&says_nothing).await),
        ["1 a ok 3000", "2 b malformed 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn both_may_fail_and_the_third_is_asked() {
    let stage = house([
        vec![late(1_200, fails(Fault::Reset))],
        vec![late(1_000, breaks("", Fault::Overloaded))],
        vec![says("Hello.")],
    ])
    .open();
    let reader = answered(&stage).await;
    assert_eq!(opened(&reader), ["1 a", "2 b after a", "3 c after b"]);
    assert_eq!(
        tried(&reader),
        ["1 a reset 1200", "2 b overloaded 1000", "3 c ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn who_was_given_up_may_be_asked_again_and_numbers_go_on() {
    // The second wins and breaks off: the first was slow, not broken.
    let slow = vec![silent(), says("Hello world.")];
    let stage = house([slow, vec![breaks("Hello", Fault::Reset)]]).open();
    let reader = answered(&stage).await;
    assert_eq!(opened(&reader), ["1 a", "2 b", "3 a after b"]);
    assert_eq!(
        tried(&reader),
        ["1 a stopped 1000", "2 b reset 0", "3 a ok 0"]
    );
    // The first wins and breaks off: the number of the second was never shown.
    let stage = house([
        vec![late(1_500, breaks("Hello", Fault::Reset))],
        vec![late(900, says("x")), says("Hello.")],
    ]);
    let reader = answered(&stage.open()).await;
    assert_eq!(opened(&reader), ["1 a", "3 b after a"]);
    assert_eq!(
        tried(&reader),
        ["1 a reset 1500", "2 b stopped 500", "3 b ok 0"]
    );
    assert_eq!(
        (reader.done().text.as_str(), reader.done().attempts),
        ("Hello.", 3)
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_race_counts_to_the_attempts() {
    let mut two = house([
        vec![silent()],
        vec![late(100, breaks("Hel", Fault::Reset))],
        vec![says("Hello.")],
    ]);
    two.settings.routing.max_attempts = 2;
    let reader = answered(&two.clone().open()).await;
    assert_eq!(tried(&reader), ["1 a stopped 1100", "2 b reset 100"]);
    assert_eq!(reader.done().source, Source::Fallback);
    // With one attempt there is none for a second provider.
    two.settings.routing.max_attempts = 1;
    let reader = answered(&two.open()).await;
    assert_eq!(tried(&reader), ["1 a timeout 5000"]);
}

#[actix_rt::test(system = "Paused")]
async fn races_are_within_the_retry_budget() {
    let mut house = house([
        vec![late(2_000, says("Hello."))],
        vec![late(500, says("Good day."))],
    ]);
    house.settings.retry.budget = 0.0;
    let stage = house.open();
    let mut raced = 0;
    for number in 0..12 {
        let log = stage.ask(&format!("m{number}"));
        let reader = Reader::follow(&log).await;
        raced += usize::from(reader.done().tried.len() == 2);
    }
    assert_eq!(raced, 10, "ten a minute are free, and there is no share");
}

#[actix_rt::test(system = "Paused")]
async fn only_the_one_that_was_asked_for_is_asked() {
    let stage = house([vec![], vec![late(2_000, says("Hello."))]]).open();
    let wishes = Wishes {
        first: Some("b".into()),
        only_first: true,
        ..stage.desk.usual()
    };
    let reader = answered_with(&stage, wishes).await;
    assert_eq!(tried(&reader), ["1 b ok 2000"]);
}

#[actix_rt::test(system = "Paused")]
async fn nobody_else_is_no_harm() {
    let stage = house([vec![late(2_000, says("Hello."))]]).open();
    assert_eq!(tried(&answered(&stage).await), ["1 a ok 2000"]);
}

#[actix_rt::test(system = "Paused")]
async fn later_than_the_first_token_may_come_there_is_no_race() {
    let mut house = house([vec![silent()], vec![says("Hello.")]]);
    house.settings.routing.hedge_after = ms(5_000);
    assert_eq!(
        tried(&answered(&house.open()).await),
        ["1 a timeout 5000", "2 b ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn with_too_little_time_left_there_is_no_race() {
    for (turn_limit, raced) in [(1_499, false), (1_501, true)] {
        let mut house = house([vec![silent()], vec![says("Hello.")]]);
        house.settings.timeouts.turn = ms(turn_limit);
        assert_eq!(
            answered(&house.open()).await.done().source == Source::Ai,
            raced,
            "{turn_limit}"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn both_keep_their_own_limits() {
    let stage = house([vec![silent()], vec![silent()], vec![says("Hello.")]]).open();
    let reader = answered(&stage).await;
    // The second attempt of a turn may take ten seconds for its first token.
    assert_eq!(
        tried(&reader),
        ["1 a timeout 5000", "2 b timeout 10000", "3 c ok 0"]
    );
    assert_eq!(reader.done().total_ms, 11_000);
}

#[actix_rt::test(system = "Paused")]
async fn a_stop_ends_both() {
    for after in [500, 1_500] {
        let stage = house([vec![silent()], vec![silent()]]).open();
        let log = stage.ask("m");
        let mut follower = log.follow();
        pass(ms(after)).await;
        log.cancel(Cancel::Stopped);
        let mut reader = Reader::default();
        reader.read(&mut follower).await;
        stage.assert_idle().await;
        assert_eq!(reader.done().finish, Finish::Stopped);
        assert!(
            tried(&reader).iter().all(|one| one.contains("stopped")),
            "{:?}",
            tried(&reader)
        );
        assert_eq!(reader.done().tried.len(), if after < 1_000 { 1 } else { 2 });
        assert_eq!(failures(&stage).await, [(0, 0), (0, 0)]);
    }
}

#[actix_rt::test(system = "Paused")]
async fn a_panic_of_what_reads_one_leaves_it_to_the_other() {
    let stage = house([
        vec![late(1_200, vec![Act::Panic])],
        vec![late(900, says("Hello."))],
    ])
    .open();
    let reader = answered(&stage).await;
    assert_eq!(tried(&reader), ["1 a malformed 1200", "2 b ok 900"]);
}

#[actix_rt::test(system = "Paused")]
async fn a_refusal_is_an_answer() {
    let refuses = late(200, vec![Act::Fail(Failure::of(Fault::Policy))]);
    let stage = house([vec![silent()], vec![refuses]]).open();
    let reader = answered(&stage).await;
    assert_eq!(reader.done().finish, Finish::ContentFilter);
    assert_eq!(tried(&reader), ["1 a stopped 1200", "2 b ok 200"]);
}

#[actix_rt::test(system = "Paused")]
async fn what_the_loser_used_is_paid() {
    let used = vec![Act::Used(1_000, 0), Act::Hang];
    let stage = house([vec![used], vec![says("Hello.")]]).open();
    let reader = answered(&stage).await;
    let cost = stage.stands[0].vitals().await.used.cost_usd;
    assert!((cost - 0.001).abs() < 1e-9, "{cost}");
    assert!(reader.done().cost_usd.is_some_and(|all| all > cost));
}

#[actix_rt::test(system = "Paused")]
async fn one_that_is_always_overtaken_keeps_its_breaker_and_is_known_by_its_latency() {
    let stage = house([vec![says("Hello.")], vec![says("Hello.")]]).open();
    // It has learnt what is usual: by that, all that follows would be slow.
    for number in 0..30 {
        Reader::follow(&stage.ask(&format!("well{number}"))).await;
        pass(ms(3_000)).await;
    }
    stage.stands[0].upstream.follow([silent()]);
    // Few enough for the retry budget.
    for number in 0..30 {
        let reader = Reader::follow(&stage.ask(&format!("hung{number}"))).await;
        assert_eq!(tried(&reader), ["1 a stopped 1000", "2 b ok 0"]);
        pass(ms(6_000)).await;
    }
    let vitals = stage.stands[0].vitals().await;
    assert_eq!(
        (vitals.state, vitals.failures, vitals.strikes),
        (ProviderState::Closed, 0, 0)
    );
    assert!(
        vitals.first_token.is_some_and(|recent| recent.p99 >= 1_000),
        "{:?}",
        vitals.first_token
    );
}

#[actix_rt::test(system = "Paused")]
async fn one_that_was_given_up_does_not_end_a_row_of_failures_either() {
    let resets = || fails(Fault::Reset);
    let scripts = vec![resets(), resets(), resets(), resets(), silent(), resets()];
    let mut house = house([scripts, vec![says("Hello.")]]);
    house.plans[0].retry.same_provider = 0;
    let stage = house.open();
    for number in 0..6 {
        assert_eq!(
            stage.stands[0].vitals().await.state,
            ProviderState::Closed,
            "before {number}"
        );
        let reader = Reader::follow(&stage.ask(&format!("m{number}"))).await;
        assert_eq!(reader.done().text, "Hello.");
    }
    assert_eq!(
        stage.stands[0].vitals().await.state,
        ProviderState::Open,
        "four, and the fifth"
    );
}

#[actix_rt::test(system = "Paused")]
async fn one_that_hangs_is_found_by_the_turns_that_are_not_raced() {
    let stage = house([vec![silent()], vec![says("Hello.")]]).open();
    let mut turns = 0;
    while stage.stands[0].vitals().await.state == ProviderState::Closed {
        let reader = Reader::follow(&stage.ask(&format!("m{turns}"))).await;
        assert_eq!(reader.done().text, "Hello.");
        turns += 1;
        assert!(turns < 60, "it is never found");
    }
}
