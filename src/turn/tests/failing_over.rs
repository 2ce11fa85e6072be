//! Who is asked after a failure, when, and with what.

use super::*;
use crate::provider::breaker::Verdict;
use crate::provider::scripted::Call;
use crate::settings::MidStream;
use crate::turn::desk::Wishes;

fn asked(calls: &[Call]) -> Vec<String> {
    let said = |call: &Call| {
        let each = call.ask.messages.iter().map(|message| &*message.text);
        each.collect::<Vec<_>>().join(" ")
    };
    calls.iter().map(said).collect()
}

#[actix_rt::test(system = "Paused")]
async fn a_quick_passing_fault_is_tried_again_after_a_back_off() {
    for fault in [Fault::Reset, Fault::ServerError] {
        let stage = House::following([vec![fails(fault), says("Hello.")], vec![]]).open();
        let reader = answer(&stage).await;
        assert_eq!(
            tried(&reader),
            [format!("1 a {} 0", fault.reason()), "2 a ok 0".to_owned()]
        );
        let calls = stage.calls(0);
        assert_eq!(
            calls[1].at - calls[0].at,
            ms(100),
            "half of the first 200 ms, as chance says"
        );
        assert_eq!(reader.done().total_ms, 100);
    }
}

#[actix_rt::test(system = "Paused")]
async fn other_faults_go_to_the_next_provider_at_once() {
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
async fn after_any_text_nobody_is_asked_twice() {
    let reader = first_answer(House::following([
        vec![breaks("Hel", Fault::Reset)],
        vec![says("Hello.")],
    ]))
    .await;
    assert_eq!(tried(&reader), ["1 a reset 0", "2 b ok 0"]);
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt token done",
        "it goes on where the other broke off"
    );
}

