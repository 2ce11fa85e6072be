//! Provider selection by each strategy, and attempts whose answer does not count.

use std::time::Duration;

use crate::chat::{At, Fault, Finish, ProviderState, Source, TurnId, TurnRecord, TurnState};
use crate::provider::backend::Vitals;
use crate::provider::paused::{Paused, pass};
use crate::provider::scripted::{Act, Script, breaks, fails, says};
use crate::provider::spending::Terms;
use crate::provider::stand::Plan;
use crate::settings::Strategy;
use crate::store::Store as _;
use crate::turn::reader::Reader;
use crate::turn::stage::{House, Stage, conversation, question};

/// Providers `a`, `b` and `c`, whose answers are their names.
fn with_strategy(strategy: Strategy) -> House {
    let mut builder = House::following([vec![says("a")], vec![says("b")], vec![says("c")]]);
    builder.settings.routing.strategy = strategy;
    builder
}

/// Asks in a new conversation. Returns the names of the tried providers in order.
async fn ask(service: &Stage, number: u8) -> String {
    ask_in(service, number, "m").await
}

async fn ask_in(service: &Stage, number: u8, name: &str) -> String {
    let conversation = service.desk.rooms.enter(conversation(number));
    let message = question(name, "What is new?");
    let options = service.desk.usual();
    let Ok(log) = service.desk.open(&conversation, message, options) else {
        panic!("refused")
    };
    let client = Reader::follow(&log).await;
    service.assert_idle().await;
    client
        .done()
        .tried
        .iter()
        .map(|tried| &*tried.provider)
        .collect()
}

/// Stores a finished turn that this provider answered.
async fn store_answer_by(service: &Stage, number: u8, provider: &str) {
    let name = format!("old-{provider}").parse().unwrap();
    let mut record = TurnRecord::asked(TurnId::after(None, 1, 0), name, At(1), "q".into(), None);
    record.text = "a".into();
    record.state = TurnState::Done;
    record.source = Some(Source::Ai);
    record.finish = Some(Finish::Stop);
    record.provider = Some(provider.into());
    service
        .store
        .write_turn(conversation(number), record)
        .await
        .unwrap();
}

#[actix_rt::test(system = "Paused")]
async fn round_robin_uses_each_provider_in_turn() {
    let service = with_strategy(Strategy::RoundRobin).open();
    let mut tried = String::new();
    for number in 0..7 {
        tried += &ask(&service, number).await;
    }
    assert_eq!(tried, "abcabca");
}

#[actix_rt::test(system = "Paused")]
async fn round_robin_skips_an_open_provider_without_shifting_the_others() {
    let mut down = with_strategy(Strategy::RoundRobin);
    let later = At(u64::MAX / 2);
    down.plans[1].vitals = Vitals {
        state: ProviderState::Open,
        retry_at: Some(later),
        ..Vitals::default()
    };
    let service = down.open();
    let mut tried = String::new();
    for number in 0..6 {
        tried += &ask(&service, number).await;
    }
    assert_eq!(tried, "acacac");
}

#[actix_rt::test(system = "Paused")]
async fn failover_follows_the_circle_without_advancing_it() {
    let mut failing = with_strategy(Strategy::RoundRobin);
    failing.plans[1].scripts = vec![breaks("x", Fault::Reset), says("b")];
    let service = failing.open();
    let mut tried = Vec::new();
    for number in 0..4 {
        tried.push(ask(&service, number).await);
    }
    assert_eq!(tried, ["a", "bc", "c", "a"]);
}

