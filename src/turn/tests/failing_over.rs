//! The provider that is asked after a failure, the delay before, and the request it gets.

use super::*;
use crate::config::MidStream;
use crate::provider::breaker::CallOutcome;
use crate::provider::scripted_client::RecordedCall;
use crate::turn::deps::TurnOptions;

/// The texts of each call's messages, separated by spaces.
fn requests(calls: &[RecordedCall]) -> Vec<String> {
    let texts = |call: &RecordedCall| {
        let texts = call.request.messages.iter().map(|message| &*message.text);
        texts.collect::<Vec<_>>().join(" ")
    };
    calls.iter().map(texts).collect()
}

#[actix_rt::test(system = "Paused")]
async fn quick_transient_failure_is_retried_after_a_backoff() {
    for fault in [FaultKind::Reset, FaultKind::ServerError] {
        let harness =
            TestServiceBuilder::with_scripts([vec![fail_with(fault), reply("Hello.")], vec![]])
                .start();
        let reader = ask_once(&harness).await;
        assert_eq!(
            attempt_lines(&reader),
            [
                format!("1 a {} 0", fault.wire_name()),
                "2 a ok 0".to_owned()
            ]
        );
        let calls = harness.calls(0);
        assert_eq!(
            calls[1].started_at - calls[0].started_at,
            ms(100),
            "half of the initial 200 ms, since the random number is fixed"
        );
        assert_eq!(reader.done().total_ms, 100);
    }
}

#[actix_rt::test(system = "Paused")]
async fn other_failures_go_to_the_next_provider_at_once() {
    for fault in FaultKind::ALL {
        use crate::domain::Recovery;
        if !matches!(
            fault.recovery(),
            Recovery::NextProvider
                | Recovery::Block
                | Recovery::LargerContext
                | Recovery::CallerError
        ) {
            continue;
        }
        let reader = ask_once(
            &TestServiceBuilder::with_scripts([vec![fail_with(fault)], vec![reply("Hello.")]])
                .start(),
        )
        .await;
        assert_eq!(
            attempt_lines(&reader),
            [
                format!("1 a {} 0", fault.wire_name()),
                "2 b ok 0".to_owned()
            ],
            "{fault:?}"
        );
        assert_eq!(
            (reader.kinds().as_str(), reader.done().total_ms),
            ("start attempt attempt token done", 0)
        );
        assert_answered(&reader, "b", "Hello.");
    }
}

#[actix_rt::test(system = "Paused")]
async fn no_provider_is_retried_after_shown_text() {
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![break_after("Hel", FaultKind::Reset)],
        vec![reply("Hello.")],
    ]))
    .await;
    assert_eq!(attempt_lines(&reader), ["1 a reset 0", "2 b ok 0"]);
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt token done",
        "it continues the text of the first"
    );
}

