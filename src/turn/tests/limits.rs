//! Time limits, and the conditions of a valid answer.

use super::*;

/// A provider that never sends a token.
fn silence() -> Vec<Script> {
    vec![hang()]
}

#[actix_rt::test(system = "Paused")]
async fn first_token_timeouts_grow_and_the_last_one_repeats() {
    let reader = first_answer(TestServiceBuilder::with_scripts([
        silence(),
        silence(),
        silence(),
        silence(),
    ]))
    .await;
    assert_eq!(
        attempt_lines(&reader),
        [
            "1 a timeout 5000",
            "2 b timeout 10000",
            "3 c timeout 15000",
            "4 d timeout 15000"
        ]
    );
    assert_eq!(
        reader.kinds(),
        "start attempt attempt attempt attempt token done"
    );
    assert_fallback(&reader);
    assert_eq!(reader.done().total_ms, 45_000);
}

#[actix_rt::test(system = "Paused")]
async fn slow_answer_within_all_limits_is_accepted() {
    let slow = vec![
        ScriptStep::Pause(ms(4_900)),
        say("He"),
        ScriptStep::Pause(ms(14_900)),
        say("llo"),
        ScriptStep::Pause(ms(14_900)),
        end(),
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts([vec![slow]])).await;
    assert_answered(&reader, "a", "Hello");
    assert_eq!(
        (reader.done().first_token_ms, reader.done().total_ms),
        (Some(4_900), 34_700)
    );
}

#[actix_rt::test(system = "Paused")]
async fn stalled_attempt_is_ended_and_the_text_restarts() {
    let stalls = vec![
        say("Hel"),
        ScriptStep::Pause(s(3)),
        say("lo"),
        ScriptStep::Hang,
    ];
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![stalls],
        vec![reply("Good day.")],
    ]))
    .await;
    assert_eq!(attempt_lines(&reader), ["1 a stalled 18000", "2 b ok 0"]);
    assert_eq!(
        reader.kinds(),
        "start attempt token token attempt restart token done"
    );
    assert_eq!(reader.drafts, [("a".into(), "Hello".to_owned())]);
    assert_answered(&reader, "b", "Good day.");
}