#[actix_rt::test(system = "Paused")]
async fn what_was_long_in_failing_is_not_tried_again() {
    let slow = vec![
        Act::Wait(ms(2_100)),
        Act::Fail(Failure::of(Fault::ServerError)),
    ];
    let reader = first_answer(House::following([vec![slow], vec![says("Hello.")]])).await;
    assert_eq!(tried(&reader), ["1 a server_error 2100", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn a_retry_leaves_an_attempt_for_each_provider_not_yet_tried() {
    let down = || vec![fails(Fault::Reset)];
    let mut house = House::following([down(), down(), down()]);
    let four = answer(&house.clone().open()).await;
    assert_eq!(
        tried(&four),
        ["1 a reset 0", "2 a reset 0", "3 b reset 0", "4 c reset 0"]
    );
    assert_fallback(&four);
    house.settings.routing.max_attempts = 2;
    assert_eq!(
        tried(&answer(&house.open()).await),
        ["1 a reset 0", "2 b reset 0"]
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_short_retry_after_is_waited_for_and_a_long_one_is_not() {
    let ask = async |wait| {
        let stage =
            House::following([vec![limited(wait), says("Hello.")], vec![says("Good day.")]]).open();
        let reader = answer(&stage).await;
        (tried(&reader), reader.done().total_ms)
    };
    let again = ["1 a rate_limited 0", "2 a ok 0"]
        .map(str::to_owned)
        .to_vec();
    let other = ["1 a rate_limited 0", "2 b ok 0"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(ask(s(2)).await, (again, 2_000));
    assert_eq!(ask(ms(2_001)).await, (other.clone(), 0));
    let stage = House::following([vec![fails(Fault::RateLimited)], vec![]]).open();
    assert_eq!(tried(&answer(&stage).await), other, "without a Retry-After");
}

#[actix_rt::test(system = "Paused")]
async fn who_asked_to_be_left_alone_is() {
    let stage = House::following([
        vec![limited(s(30)), says("Hello.")],
        vec![says("Good day.")],
    ])
    .open();
    assert_answered(&answer(&stage).await, "b", "Good day.");
    for _ in 0..3 {
        pass(s(5)).await;
        assert_answered(&answer(&stage).await, "b", "Good day.");
    }
    assert_eq!(stage.calls(0).len(), 1, "no call before the wait is over");
    pass(s(15)).await;
    assert_answered(&answer(&stage).await, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn a_wait_for_one_ends_at_another_where_that_one_opened_meanwhile() {
    let stage =
        House::following([vec![limited(s(2)), says("Hello.")], vec![says("Good day.")]]).open();
    let other_call = stage.stands[0].admit().await.unwrap();
    let log = stage.ask("m");
    pass(s(1)).await;
    assert!(
        stage.stands[0].admit().await.is_err(),
        "it asked to be left alone"
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
async fn a_refusal_is_the_answer() {
    let policy = |words: &str| vec![say(words), Act::End(Finish::ContentFilter)];
    let scripts = [
        fails(Fault::Policy),
        vec![Act::End(Finish::ContentFilter)],
        policy(" "),
        policy("I cannot."),
    ];
    for script in scripts {
        let stage = House::following([vec![script], vec![says("Hello.")]]).open();
        let reader = answer(&stage).await;
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
        let vitals = stage.stands[0].vitals().await;
        assert_eq!(
            (vitals.successes, vitals.failures),
            (0, 0),
            "it says nothing of the provider's health"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn a_bad_request_goes_to_one_more_provider_and_moves_no_breaker() {
    let bad = || vec![fails(Fault::BadRequest)];
    let stage = House::following([bad(), bad(), vec![says("Hello.")]]).open();
    for _ in 0..20 {
        let log = stage.ask(&format!("m{}", stage.calls(0).len()));
        let reader = Reader::follow(&log).await;
        assert_eq!(tried(&reader), ["1 a refused 0", "2 b refused 0"]);
        assert_fallback(&reader);
    }
    assert_eq!(stage.stands[0].vitals().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn a_wish_is_asked_first_or_alone() {
    let stage = House::following([
        vec![says("A.")],
        vec![fails(Fault::Timeout)],
        vec![says("C.")],
    ])
    .open();
    let mut wishes = Wishes {
        first: Some("b".into()),
        ..stage.desk.usual()
    };
    let reader = Reader::follow(&stage.ask_with("1", wishes.clone())).await;
    assert_eq!(tried(&reader), ["1 b timeout 0", "2 a ok 0"]);
    wishes.only_first = true;
    let reader = Reader::follow(&stage.ask_with("2", wishes)).await;
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
async fn unreported_tokens_are_estimated_only_where_text_came() {
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

mod room {
    use super::*;

    fn plan(name: &'static str, room: u32, scripts: impl IntoIterator<Item = Script>) -> Plan {
        Plan {
            context_tokens: room,
            ..Plan::new(name).with(scripts)
        }
    }

    fn long() -> Script {
        fails(Fault::TooLong)
    }

    #[actix_rt::test(system = "Paused")]
    async fn too_long_goes_to_more_or_unknown_room() {
        let plans = [
            plan("a", 100, [long()]),
            plan("b", 50, []),
            plan("c", 200, [long()]),
            plan("d", 0, []),
        ];
        let reader = first_answer(House::of(plans)).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 c refused 0", "3 d ok 0"]
        );
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_failure_on_the_way_does_not_lead_back_to_less_room() {
        let plans = [
            plan("a", 100, [long()]),
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
    async fn then_half_the_history_is_sent_once() {
        let stage = House::of([plan("a", 200, [long(), says("Hello.")])]).open();
        stage.remember(4).await;
        let reader = answer(&stage).await;
        assert_eq!(tried(&reader), ["1 a refused 0", "2 a ok 0"]);
        let expected = [
            "q1 a1 q2 a2 q3 a3 q4 a4 What is new?",
            "q3 a3 q4 a4 What is new?",
        ];
        assert_eq!(asked(&stage.calls(0)), expected);
    }

    #[actix_rt::test(system = "Paused")]
    async fn each_gets_as_much_of_the_history_as_it_has_room_for() {
        // The question takes 13 tokens, each turn 10, and half the room is kept for the answer.
        let plans = [
            plan("a", 70, [fails(Fault::Timeout)]),
            plan("b", 20, []),
            plan("c", 100, [breaks("Hello", Fault::Reset)]),
            plan("d", 0, [says("Hello.")]),
        ];
        let stage = House::of(plans).open();
        stage.remember(4).await;
        let reader = answer(&stage).await;
        assert_eq!(
            tried(&reader),
            ["1 a timeout 0", "2 c reset 0", "3 d ok 0"],
            "b has no room for the question"
        );
        assert_eq!(asked(&stage.calls(0)), ["q3 a3 q4 a4 What is new?"]);
        assert_eq!(asked(&stage.calls(2)), ["q2 a2 q3 a3 q4 a4 What is new?"]);
        assert_eq!(
            asked(&stage.calls(3)),
            ["q1 a1 q2 a2 q3 a3 q4 a4 What is new?"]
        );
        let limits = |stand: usize| stage.calls(stand)[0].ask.max_tokens;
        assert_eq!([limits(0), limits(2), limits(3)], [37, 57, 1024]);
    }

    #[actix_rt::test(system = "Paused")]
    async fn what_was_begun_is_never_cut() {
        let plans = [
            plan("a", 0, [breaks("Hello", Fault::Reset)]),
            plan("b", 40, [says("Hello.")]),
        ];
        let stage = House::of(plans.map(|plan| Plan {
            prefill: true,
            ..plan
        }))
        .open();
        stage.remember(4).await;
        let usual = stage.desk.usual();
        let log = stage.ask_with(
            "m",
            Wishes {
                mid_stream: MidStream::Continue,
                ..usual
            },
        );
        stage.ended(&log).await;
        assert_eq!(asked(&stage.calls(1)), ["What is new? Hello"]);
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_question_too_long_for_all_goes_down_the_ladder_unasked() {
        let stage = House::of([plan("a", 20, []), plan("b", 24, [])]).open();
        let reader = answer(&stage).await;
        assert_fallback(&reader);
        assert!(stage.calls(0).is_empty() && stage.calls(1).is_empty());
    }

    #[actix_rt::test(system = "Paused")]
    async fn what_is_still_too_long_goes_down_the_ladder() {
        let stage = House::of([plan("a", 100, [long()])]).open();
        stage.remember(8).await;
        let reader = answer(&stage).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 a refused 0"],
            "half the history is tried once"
        );
        assert_fallback(&reader);
    }

    #[actix_rt::test(system = "Paused")]
    async fn without_a_history_there_is_nothing_to_halve() {
        let reader = first_answer(House::of([plan("a", 100, [long()])])).await;
        assert_eq!(tried(&reader), ["1 a refused 0"]);
        assert_fallback(&reader);
    }

    #[actix_rt::test(system = "Paused")]
    async fn who_failed_otherwise_is_not_asked_again_with_half_the_history() {
        let stage = House::of([
            plan("a", 0, [long(), says("Hello.")]),
            plan("b", 0, [fails(Fault::Timeout)]),
        ]);
        let stage = stage.open();
        stage.remember(2).await;
        let reader = answer(&stage).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 b timeout 0", "3 a ok 0"]
        );
    }

    #[actix_rt::test(system = "Paused")]
    async fn half_the_history_may_fail_over_too() {
        let broken = [long(), fails(Fault::Timeout)];
        let stage = House::of([plan("a", 100, broken), plan("b", 100, [])]).open();
        stage.remember(2).await;
        let reader = answer(&stage).await;
        assert_eq!(
            tried(&reader),
            ["1 a refused 0", "2 a timeout 0", "3 b ok 0"]
        );
        assert_eq!(stage.stands[0].vitals().await.state, ProviderState::Closed);
    }
}
