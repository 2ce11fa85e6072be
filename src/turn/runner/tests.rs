//! Provider selection by each strategy, and attempts whose answer does not count.

use std::time::Duration;

use crate::config::RoutingStrategy;
use crate::domain::{
    AnswerSource, FaultKind, FinishReason, ProviderState, Timestamp, TurnId, TurnRecord, TurnState,
};
use crate::provider::cost::ProviderPricing;
use crate::provider::paused_system::{Paused, advance};
use crate::provider::scripted_client::{Script, ScriptStep, break_after, fail_with, reply};
use crate::provider::status::ProviderStatus;
use crate::provider::test_bench::BenchOptions;
use crate::store::ConversationStore as _;
use crate::turn::protocol_reader::ProtocolClient;
use crate::turn::test_service::{TestService, TestServiceBuilder, conversation_id, message};

/// Providers `a`, `b` and `c`, whose answers are their names.
fn with_strategy(strategy: RoutingStrategy) -> TestServiceBuilder {
    let mut builder =
        TestServiceBuilder::with_scripts([vec![reply("a")], vec![reply("b")], vec![reply("c")]]);
    builder.settings.routing.strategy = strategy;
    builder
}

/// Asks in a new conversation. Returns the names of the tried providers in order.
async fn ask(service: &TestService, number: u8) -> String {
    ask_in(service, number, "m").await
}

async fn ask_in(service: &TestService, number: u8, name: &str) -> String {
    let conversation = service
        .turns
        .conversations
        .get_or_create(conversation_id(number));
    let message = message(name, "What is new?");
    let options = service.turns.default_options();
    let Ok(log) = service.turns.start_turn(&conversation, message, options) else {
        panic!("refused")
    };
    let client = ProtocolClient::follow(&log).await;
    service.assert_idle().await;
    client
        .done()
        .tried
        .iter()
        .map(|tried| &*tried.provider)
        .collect()
}

/// Stores a finished turn that this provider answered.
async fn store_answer_by(service: &TestService, number: u8, provider: &str) {
    let name = format!("old-{provider}").parse().unwrap();
    let mut record = TurnRecord::new(
        TurnId::next_after(None, 1, 0),
        name,
        Timestamp(1),
        "q".into(),
        None,
    );
    record.text = "a".into();
    record.state = TurnState::Done;
    record.source = Some(AnswerSource::Ai);
    record.finish = Some(FinishReason::Stop);
    record.provider = Some(provider.into());
    service
        .store
        .write_turn(conversation_id(number), record)
        .await
        .unwrap();
}

#[actix_rt::test(system = "Paused")]
async fn round_robin_uses_each_provider_in_turn() {
    let service = with_strategy(RoutingStrategy::RoundRobin).start();
    let mut tried = String::new();
    for number in 0..7 {
        tried += &ask(&service, number).await;
    }
    assert_eq!(tried, "abcabca");
}

#[actix_rt::test(system = "Paused")]
async fn round_robin_skips_an_open_provider_without_shifting_the_others() {
    let mut down = with_strategy(RoutingStrategy::RoundRobin);
    let later = Timestamp(u64::MAX / 2);
    down.providers[1].initial_status = ProviderStatus {
        state: ProviderState::Open,
        retry_at: Some(later),
        ..ProviderStatus::default()
    };
    let service = down.start();
    let mut tried = String::new();
    for number in 0..6 {
        tried += &ask(&service, number).await;
    }
    assert_eq!(tried, "acacac");
}

#[actix_rt::test(system = "Paused")]
async fn failover_follows_the_circle_without_advancing_it() {
    let mut failing = with_strategy(RoutingStrategy::RoundRobin);
    failing.providers[1].scripts = vec![break_after("x", FaultKind::Reset), reply("b")];
    let service = failing.start();
    let mut tried = Vec::new();
    for number in 0..4 {
        tried.push(ask(&service, number).await);
    }
    assert_eq!(tried, ["a", "bc", "c", "a"]);
}

