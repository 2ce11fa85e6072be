//! The provider that is asked after a failure, the delay before, and the request it gets.

use super::*;
use crate::provider::breaker::Verdict;
use crate::provider::scripted::Call;
use crate::settings::MidStream;
use crate::turn::desk::Wishes;

/// The texts of each call's messages, separated by spaces.
fn requests(calls: &[Call]) -> Vec<String> {
    let texts = |call: &Call| {
        let texts = call.ask.messages.iter().map(|message| &*message.text);
        texts.collect::<Vec<_>>().join(" ")
    };
    calls.iter().map(texts).collect()
}

#[actix_rt::test(system = "Paused")]
async fn quick_transient_failure_is_retried_after_a_backoff() {
    for fault in [Fault::Reset, Fault::ServerError] {
        let harness = House::following([vec![fails(fault), says("Hello.")], vec![]]).open();
        let reader = answer(&harness).await;
        assert_eq!(
            tried(&reader),
            [format!("1 a {} 0", fault.reason()), "2 a ok 0".to_owned()]
        );
        let calls = harness.calls(0);
        assert_eq!(
            calls[1].at - calls[0].at,
            ms(100),
            "half of the initial 200 ms, since the random number is fixed"
        );
        assert_eq!(reader.done().total_ms, 100);
    }
}

