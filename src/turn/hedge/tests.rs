//! Hedging: which attempt goes on, what is shown of it, and how the other one is reported.

mod breakers;

use crate::domain::{AnswerSource, Failure, FaultKind, FinishReason, Frame, ProviderState};
use crate::provider::paused_system::{Paused, advance};
use crate::provider::scripted_client::{Script, ScriptStep, break_after, fail_with, hang, reply};
use crate::turn::deps::TurnOptions;
use crate::turn::log::Cancel;
use crate::turn::protocol_reader::ProtocolClient;
use crate::turn::test_service::{TestService, TestServiceBuilder};
use crate::turn::tests::{ask_once, attempt_lines, ms};

/// The script after a silence.
fn late(milliseconds: u64, mut script: Script) -> Script {
    script.insert(0, ScriptStep::Pause(ms(milliseconds)));
    script
}

/// Hedges after a second.
fn hedging<const N: usize>(scripts: [Vec<Script>; N]) -> TestServiceBuilder {
    let mut builder = TestServiceBuilder::with_scripts(scripts);
    builder.settings.routing.hedge_after = ms(1_000);
    builder
}

async fn ask_with(service: &TestService, options: TurnOptions) -> ProtocolClient {
    let log = service.ask_with_options("m", options);
    let client = ProtocolClient::follow(&log).await;
    service.assert_idle().await;
    client
}

/// The `attempt` frames: number and provider of each, and the failed provider before it.
fn announced(client: &ProtocolClient) -> Vec<String> {
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
    client.frames.iter().filter_map(attempt).collect()
}

/// The successes and failures of each provider.
async fn outcomes(service: &TestService) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    for bench in &service.providers {
        let provider_status = bench.status().await;
        counts.push((provider_status.successes, provider_status.failures));
    }
    counts
}

#[actix_rt::test(system = "Paused")]
async fn first_token_in_time_prevents_hedging() {
    for script in [
        late(999, reply("Hello.")),
        vec![
            ScriptStep::Pause(ms(900)),
            ScriptStep::Think,
            ScriptStep::Pause(ms(4_000)),
            ScriptStep::Say("Hello.".into()),
            ScriptStep::Finish(FinishReason::Stop),
        ],
    ] {
        let service = hedging([vec![script], vec![]]).start();
        let client = ask_once(&service).await;
        assert_eq!(
            (client.done().text.as_str(), service.calls(1).len()),
            ("Hello.", 0)
        );
        assert_eq!(announced(&client), ["1 a"]);
    }
}

#[actix_rt::test(system = "Paused")]
async fn second_provider_answers_if_the_first_stays_silent() {
    let service = hedging([vec![hang()], vec![late(500, reply("Hello."))]]).start();
    let client = ask_once(&service).await;
    assert_eq!(announced(&client), ["1 a", "2 b"]);
    assert_eq!(attempt_lines(&client), ["1 a stopped 1500", "2 b ok 500"]);
    assert_eq!(client.kinds(), "start attempt attempt token done");
    let done = client.done();
    assert_eq!(
        (done.provider.as_deref(), done.attempts, done.drafts.len()),
        (Some("b"), 2, 0)
    );
    assert_eq!((done.first_token_ms, done.total_ms), (Some(1_500), 1_500));
    assert_eq!(
        outcomes(&service).await,
        [(0, 0), (1, 0)],
        "the abandoned attempt is not counted"
    );
}

#[actix_rt::test(system = "Paused")]
async fn first_provider_wins_if_it_sends_the_first_token() {
    let service = hedging([
        vec![late(1_400, reply("Hello."))],
        vec![late(500, reply("Good day."))],
    ])
    .start();
    let client = ask_once(&service).await;
    assert_eq!(announced(&client), ["1 a"]);
    assert_eq!(attempt_lines(&client), ["1 a ok 1400", "2 b stopped 400"]);
    assert_eq!(
        (client.done().text.as_str(), client.done().attempts),
        ("Hello.", 2)
    );
    assert_eq!(outcomes(&service).await, [(1, 0), (0, 0)]);
}

#[actix_rt::test(system = "Paused")]
async fn thinking_counts_as_first_token() {
    let thinks = vec![
        ScriptStep::Think,
        ScriptStep::Pause(ms(3_000)),
        ScriptStep::Say("Hello.".into()),
        ScriptStep::Finish(FinishReason::Stop),
    ];
    let service = hedging([vec![hang()], vec![late(100, thinks)]]).start();
    let client = ask_once(&service).await;
    assert_eq!(attempt_lines(&client), ["1 a stopped 1100", "2 b ok 3100"]);
}