#[actix_rt::test(system = "Paused")]
async fn weighted_draw_follows_the_weights() {
    for (weights, expected) in [([1, 1, 1], "b"), ([3, 1, 1], "a"), ([1, 1, 3], "c")] {
        let mut weighted = with_strategy(Strategy::Weighted);
        for (plan, weight) in weighted.plans.iter_mut().zip(weights) {
            plan.weight = weight;
        }
        // The test service always draws 0.5.
        assert_eq!(ask(&weighted.open(), 1).await, expected, "{weights:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn cheapest_provider_comes_first_and_the_next_cheapest_after_a_failure() {
    let mut priced = with_strategy(Strategy::Cheapest);
    for (plan, prices) in priced
        .plans
        .iter_mut()
        .zip([Some((3.0, 15.0)), None, Some((0.15, 0.6))])
    {
        plan.terms = Terms {
            prices,
            daily_budget_usd: None,
        };
    }
    priced.plans[2].scripts = vec![says("c"), fails(Fault::Timeout)];
    let service = priced.open();
    assert_eq!(ask(&service, 1).await, "c");
    assert_eq!(ask(&service, 2).await, "ca");
}

#[actix_rt::test(system = "Paused")]
async fn fastest_strategy_measures_unknown_providers_and_forgets_old_latencies() {
    let after = |ms, text: &str| {
        vec![
            Act::Wait(Duration::from_millis(ms)),
            says(text).remove(0),
            Act::End(Finish::Stop),
        ]
    };
    let mut builder = with_strategy(Strategy::Fastest);
    for (plan, (ms, text)) in builder
        .plans
        .iter_mut()
        .zip([(900, "a"), (300, "b"), (600, "c")])
    {
        plan.scripts = vec![after(ms, text)];
    }
    let service = builder.open();
    let mut tried = String::new();
    for number in 0..6 {
        tried += &ask(&service, number).await;
    }
    assert_eq!(tried, "abcbbb");
    // A provider that became fast is found when its old latency is forgotten.
    service.stands[0].upstream.follow([after(10, "a")]);
    let mut seen = String::new();
    for number in 10..40 {
        pass(Duration::from_secs(30)).await;
        seen += &ask(&service, number).await;
    }
    assert!(
        seen.starts_with("bbbb") && seen.contains("aaaaaa"),
        "{seen}"
    );
}

#[actix_rt::test(system = "Paused")]
async fn conversation_stays_with_its_last_provider_while_that_is_available() {
    for strategy in [Strategy::Weighted, Strategy::Fastest] {
        let mut known = with_strategy(strategy);
        known.plans[1].weight = 1_000_000;
        let service = known.open();
        store_answer_by(&service, 1, "c").await;
        assert_eq!(ask(&service, 1).await, "c", "{strategy}");
        // Its own answers keep the conversation there.
        assert_eq!(ask_in(&service, 1, "again").await, "c", "{strategy}");
        service.stands[2]
            .upstream
            .follow([fails(Fault::Unauthorized)]);
        assert_eq!(
            ask_in(&service, 1, "more").await.chars().next(),
            Some('c'),
            "{strategy}"
        );
        let moved = ask_in(&service, 1, "last").await;
        assert!(
            moved == "a" || moved == "b",
            "a blocked provider is not asked: {moved} under {strategy}"
        );
        store_answer_by(&service, 2, "gone").await;
        assert_ne!(
            ask(&service, 2).await,
            "c",
            "a removed provider keeps no conversation"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn provider_with_a_spent_budget_is_skipped() {
    let mut builder = with_strategy(Strategy::Priority);
    builder.plans[0].terms.daily_budget_usd = Some(1e-6);
    let service = builder.open();
    // The script reports no usage, so it is estimated.
    assert_eq!(ask(&service, 1).await, "a");
    assert!(service.stands[0].vitals().await.spent.estimated);
    assert_eq!(ask(&service, 2).await, "b");
    assert_eq!(service.stands[0].vitals().await.failures, 0);
}

#[actix_rt::test(system = "Paused")]
async fn unreported_usage_of_a_broken_answer_is_estimated() {
    let text = "four".repeat(100);
    let script = vec![
        Act::Used(50, 1),
        Act::Say(text),
        Act::Fail(crate::chat::Failure::of(Fault::Reset)),
    ];
    let service = House::of([Plan::new("a").with([script])]).open();
    ask(&service, 1).await;
    let used = service.stands[0].vitals().await.used;
    assert_eq!(
        (used.input_tokens, used.output_tokens, used.estimated),
        (50, 100, true)
    );
}

fn repetition(finish: Finish) -> Script {
    vec![
        Act::Say("Well, ".into()),
        Act::Say(" the".repeat(500)),
        Act::End(finish),
    ]
}

#[actix_rt::test(system = "Paused")]
async fn repetition_up_to_the_limit_is_a_failed_attempt() {
    let service = House::following([vec![repetition(Finish::Length)], vec![says("Hello.")]]).open();
    let log = service.ask("m");
    let client = Reader::follow(&log).await;
    assert_eq!(
        (client.done().text.as_str(), client.done().drafts.len()),
        ("Hello.", 1)
    );
    assert_eq!(client.done().tried[0].outcome.as_str(), "malformed");
    let vitals = service.stands[0].vitals().await;
    assert_eq!(
        (vitals.failures, vitals.reason, vitals.quality),
        (1, Some(Fault::Poor), Some(0.0))
    );
    let ends = House::following([vec![repetition(Finish::Stop)], vec![]]).open();
    assert_eq!(ask(&ends, 1).await, "a", "not cut off at the limit");
}

#[actix_rt::test(system = "Paused")]
async fn poor_answers_do_not_open_breakers() {
    let mut builder = House::following([
        vec![repetition(Finish::Length), says("ok")],
        vec![says("ok")],
    ]);
    builder.settings.quality.min_chars = 10;
    let service = builder.open();
    for number in 0..20 {
        assert_eq!(ask(&service, number).await, "ab");
    }
    for stand in &service.stands {
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
        assert_eq!(stand.vitals().await.failures, 20);
    }
}

#[actix_rt::test(system = "Paused")]
async fn complete_answers_are_scored_and_refusals_are_not() {
    let good =
        "One two three four five six seven eight nine ten, and so on to the end of it. ".to_owned();
    let refuses = vec![Act::Say("No.".into()), Act::End(Finish::ContentFilter)];
    let mut builder = House::following([vec![says(&good), refuses]]);
    builder.settings.quality.keywords = vec!["seven".to_owned(), "eleven".to_owned()];
    let service = builder.open();
    ask(&service, 1).await;
    let quality = service.stands[0].vitals().await.quality.unwrap();
    let expected = f64::from(u32::try_from(good.trim().len()).unwrap()) / 200.0 * 0.75;
    assert!(
        (quality - expected).abs() < 1e-9,
        "{quality} for {expected}"
    );
    ask(&service, 2).await;
    assert_eq!(service.stands[0].vitals().await.quality, Some(quality));
}