#[actix_rt::test(system = "Paused")]
async fn missing_end_is_a_stall_too() {
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![vec![say("Hello."), ScriptStep::Hang]],
        vec![reply("Hello.")],
    ]))
    .await;
    assert_eq!(attempt_lines(&reader), ["1 a stalled 15000", "2 b ok 0"]);
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt done",
        "the same text needs no restart"
    );
    assert_answered(&reader, "b", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn thinking_counts_as_tokens_and_shows_nothing() {
    let mut thinks: Script = (0..4)
        .flat_map(|_| [ScriptStep::Pause(ms(4_900)), ScriptStep::Think])
        .collect();
    thinks.extend([ScriptStep::Pause(ms(14_900)), say("Hello."), end()]);
    let reader = first_answer(TestServiceBuilder::with_scripts([vec![thinks]])).await;
    assert_answered(&reader, "a", "Hello.");
    assert_eq!(reader.kinds(), "start attempt token done");
    assert_eq!(
        reader.done().first_token_ms,
        Some(34_500),
        "until the first shown text"
    );
}

#[actix_rt::test(system = "Paused")]
async fn thinking_that_stops_is_a_stall() {
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![vec![ScriptStep::Think, ScriptStep::Hang]],
        vec![reply("Hello.")],
    ]))
    .await;
    assert_eq!(attempt_lines(&reader), ["1 a stalled 15000", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn usage_does_not_count_as_a_token() {
    let usage = (0..9)
        .flat_map(|_| [ScriptStep::Pause(s(1)), ScriptStep::ReportUsage(1, 1)])
        .collect();
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![usage],
        vec![reply("Hello.")],
    ]))
    .await;
    assert_eq!(attempt_lines(&reader), ["1 a timeout 5000", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn endless_answer_ends_at_the_attempt_timeout() {
    let endless = vec![ScriptStep::RepeatForever("ha".to_owned(), ms(500))];
    let reader = first_answer(TestServiceBuilder::with_scripts([
        vec![endless],
        vec![reply("Hello.")],
    ]))
    .await;
    assert_eq!(attempt_lines(&reader), ["1 a timeout 90000", "2 b ok 0"]);
    assert_answered(&reader, "b", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn turn_timeout_ends_the_last_attempt_and_starts_no_other() {
    let endless = || vec![vec![ScriptStep::RepeatForever("ha".to_owned(), ms(500))]];
    let reader = first_answer(TestServiceBuilder::with_scripts([
        endless(),
        silence(),
        endless(),
        silence(),
    ]))
    .await;
    assert_eq!(
        attempt_lines(&reader),
        [
            "1 a timeout 90000",
            "2 b timeout 10000",
            "3 c timeout 20000"
        ]
    );
    assert_fallback(&reader);
    assert_eq!(reader.done().total_ms, 120_000);
    assert_eq!(
        reader
            .kinds()
            .split(' ')
            .filter(|kind| *kind == "restart")
            .count(),
        1
    );
}

#[actix_rt::test(system = "Paused")]
async fn no_attempt_starts_in_the_last_half_second() {
    let mut builder = TestServiceBuilder::with_scripts([silence(), vec![reply("Hello.")]]);
    builder.settings.timeouts.turn = ms(5_499);
    assert_fallback(&first_answer(builder).await);
    let mut builder = TestServiceBuilder::with_scripts([silence(), vec![reply("Hello.")]]);
    builder.settings.timeouts.turn = ms(5_500);
    let harness = builder.start();
    assert_answered(&ask_once(&harness).await, "b", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn answer_without_text_is_malformed() {
    let empty_answers: [Script; 6] = [
        vec![end()],
        vec![],
        vec![ScriptStep::Think, ScriptStep::ReportUsage(3, 0), end()],
        reply(" \n\t"),
        vec![say(" "), ScriptStep::Pause(s(1)), say("\u{a0}\n"), end()],
        vec![ScriptStep::Finish(FinishReason::Length)],
    ];
    for script in empty_answers {
        let harness =
            TestServiceBuilder::with_scripts([vec![script.clone()], vec![reply("Hello.")]]).start();
        let reader = ask_once(&harness).await;
        assert_answered(&reader, "b", "Hello.");
        assert_eq!(
            reader.kinds(),
            "start attempt attempt token done",
            "nothing is shown: {script:?}"
        );
        let outcome = reader.done().tried[0].outcome.as_str();
        assert_eq!(
            outcome,
            if script.is_empty() {
                "truncated"
            } else {
                "malformed"
            },
            "{script:?}"
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn short_text_is_held_back_until_it_is_long_enough() {
    let start_with = |first: Script| {
        let mut builder = TestServiceBuilder::with_scripts([vec![first], vec![reply("Good day.")]]);
        builder.settings.quality.min_chars = 5;
        builder.start()
    };
    let short = ask_once(&start_with(reply(" ok! \n"))).await;
    assert_eq!(
        (attempt_lines(&short), short.kinds().as_str()),
        (
            vec!["1 a malformed 0".to_owned(), "2 b ok 0".to_owned()],
            "start attempt attempt token done"
        )
    );
    let cut = ask_once(&start_with(break_after("ok!", FaultKind::Stalled))).await;
    assert_eq!(
        cut.kinds(),
        "start attempt attempt token done",
        "text that was held back needs no restart"
    );
    let grows = vec![
        say(" o"),
        ScriptStep::Pause(s(1)),
        say("k! "),
        ScriptStep::Pause(s(1)),
        say("é!"),
        end(),
    ];
    let grown = ask_once(&start_with(grows)).await;
    assert_answered(&grown, "a", " ok! é!");
    assert_eq!(
        (grown.kinds().as_str(), grown.done().first_token_ms),
        ("start attempt token done", Some(2_000))
    );
}

#[actix_rt::test(system = "Paused")]
async fn complete_answer_may_end_at_its_length_limit() {
    let script = vec![say("Hello and"), ScriptStep::Finish(FinishReason::Length)];
    let reader = first_answer(TestServiceBuilder::with_scripts([vec![script]])).await;
    assert_eq!(
        (reader.done().finish, &*reader.text),
        (FinishReason::Length, "Hello and")
    );
}

#[actix_rt::test(system = "Paused")]
async fn turn_timeout_is_not_the_providers_failure() {
    let mut builder = TestServiceBuilder::with_scripts([vec![vec![ScriptStep::RepeatForever(
        "ha".to_owned(),
        ms(500),
    )]]]);
    builder.settings.timeouts.turn = s(10);
    let harness = builder.start();
    for turn in 0..6 {
        let reader = ProtocolClient::follow(&harness.ask(&format!("m{turn}"))).await;
        assert_eq!(reader.done().tried[0].outcome.as_str(), "timeout");
    }
    let status = harness.providers[0].status().await;
    assert_eq!((status.state, status.failures), (ProviderState::Closed, 0));
    harness.assert_idle().await;
}