#[actix_rt::test(system = "Paused")]
async fn failure_during_a_hedge_leaves_the_other_attempt() {
    let first_fails = hedging([
        vec![late(1_200, fail_with(FaultKind::Reset))],
        vec![late(900, reply("Hello."))],
    ])
    .start();
    let client = ask_once(&first_fails).await;
    assert_eq!(announced(&client), ["1 a", "2 b after a"]);
    assert_eq!(attempt_lines(&client), ["1 a reset 1200", "2 b ok 900"]);
    assert_eq!(outcomes(&first_fails).await, [(0, 1), (1, 0)]);

    let second_fails = hedging([
        vec![late(3_000, reply("Hello."))],
        vec![fail_with(FaultKind::ServerError)],
    ])
    .start();
    let client = ask_once(&second_fails).await;
    assert_eq!(announced(&client), ["1 a"]);
    assert_eq!(
        attempt_lines(&client),
        ["1 a ok 3000", "2 b server_error 0"]
    );
    assert_eq!(outcomes(&second_fails).await, [(1, 0), (0, 1)]);
    let empty = vec![ScriptStep::Finish(FinishReason::Stop)];
    let says_nothing = hedging([vec![late(3_000, reply("Hello."))], vec![empty]]).start();
    assert_eq!(
        attempt_lines(&ask_once(&says_nothing).await),
        ["1 a ok 3000", "2 b malformed 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn third_provider_is_asked_after_both_fail() {
    let service = hedging([
        vec![late(1_200, fail_with(FaultKind::Reset))],
        vec![late(1_000, break_after("", FaultKind::Overloaded))],
        vec![reply("Hello.")],
    ])
    .start();
    let client = ask_once(&service).await;
    assert_eq!(announced(&client), ["1 a", "2 b after a", "3 c after b"]);
    assert_eq!(
        attempt_lines(&client),
        ["1 a reset 1200", "2 b overloaded 1000", "3 c ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn abandoned_provider_may_be_asked_again() {
    // The second attempt wins and breaks. The first provider was slow, not broken.
    let slow = vec![hang(), reply("Hello world.")];
    let service = hedging([slow, vec![break_after("Hello", FaultKind::Reset)]]).start();
    let client = ask_once(&service).await;
    assert_eq!(announced(&client), ["1 a", "2 b", "3 a after b"]);
    assert_eq!(
        attempt_lines(&client),
        ["1 a stopped 1000", "2 b reset 0", "3 a ok 0"]
    );
    // The first attempt wins and breaks. The number of the second was never shown.
    let service = hedging([
        vec![late(1_500, break_after("Hello", FaultKind::Reset))],
        vec![late(900, reply("x")), reply("Hello.")],
    ]);
    let client = ask_once(&service.start()).await;
    assert_eq!(announced(&client), ["1 a", "3 b after a"]);
    assert_eq!(
        attempt_lines(&client),
        ["1 a reset 1500", "2 b stopped 500", "3 b ok 0"]
    );
    assert_eq!(
        (client.done().text.as_str(), client.done().attempts),
        ("Hello.", 3)
    );
}

#[actix_rt::test(system = "Paused")]
async fn hedges_count_towards_max_attempts() {
    let mut two = hedging([
        vec![hang()],
        vec![late(100, break_after("Hel", FaultKind::Reset))],
        vec![reply("Hello.")],
    ]);
    two.settings.routing.max_attempts = 2;
    let client = ask_once(&two.clone().start()).await;
    assert_eq!(
        attempt_lines(&client),
        ["1 a stopped 1100", "2 b reset 100"]
    );
    assert_eq!(client.done().source, AnswerSource::Fallback);
    // With a limit of one attempt, hedging is off.
    two.settings.routing.max_attempts = 1;
    let client = ask_once(&two.start()).await;
    assert_eq!(attempt_lines(&client), ["1 a timeout 5000"]);
}

#[actix_rt::test(system = "Paused")]
async fn hedges_are_limited_by_the_retry_budget() {
    let mut builder = hedging([
        vec![late(2_000, reply("Hello."))],
        vec![late(500, reply("Good day."))],
    ]);
    builder.settings.retry.budget = 0.0;
    let service = builder.start();
    let mut hedged = 0;
    for number in 0..12 {
        let log = service.ask(&format!("m{number}"));
        let client = ProtocolClient::follow(&log).await;
        hedged += usize::from(client.done().tried.len() == 2);
    }
    assert_eq!(
        hedged, 10,
        "ten a minute are free, and the budget's ratio is 0"
    );
}

#[actix_rt::test(system = "Paused")]
async fn no_failover_disables_hedging() {
    let service = hedging([vec![], vec![late(2_000, reply("Hello."))]]).start();
    let options = TurnOptions {
        preferred_provider: Some("b".into()),
        no_failover: true,
        ..service.turns.default_options()
    };
    let client = ask_with(&service, options).await;
    assert_eq!(attempt_lines(&client), ["1 b ok 2000"]);
}

#[actix_rt::test(system = "Paused")]
async fn single_provider_is_not_hedged() {
    let service = hedging([vec![late(2_000, reply("Hello."))]]).start();
    assert_eq!(attempt_lines(&ask_once(&service).await), ["1 a ok 2000"]);
}

#[actix_rt::test(system = "Paused")]
async fn no_hedge_after_the_first_token_timeout() {
    let mut builder = hedging([vec![hang()], vec![reply("Hello.")]]);
    builder.settings.routing.hedge_after = ms(5_000);
    assert_eq!(
        attempt_lines(&ask_once(&builder.start()).await),
        ["1 a timeout 5000", "2 b ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn no_hedge_with_too_little_time_left() {
    for (turn_limit, hedged) in [(1_499, false), (1_501, true)] {
        let mut builder = hedging([vec![hang()], vec![reply("Hello.")]]);
        builder.settings.timeouts.turn = ms(turn_limit);
        assert_eq!(
            ask_once(&builder.start()).await.done().source == AnswerSource::Ai,
            hedged,
            "{turn_limit}"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn both_attempts_keep_their_own_limits() {
    let service = hedging([vec![hang()], vec![hang()], vec![reply("Hello.")]]).start();
    let client = ask_once(&service).await;
    // The second attempt of a turn may take ten seconds to its first token.
    assert_eq!(
        attempt_lines(&client),
        ["1 a timeout 5000", "2 b timeout 10000", "3 c ok 0"]
    );
    assert_eq!(client.done().total_ms, 11_000);
}

#[actix_rt::test(system = "Paused")]
async fn stop_ends_both_attempts() {
    for after in [500, 1_500] {
        let service = hedging([vec![hang()], vec![hang()]]).start();
        let log = service.ask("m");
        let mut follower = log.follow();
        advance(ms(after)).await;
        log.cancel(Cancel::Stopped);
        let mut client = ProtocolClient::default();
        client.read_to_end(&mut follower).await;
        service.assert_idle().await;
        assert_eq!(client.done().finish, FinishReason::Stopped);
        assert!(
            attempt_lines(&client)
                .iter()
                .all(|line| line.contains("stopped")),
            "{:?}",
            attempt_lines(&client)
        );
        assert_eq!(client.done().tried.len(), if after < 1_000 { 1 } else { 2 });
        assert_eq!(outcomes(&service).await, [(0, 0), (0, 0)]);
    }
}

#[actix_rt::test(system = "Paused")]
async fn panic_in_one_client_leaves_the_other_attempt() {
    let service = hedging([
        vec![late(1_200, vec![ScriptStep::Panic])],
        vec![late(900, reply("Hello."))],
    ])
    .start();
    let client = ask_once(&service).await;
    assert_eq!(attempt_lines(&client), ["1 a malformed 1200", "2 b ok 900"]);
}

#[actix_rt::test(system = "Paused")]
async fn content_filter_refusal_wins_the_hedge() {
    let refuses = late(200, vec![ScriptStep::Fail(Failure::new(FaultKind::Policy))]);
    let service = hedging([vec![hang()], vec![refuses]]).start();
    let client = ask_once(&service).await;
    assert_eq!(client.done().finish, FinishReason::ContentFilter);
    assert_eq!(attempt_lines(&client), ["1 a stopped 1200", "2 b ok 200"]);
}

#[actix_rt::test(system = "Paused")]
async fn usage_of_the_abandoned_attempt_is_paid() {
    let used = vec![ScriptStep::ReportUsage(1_000, 0), ScriptStep::Hang];
    let service = hedging([vec![used], vec![reply("Hello.")]]).start();
    let client = ask_once(&service).await;
    let cost = service.providers[0].status().await.usage_totals.cost_usd;
    assert!((cost - 0.001).abs() < 1e-9, "{cost}");
    assert!(client.done().cost_usd.is_some_and(|total| total > cost));
}