#[actix_rt::test(system = "Paused")]
async fn weighted_draw_follows_the_weights() {
    for (weights, expected) in [([1, 1, 1], "b"), ([3, 1, 1], "a"), ([1, 1, 3], "c")] {
        let mut weighted = with_strategy(RoutingStrategy::Weighted);
        for (plan, weight) in weighted.providers.iter_mut().zip(weights) {
            plan.weight = weight;
        }
        // The test service always draws 0.5.
        assert_eq!(ask(&weighted.start(), 1).await, expected, "{weights:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn cheapest_provider_comes_first_and_the_next_cheapest_after_a_failure() {
    let mut priced = with_strategy(RoutingStrategy::Cheapest);
    for (plan, prices) in
        priced
            .providers
            .iter_mut()
            .zip([Some((3.0, 15.0)), None, Some((0.15, 0.6))])
    {
        plan.pricing = ProviderPricing {
            prices,
            daily_budget_usd: None,
        };
    }
    priced.providers[2].scripts = vec![reply("c"), fail_with(FaultKind::Timeout)];
    let service = priced.start();
    assert_eq!(ask(&service, 1).await, "c");
    assert_eq!(ask(&service, 2).await, "ca");
}

#[actix_rt::test(system = "Paused")]
async fn fastest_strategy_measures_unknown_providers_and_forgets_old_latencies() {
    let after = |ms, text: &str| {
        vec![
            ScriptStep::Pause(Duration::from_millis(ms)),
            reply(text).remove(0),
            ScriptStep::Finish(FinishReason::Stop),
        ]
    };
    let mut builder = with_strategy(RoutingStrategy::Fastest);
    for (plan, (ms, text)) in builder
        .providers
        .iter_mut()
        .zip([(900, "a"), (300, "b"), (600, "c")])
    {
        plan.scripts = vec![after(ms, text)];
    }
    let service = builder.start();
    let mut tried = String::new();
    for number in 0..6 {
        tried += &ask(&service, number).await;
    }
    assert_eq!(tried, "abcbbb");
    // A provider that became fast is found when its old latency is forgotten.
    service.providers[0].client.set_scripts([after(10, "a")]);
    let mut seen = String::new();
    for number in 10..40 {
        advance(Duration::from_secs(30)).await;
        seen += &ask(&service, number).await;
    }
    assert!(
        seen.starts_with("bbbb") && seen.contains("aaaaaa"),
        "{seen}"
    );
}

#[actix_rt::test(system = "Paused")]
async fn conversation_stays_with_its_last_provider_while_that_is_available() {
    for strategy in [RoutingStrategy::Weighted, RoutingStrategy::Fastest] {
        let mut known = with_strategy(strategy);
        known.providers[1].weight = 1_000_000;
        let service = known.start();
        store_answer_by(&service, 1, "c").await;
        assert_eq!(ask(&service, 1).await, "c", "{strategy}");
        // Its own answers keep the conversation there.
        assert_eq!(ask_in(&service, 1, "again").await, "c", "{strategy}");
        service.providers[2]
            .client
            .set_scripts([fail_with(FaultKind::Unauthorized)]);
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
    let mut builder = with_strategy(RoutingStrategy::Priority);
    builder.providers[0].pricing.daily_budget_usd = Some(1e-6);
    let service = builder.start();
    // The script reports no usage, so it is estimated.
    assert_eq!(ask(&service, 1).await, "a");
    assert!(service.providers[0].status().await.spend_today.estimated);
    assert_eq!(ask(&service, 2).await, "b");
    assert_eq!(service.providers[0].status().await.failures, 0);
}

#[actix_rt::test(system = "Paused")]
async fn unreported_usage_of_a_broken_answer_is_estimated() {
    let text = "four".repeat(100);
    let script = vec![
        ScriptStep::ReportUsage(50, 1),
        ScriptStep::Say(text),
        ScriptStep::Fail(crate::domain::Failure::new(FaultKind::Reset)),
    ];
    let service =
        TestServiceBuilder::with_providers([BenchOptions::new("a").with_scripts([script])]).start();
    ask(&service, 1).await;
    let used = service.providers[0].status().await.usage_totals;
    assert_eq!(
        (used.input_tokens, used.output_tokens, used.estimated),
        (50, 100, true)
    );
}

fn repetition(finish: FinishReason) -> Script {
    vec![
        ScriptStep::Say("Well, ".into()),
        ScriptStep::Say(" the".repeat(500)),
        ScriptStep::Finish(finish),
    ]
}

#[actix_rt::test(system = "Paused")]
async fn repetition_up_to_the_limit_is_a_failed_attempt() {
    let service = TestServiceBuilder::with_scripts([
        vec![repetition(FinishReason::Length)],
        vec![reply("Hello.")],
    ])
    .start();
    let log = service.ask("m");
    let client = ProtocolClient::follow(&log).await;
    assert_eq!(
        (client.done().text.as_str(), client.done().drafts.len()),
        ("Hello.", 1)
    );
    assert_eq!(client.done().tried[0].outcome.as_str(), "malformed");
    let provider_status = service.providers[0].status().await;
    assert_eq!(
        (
            provider_status.failures,
            provider_status.last_fault,
            provider_status.quality_avg
        ),
        (1, Some(FaultKind::Poor), Some(0.0))
    );
    let ends =
        TestServiceBuilder::with_scripts([vec![repetition(FinishReason::Stop)], vec![]]).start();
    assert_eq!(ask(&ends, 1).await, "a", "not cut off at the limit");
}

#[actix_rt::test(system = "Paused")]
async fn poor_answers_do_not_open_breakers() {
    let mut builder = TestServiceBuilder::with_scripts([
        vec![repetition(FinishReason::Length), reply("ok")],
        vec![reply("ok")],
    ]);
    builder.settings.quality.min_chars = 10;
    let service = builder.start();
    for number in 0..20 {
        assert_eq!(ask(&service, number).await, "ab");
    }
    for bench in &service.providers {
        assert_eq!(bench.status().await.state, ProviderState::Closed);
        assert_eq!(bench.status().await.failures, 20);
    }
}

#[actix_rt::test(system = "Paused")]
async fn complete_answers_are_scored_and_refusals_are_not() {
    let good =
        "One two three four five six seven eight nine ten, and so on to the end of it. ".to_owned();
    let refuses = vec![
        ScriptStep::Say("No.".into()),
        ScriptStep::Finish(FinishReason::ContentFilter),
    ];
    let mut builder = TestServiceBuilder::with_scripts([vec![reply(&good), refuses]]);
    builder.settings.quality.keywords = vec!["seven".to_owned(), "eleven".to_owned()];
    let service = builder.start();
    ask(&service, 1).await;
    let quality = service.providers[0].status().await.quality_avg.unwrap();
    let expected = f64::from(u32::try_from(good.trim().len()).unwrap()) / 200.0 * 0.75;
    assert!(
        (quality - expected).abs() < 1e-9,
        "{quality} for {expected}"
    );
    ask(&service, 2).await;
    assert_eq!(
        service.providers[0].status().await.quality_avg,
        Some(quality)
    );
}
