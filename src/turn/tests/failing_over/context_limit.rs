//! Prompts that are too long for a provider.

use super::*;

fn plan(
    name: &'static str,
    context_tokens: u32,
    scripts: impl IntoIterator<Item = Script>,
) -> BenchOptions {
    BenchOptions {
        context_tokens,
        ..BenchOptions::new(name).with_scripts(scripts)
    }
}

fn too_long() -> Script {
    fail_with(FaultKind::TooLong)
}

#[actix_rt::test(system = "Paused")]
async fn too_long_request_goes_to_a_larger_or_unknown_context() {
    let plans = [
        plan("a", 100, [too_long()]),
        plan("b", 50, []),
        plan("c", 200, [too_long()]),
        plan("d", 0, []),
    ];
    let reader = first_answer(TestServiceBuilder::with_providers(plans)).await;
    assert_eq!(
        attempt_lines(&reader),
        ["1 a refused 0", "2 c refused 0", "3 d ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn later_failure_does_not_lead_back_to_a_smaller_context() {
    let plans = [
        plan("a", 100, [too_long()]),
        plan("b", 200, [fail_with(FaultKind::Timeout)]),
        plan("c", 50, []),
        plan("d", 300, []),
    ];
    let reader = first_answer(TestServiceBuilder::with_providers(plans)).await;
    assert_eq!(
        attempt_lines(&reader),
        ["1 a refused 0", "2 b timeout 0", "3 d ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn history_is_halved_once_when_no_larger_context_is_left() {
    let harness =
        TestServiceBuilder::with_providers([plan("a", 200, [too_long(), reply("Hello.")])]).start();
    harness.store_old_turns(4).await;
    let reader = ask_once(&harness).await;
    assert_eq!(attempt_lines(&reader), ["1 a refused 0", "2 a ok 0"]);
    let expected = [
        "q1 a1 q2 a2 q3 a3 q4 a4 What is new?",
        "q3 a3 q4 a4 What is new?",
    ];
    assert_eq!(requests(&harness.calls(0)), expected);
}

#[actix_rt::test(system = "Paused")]
async fn each_provider_gets_as_much_history_as_fits() {
    // The question takes 13 tokens, each turn 10, and half the context is kept for the answer.
    let plans = [
        plan("a", 70, [fail_with(FaultKind::Timeout)]),
        plan("b", 20, []),
        plan("c", 100, [break_after("Hello", FaultKind::Reset)]),
        plan("d", 0, [reply("Hello.")]),
    ];
    let harness = TestServiceBuilder::with_providers(plans).start();
    harness.store_old_turns(4).await;
    let reader = ask_once(&harness).await;
    assert_eq!(
        attempt_lines(&reader),
        ["1 a timeout 0", "2 c reset 0", "3 d ok 0"],
        "the question does not fit into b's context"
    );
    assert_eq!(requests(&harness.calls(0)), ["q3 a3 q4 a4 What is new?"]);
    assert_eq!(
        requests(&harness.calls(2)),
        ["q2 a2 q3 a3 q4 a4 What is new?"]
    );
    assert_eq!(
        requests(&harness.calls(3)),
        ["q1 a1 q2 a2 q3 a3 q4 a4 What is new?"]
    );
    let max_tokens = |provider: usize| harness.calls(provider)[0].request.max_tokens;
    assert_eq!(
        [max_tokens(0), max_tokens(2), max_tokens(3)],
        [37, 57, 1024]
    );
}

#[actix_rt::test(system = "Paused")]
async fn started_answer_is_never_truncated() {
    let plans = [
        plan("a", 0, [break_after("Hello", FaultKind::Reset)]),
        plan("b", 40, [reply("Hello.")]),
    ];
    let harness = TestServiceBuilder::with_providers(plans.map(|plan| BenchOptions {
        supports_prefill: true,
        ..plan
    }))
    .start();
    harness.store_old_turns(4).await;
    let defaults = harness.turns.default_options();
    let log = harness.ask_with_options(
        "m",
        TurnOptions {
            mid_stream: MidStream::Continue,
            ..defaults
        },
    );
    harness.wait_until_done(&log).await;
    assert_eq!(requests(&harness.calls(1)), ["What is new? Hello"]);
}

#[actix_rt::test(system = "Paused")]
async fn question_too_long_for_all_gets_the_fallback_without_a_call() {
    let harness =
        TestServiceBuilder::with_providers([plan("a", 20, []), plan("b", 24, [])]).start();
    let reader = ask_once(&harness).await;
    assert_fallback(&reader);
    assert!(harness.calls(0).is_empty() && harness.calls(1).is_empty());
}

#[actix_rt::test(system = "Paused")]
async fn fallback_answers_if_half_the_history_is_still_too_long() {
    let harness = TestServiceBuilder::with_providers([plan("a", 100, [too_long()])]).start();
    harness.store_old_turns(8).await;
    let reader = ask_once(&harness).await;
    assert_eq!(
        attempt_lines(&reader),
        ["1 a refused 0", "2 a refused 0"],
        "the history is halved once"
    );
    assert_fallback(&reader);
}

#[actix_rt::test(system = "Paused")]
async fn request_without_history_is_not_halved() {
    let reader = first_answer(TestServiceBuilder::with_providers([plan(
        "a",
        100,
        [too_long()],
    )]))
    .await;
    assert_eq!(attempt_lines(&reader), ["1 a refused 0"]);
    assert_fallback(&reader);
}

#[actix_rt::test(system = "Paused")]
async fn provider_with_another_failure_is_not_asked_with_half_the_history() {
    let harness = TestServiceBuilder::with_providers([
        plan("a", 0, [too_long(), reply("Hello.")]),
        plan("b", 0, [fail_with(FaultKind::Timeout)]),
    ]);
    let harness = harness.start();
    harness.store_old_turns(2).await;
    let reader = ask_once(&harness).await;
    assert_eq!(
        attempt_lines(&reader),
        ["1 a refused 0", "2 b timeout 0", "3 a ok 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn half_the_history_may_fail_over_too() {
    let broken = [too_long(), fail_with(FaultKind::Timeout)];
    let harness =
        TestServiceBuilder::with_providers([plan("a", 100, broken), plan("b", 100, [])]).start();
    harness.store_old_turns(2).await;
    let reader = ask_once(&harness).await;
    assert_eq!(
        attempt_lines(&reader),
        ["1 a refused 0", "2 a timeout 0", "3 b ok 0"]
    );
    assert_eq!(
        harness.providers[0].status().await.state,
        ProviderState::Closed
    );
}