#[actix_rt::test(system = "Paused")]
async fn slow_failure_is_not_retried() {
    let slow = vec![
        ScriptStep::Pause(ms(2_100)),
        ScriptStep::Fail(Failure::new(FaultKind::ServerError)),
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![slow],
        vec![reply("Hello.")],
    ]))
    .await;
    assert_eq!(
        attempt_lines(&reader),
        ["1 a server_error 2100", "2 b ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn retry_leaves_an_attempt_for_each_untried_provider() {
    let failing = || vec![fail_with(FaultKind::Reset)];
    let mut builder = TestServiceBuilder::with_scripts([failing(), failing(), failing()]);
    let exhausted = ask_once(&builder.clone().start()).await;
    assert_eq!(
        attempt_lines(&exhausted),
        ["1 a reset 0", "2 a reset 0", "3 b reset 0", "4 c reset 0"]
    );
    assert_fallback(&exhausted);
    builder.settings.routing.max_attempts = 2;
    assert_eq!(
        attempt_lines(&ask_once(&builder.start()).await),
        ["1 a reset 0", "2 b reset 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn short_retry_after_is_waited_for_and_a_long_one_is_not() {
    let answer_to = async |retry_after| {
        let harness = TestServiceBuilder::with_scripts([
            vec![rate_limited(retry_after), reply("Hello.")],
            vec![reply("Good day.")],
        ])
        .start();
        let reader = ask_once(&harness).await;
        (attempt_lines(&reader), reader.done().total_ms)
    };
    let same_provider = ["1 a rate_limited 0", "2 a ok 0"]
        .map(str::to_owned)
        .to_vec();
    let next_provider = ["1 a rate_limited 0", "2 b ok 0"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(answer_to(s(2)).await, (same_provider, 2_000));
    assert_eq!(answer_to(ms(2_001)).await, (next_provider.clone(), 0));
    let harness =
        TestServiceBuilder::with_scripts([vec![fail_with(FaultKind::RateLimited)], vec![]]).start();
    assert_eq!(
        attempt_lines(&ask_once(&harness).await),
        next_provider,
        "without a Retry-After"
    );
}

#[actix_rt::test(system = "Paused")]
async fn retry_after_is_respected_by_later_turns() {
    let harness = TestServiceBuilder::with_scripts([
        vec![rate_limited(s(30)), reply("Hello.")],
        vec![reply("Good day.")],
    ])
    .start();
    assert_answered(&ask_once(&harness).await, "b", "Good day.");
    for _ in 0..3 {
        advance(s(5)).await;
        assert_answered(&ask_once(&harness).await, "b", "Good day.");
    }
    assert_eq!(harness.calls(0).len(), 1, "no call before Retry-After");
    advance(s(15)).await;
    assert_answered(&ask_once(&harness).await, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn waiting_for_a_provider_ends_when_its_breaker_opens() {
    let harness = TestServiceBuilder::with_scripts([
        vec![rate_limited(s(2)), reply("Hello.")],
        vec![reply("Good day.")],
    ])
    .start();
    let other_call = harness.providers[0].try_acquire().await.unwrap();
    let log = harness.ask("m");
    advance(s(1)).await;
    assert!(
        harness.providers[0].try_acquire().await.is_err(),
        "its Retry-After has not passed"
    );
    other_call.complete(CallOutcome::Failed {
        fault: FaultKind::Unauthorized,
        had_text: false,
        retry_after: None,
    });
    let reader = ProtocolClient::follow(&log).await;
    assert_eq!(attempt_lines(&reader), ["1 a rate_limited 0", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn content_filter_refusal_is_the_answer() {
    let filtered = |text: &str| vec![say(text), ScriptStep::Finish(FinishReason::ContentFilter)];
    let scripts = [
        fail_with(FaultKind::Policy),
        vec![ScriptStep::Finish(FinishReason::ContentFilter)],
        filtered(" "),
        filtered("I cannot."),
    ];
    for script in scripts {
        let harness =
            TestServiceBuilder::with_scripts([vec![script], vec![reply("Hello.")]]).start();
        let reader = ask_once(&harness).await;
        let done = reader.done();
        assert_eq!(
            (done.finish, done.source, done.attempts),
            (FinishReason::ContentFilter, AnswerSource::Ai, 1)
        );
        assert!(
            done.text.contains("filter refused") || done.text == "I cannot.",
            "{}",
            done.text
        );
        let status = harness.providers[0].status().await;
        assert_eq!(
            (status.successes, status.failures),
            (0, 0),
            "it says nothing about the provider's health"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn bad_request_tries_one_more_provider_and_moves_no_breaker() {
    let bad = || vec![fail_with(FaultKind::BadRequest)];
    let harness = TestServiceBuilder::with_scripts([bad(), bad(), vec![reply("Hello.")]]).start();
    for _ in 0..20 {
        let log = harness.ask(&format!("m{}", harness.calls(0).len()));
        let reader = ProtocolClient::follow(&log).await;
        assert_eq!(attempt_lines(&reader), ["1 a refused 0", "2 b refused 0"]);
        assert_fallback(&reader);
    }
    assert_eq!(
        harness.providers[0].status().await.state,
        ProviderState::Closed
    );
}

#[actix_rt::test(system = "Paused")]
async fn preferred_provider_is_asked_first_or_alone() {
    let harness = TestServiceBuilder::with_scripts([
        vec![reply("A.")],
        vec![fail_with(FaultKind::Timeout)],
        vec![reply("C.")],
    ])
    .start();
    let mut options = TurnOptions {
        preferred_provider: Some("b".into()),
        ..harness.turns.default_options()
    };
    let reader = ProtocolClient::follow(&harness.ask_with_options("1", options.clone())).await;
    assert_eq!(attempt_lines(&reader), ["1 b timeout 0", "2 a ok 0"]);
    options.no_failover = true;
    let reader = ProtocolClient::follow(&harness.ask_with_options("2", options)).await;
    assert_eq!(attempt_lines(&reader), ["1 b timeout 0"]);
    assert_fallback(&reader);
}

#[actix_rt::test(system = "Paused")]
async fn tokens_and_costs_are_summed_over_attempts() {
    let first = vec![
        say("Hel"),
        ScriptStep::ReportUsage(10, 1),
        ScriptStep::ReportUsage(10, 2),
        ScriptStep::Fail(Failure::new(FaultKind::Reset)),
    ];
    let second = vec![
        ScriptStep::ReportUsage(10, 0),
        say("Hello."),
        ScriptStep::ReportUsage(11, 4),
        end(),
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![first],
        vec![second],
    ]))
    .await;
    let usage = reader.done().usage.unwrap();
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.estimated),
        (21, 6, false)
    );
    assert!((reader.done().cost_usd.unwrap() - 33.0 / 1e6).abs() < 1e-12);
}

#[actix_rt::test(system = "Paused")]
async fn unreported_tokens_are_estimated_only_for_answered_attempts() {
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![fail_with(FaultKind::Timeout)],
        vec![reply("Hello, you.")],
    ]))
    .await;
    let usage = reader.done().usage.unwrap();
    // "Be kind." and "What is new?" are 20 characters, the answer is 11.
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.estimated),
        (5, 3, true)
    );
}

mod context_limit;