#[actix_rt::test(system = "Paused")]
async fn other_failures_go_to_the_next_provider_at_once() {
    for fault in Fault::ALL {
        use crate::chat::Class;
        if !matches!(
            fault.class(),
            Class::NextNow | Class::Block | Class::MoreRoom | Class::Caller
        ) {
            continue;
        }
        let reader =
            answer(&House::following([vec![fails(fault)], vec![says("Hello.")]]).open()).await;
        assert_eq!(
            tried(&reader),
            [format!("1 a {} 0", fault.reason()), "2 b ok 0".to_owned()],
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
    let reader = first_answer(House::following([
        vec![breaks("Hel", Fault::Reset)],
        vec![says("Hello.")],
    ]))
    .await;
    assert_eq!(tried(&reader), ["1 a reset 0", "2 b ok 0"]);
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt token done",
        "it continues the text of the first"
    );
}

#[actix_rt::test(system = "Paused")]
async fn slow_failure_is_not_retried() {
    let slow = vec![
        Act::Wait(ms(2_100)),
        Act::Fail(Failure::of(Fault::ServerError)),
    ];
    let reader = first_answer(House::following([vec![slow], vec![says("Hello.")]])).await;
    assert_eq!(tried(&reader), ["1 a server_error 2100", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn retry_leaves_an_attempt_for_each_untried_provider() {
    let failing = || vec![fails(Fault::Reset)];
    let mut builder = House::following([failing(), failing(), failing()]);
    let exhausted = answer(&builder.clone().open()).await;
    assert_eq!(
        tried(&exhausted),
        ["1 a reset 0", "2 a reset 0", "3 b reset 0", "4 c reset 0"]
    );
    assert_fallback(&exhausted);
    builder.settings.routing.max_attempts = 2;
    assert_eq!(
        tried(&answer(&builder.open()).await),
        ["1 a reset 0", "2 b reset 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn short_retry_after_is_waited_for_and_a_long_one_is_not() {
    let answer_to = async |retry_after| {
        let harness = House::following([
            vec![limited(retry_after), says("Hello.")],
            vec![says("Good day.")],
        ])
        .open();
        let reader = answer(&harness).await;
        (tried(&reader), reader.done().total_ms)
    };
    let same_provider = ["1 a rate_limited 0", "2 a ok 0"]
        .map(str::to_owned)
        .to_vec();
    let next_provider = ["1 a rate_limited 0", "2 b ok 0"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(answer_to(s(2)).await, (same_provider, 2_000));
    assert_eq!(answer_to(ms(2_001)).await, (next_provider.clone(), 0));
    let harness = House::following([vec![fails(Fault::RateLimited)], vec![]]).open();
    assert_eq!(
        tried(&answer(&harness).await),
        next_provider,
        "without a Retry-After"
    );
}

#[actix_rt::test(system = "Paused")]
async fn retry_after_is_respected_by_later_turns() {
    let harness = House::following([
        vec![limited(s(30)), says("Hello.")],
        vec![says("Good day.")],
    ])
    .open();
    assert_answered(&answer(&harness).await, "b", "Good day.");
    for _ in 0..3 {
        pass(s(5)).await;
        assert_answered(&answer(&harness).await, "b", "Good day.");
    }
    assert_eq!(harness.calls(0).len(), 1, "no call before Retry-After");
    pass(s(15)).await;
    assert_answered(&answer(&harness).await, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn waiting_for_a_provider_ends_when_its_breaker_opens() {
    let harness =
        House::following([vec![limited(s(2)), says("Hello.")], vec![says("Good day.")]]).open();
    let other_call = harness.stands[0].admit().await.unwrap();
    let log = harness.ask("m");
    pass(s(1)).await;
    assert!(
        harness.stands[0].admit().await.is_err(),
        "its Retry-After has not passed"
    );
    other_call.settle(Verdict::Failed {
        fault: Fault::Unauthorized,
        started: false,
        retry_after: None,
    });
    let reader = Reader::follow(&log).await;
    assert_eq!(tried(&reader), ["1 a rate_limited 0", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn content_filter_refusal_is_the_answer() {
    let filtered = |text: &str| vec![say(text), Act::End(Finish::ContentFilter)];
    let scripts = [
        fails(Fault::Policy),
        vec![Act::End(Finish::ContentFilter)],
        filtered(" "),
        filtered("I cannot."),
    ];
    for script in scripts {
        let harness = House::following([vec![script], vec![says("Hello.")]]).open();
        let reader = answer(&harness).await;
        let done = reader.done();
        assert_eq!(
            (done.finish, done.source, done.attempts),
            (Finish::ContentFilter, Source::Ai, 1)
        );
        assert!(
            done.text.contains("filter refused") || done.text == "I cannot.",
            "{}",
            done.text
        );
        let status = harness.stands[0].vitals().await;
        assert_eq!(
            (status.successes, status.failures),
            (0, 0),
            "it says nothing about the provider's health"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn bad_request_tries_one_more_provider_and_moves_no_breaker() {
    let bad = || vec![fails(Fault::BadRequest)];
    let harness = House::following([bad(), bad(), vec![says("Hello.")]]).open();
    for _ in 0..20 {
        let log = harness.ask(&format!("m{}", harness.calls(0).len()));
        let reader = Reader::follow(&log).await;
        assert_eq!(tried(&reader), ["1 a refused 0", "2 b refused 0"]);
        assert_fallback(&reader);
    }
    assert_eq!(
        harness.stands[0].vitals().await.state,
        ProviderState::Closed
    );
}

#[actix_rt::test(system = "Paused")]
async fn preferred_provider_is_asked_first_or_alone() {
    let harness = House::following([
        vec![says("A.")],
        vec![fails(Fault::Timeout)],
        vec![says("C.")],
    ])
    .open();
    let mut options = Wishes {
        first: Some("b".into()),
        ..harness.desk.usual()
    };
    let reader = Reader::follow(&harness.ask_with("1", options.clone())).await;
    assert_eq!(tried(&reader), ["1 b timeout 0", "2 a ok 0"]);
    options.only_first = true;
    let reader = Reader::follow(&harness.ask_with("2", options)).await;
    assert_eq!(tried(&reader), ["1 b timeout 0"]);
    assert_fallback(&reader);
}

#[actix_rt::test(system = "Paused")]
async fn tokens_and_costs_are_summed_over_attempts() {
    let first = vec![
        say("Hel"),
        Act::Used(10, 1),
        Act::Used(10, 2),
        Act::Fail(Failure::of(Fault::Reset)),
    ];
    let second = vec![Act::Used(10, 0), say("Hello."), Act::Used(11, 4), end()];
    let reader = first_answer(House::following([vec![first], vec![second]])).await;
    let usage = reader.done().usage.unwrap();
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.estimated),
        (21, 6, false)
    );
    assert!((reader.done().cost_usd.unwrap() - 33.0 / 1e6).abs() < 1e-12);
}

#[actix_rt::test(system = "Paused")]
async fn unreported_tokens_are_estimated_only_for_answered_attempts() {
    let reader = first_answer(House::following([
        vec![fails(Fault::Timeout)],
        vec![says("Hello, you.")],
    ]))
    .await;
    let usage = reader.done().usage.unwrap();
    // "Be kind." and "What is new?" are 20 characters, the answer is 11.
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.estimated),
        (5, 3, true)
    );
}

mod context_limit {
    use super::*;

    fn plan(
        name: &'static str,
        context_tokens: u32,
        scripts: impl IntoIterator<Item = Script>,
    ) -> Plan {
        Plan {
            context_tokens,
            ..Plan::new(name).with(scripts)
        }
    }

    fn too_long() -> Script {
        fails(Fault::TooLong)
    }

    #[actix_rt::test(system = "Paused")]
    async fn too_long_request_goes_to_a_larger_or_unknown_context() {
        let plans = [
            plan("a", 100, [too_long()]),
            plan("b", 50, []),
            plan("c", 200, [too_long()]),
            plan("d", 0, []),
        ];
        let reader = first_answer(House::of(plans)).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 c refused 0", "3 d ok 0"]
        );
    }

    #[actix_rt::test(system = "Paused")]
    async fn later_failure_does_not_lead_back_to_a_smaller_context() {
        let plans = [
            plan("a", 100, [too_long()]),
            plan("b", 200, [fails(Fault::Timeout)]),
            plan("c", 50, []),
            plan("d", 300, []),
        ];
        let reader = first_answer(House::of(plans)).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 b timeout 0", "3 d ok 0"]
        );
    }

    #[actix_rt::test(system = "Paused")]
    async fn history_is_halved_once_when_no_larger_context_is_left() {
        let harness = House::of([plan("a", 200, [too_long(), says("Hello.")])]).open();
        harness.remember(4).await;
        let reader = answer(&harness).await;
        assert_eq!(tried(&reader), ["1 a refused 0", "2 a ok 0"]);
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
            plan("a", 70, [fails(Fault::Timeout)]),
            plan("b", 20, []),
            plan("c", 100, [breaks("Hello", Fault::Reset)]),
            plan("d", 0, [says("Hello.")]),
        ];
        let harness = House::of(plans).open();
        harness.remember(4).await;
        let reader = answer(&harness).await;
        assert_eq!(
            tried(&reader),
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
        let max_tokens = |provider: usize| harness.calls(provider)[0].ask.max_tokens;
        assert_eq!(
            [max_tokens(0), max_tokens(2), max_tokens(3)],
            [37, 57, 1024]
        );
    }

    #[actix_rt::test(system = "Paused")]
    async fn started_answer_is_never_truncated() {
        let plans = [
            plan("a", 0, [breaks("Hello", Fault::Reset)]),
            plan("b", 40, [says("Hello.")]),
        ];
        let harness = House::of(plans.map(|plan| Plan {
            prefill: true,
            ..plan
        }))
        .open();
        harness.remember(4).await;
        let defaults = harness.desk.usual();
        let log = harness.ask_with(
            "m",
            Wishes {
                mid_stream: MidStream::Continue,
                ..defaults
            },
        );
        harness.ended(&log).await;
        assert_eq!(requests(&harness.calls(1)), ["What is new? Hello"]);
    }

    #[actix_rt::test(system = "Paused")]
    async fn question_too_long_for_all_gets_the_fallback_without_a_call() {
        let harness = House::of([plan("a", 20, []), plan("b", 24, [])]).open();
        let reader = answer(&harness).await;
        assert_fallback(&reader);
        assert!(harness.calls(0).is_empty() && harness.calls(1).is_empty());
    }

    #[actix_rt::test(system = "Paused")]
    async fn fallback_answers_if_half_the_history_is_still_too_long() {
        let harness = House::of([plan("a", 100, [too_long()])]).open();
        harness.remember(8).await;
        let reader = answer(&harness).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 a refused 0"],
            "the history is halved once"
        );
        assert_fallback(&reader);
    }

    #[actix_rt::test(system = "Paused")]
    async fn request_without_history_is_not_halved() {
        let reader = first_answer(House::of([plan("a", 100, [too_long()])])).await;
        assert_eq!(tried(&reader), ["1 a refused 0"]);
        assert_fallback(&reader);
    }

    #[actix_rt::test(system = "Paused")]
    async fn provider_with_another_failure_is_not_asked_with_half_the_history() {
        let harness = House::of([
            plan("a", 0, [too_long(), says("Hello.")]),
            plan("b", 0, [fails(Fault::Timeout)]),
        ]);
        let harness = harness.open();
        harness.remember(2).await;
        let reader = answer(&harness).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 b timeout 0", "3 a ok 0"]
        );
    }

    #[actix_rt::test(system = "Paused")]
    async fn half_the_history_may_fail_over_too() {
        let broken = [too_long(), fails(Fault::Timeout)];
        let harness = House::of([plan("a", 100, broken), plan("b", 100, [])]).open();
        harness.remember(2).await;
        let reader = answer(&harness).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 a timeout 0", "3 b ok 0"]
        );
        assert_eq!(
            harness.stands[0].vitals().await.state,
            ProviderState::Closed
        );
    }
}
