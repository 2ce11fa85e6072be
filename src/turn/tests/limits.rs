//! The limits of time, and what counts as an answer.

use super::*;

/// One provider that answers nothing in time, with every attempt to be made on others.
fn silence() -> Vec<Script> {
    vec![silent()]
}

#[actix_rt::test(system = "Paused")]
async fn first_tokens_are_waited_for_by_a_ladder_whose_last_step_repeats() {
    let reader = first_answer(House::following([
        silence(),
        silence(),
        silence(),
        silence(),
    ]))
    .await;
    assert_eq!(
        tried(&reader),
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
async fn a_slow_answer_within_every_limit_is_an_answer() {
    let slow = vec![
        Act::Wait(ms(4_900)),
        say("He"),
        Act::Wait(ms(14_900)),
        say("llo"),
        Act::Wait(ms(14_900)),
        end(),
    ];
    let reader = first_answer(House::following([vec![slow]])).await;
    assert_answered(&reader, "a", "Hello");
    assert_eq!(
        (reader.done().first_token_ms, reader.done().total_ms),
        (Some(4_900), 34_700)
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_stall_is_found_within_its_limit_and_the_text_starts_anew() {
    let stalls = vec![say("Hel"), Act::Wait(s(3)), say("lo"), Act::Hang];
    let reader = first_answer(House::following([vec![stalls], vec![says("Good day.")]])).await;
    assert_eq!(tried(&reader), ["1 a stalled 18000", "2 b ok 0"]);
    assert_eq!(
        reader.kinds(),
        "start attempt token token attempt restart token done"
    );
    assert_eq!(reader.drafts, [("a".into(), "Hello".to_owned())]);
    assert_answered(&reader, "b", "Good day.");
}

#[actix_rt::test(system = "Paused")]
async fn the_end_may_stall_too() {
    let reader = first_answer(House::following([
        vec![vec![say("Hello."), Act::Hang]],
        vec![says("Hello.")],
    ]))
    .await;
    assert_eq!(tried(&reader), ["1 a stalled 15000", "2 b ok 0"]);
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt done",
        "the same text needs no restart"
    );
    assert_answered(&reader, "b", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn thinking_counts_as_tokens_and_says_nothing() {
    let mut thinks: Script = (0..4)
        .flat_map(|_| [Act::Wait(ms(4_900)), Act::Think])
        .collect();
    thinks.extend([Act::Wait(ms(14_900)), say("Hello."), end()]);
    let reader = first_answer(House::following([vec![thinks]])).await;
    assert_answered(&reader, "a", "Hello.");
    assert_eq!(reader.kinds(), "start attempt token done");
    assert_eq!(
        reader.done().first_token_ms,
        Some(34_500),
        "to the first shown text"
    );
}

#[actix_rt::test(system = "Paused")]
async fn thinking_that_stops_is_a_stall() {
    let reader = first_answer(House::following([
        vec![vec![Act::Think, Act::Hang]],
        vec![says("Hello.")],
    ]))
    .await;
    assert_eq!(tried(&reader), ["1 a stalled 15000", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn what_was_used_is_no_token() {
    let used = (0..9)
        .flat_map(|_| [Act::Wait(s(1)), Act::Used(1, 1)])
        .collect();
    let reader = first_answer(House::following([vec![used], vec![says("Hello.")]])).await;
    assert_eq!(tried(&reader), ["1 a timeout 5000", "2 b ok 0"]);
}

#[actix_rt::test(system = "Paused")]
async fn an_endless_answer_ends_with_its_attempt() {
    let endless = vec![Act::Forever("ha".to_owned(), ms(500))];
    let reader = first_answer(House::following([vec![endless], vec![says("Hello.")]])).await;
    assert_eq!(tried(&reader), ["1 a timeout 90000", "2 b ok 0"]);
    assert_answered(&reader, "b", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn the_turns_limit_ends_the_last_attempt_and_no_other_is_begun() {
    let endless = || vec![vec![Act::Forever("ha".to_owned(), ms(500))]];
    let reader = first_answer(House::following([
        endless(),
        silence(),
        endless(),
        silence(),
    ]))
    .await;
    assert_eq!(
        tried(&reader),
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
async fn no_attempt_is_begun_too_late() {
    let mut house = House::following([silence(), vec![says("Hello.")]]);
    house.settings.timeouts.turn = ms(5_499);
    assert_fallback(&first_answer(house).await);
    let mut house = House::following([silence(), vec![says("Hello.")]]);
    house.settings.timeouts.turn = ms(5_500);
    let stage = house.open();
    assert_answered(&answer(&stage).await, "b", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn what_holds_no_text_is_no_answer() {
    let nothing: [Script; 6] = [
        vec![end()],
        vec![],
        vec![Act::Think, Act::Used(3, 0), end()],
        says(" \n\t"),
        vec![say(" "), Act::Wait(s(1)), say("\u{a0}\n"), end()],
        vec![Act::End(Finish::Length)],
    ];
    for script in nothing {
        let stage = House::following([vec![script.clone()], vec![says("Hello.")]]).open();
        let reader = answer(&stage).await;
        assert_answered(&reader, "b", "Hello.");
        assert_eq!(
            reader.kinds(),
            "start attempt attempt token done",
            "nothing of it is shown: {script:?}"
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
async fn too_few_characters_are_held_back_until_there_are_enough() {
    let with = |first: Script| {
        let mut house = House::following([vec![first], vec![says("Good day.")]]);
        house.settings.quality.min_chars = 5;
        house.open()
    };
    let short = answer(&with(says(" ok! \n"))).await;
    assert_eq!(
        (tried(&short), short.kinds().as_str()),
        (
            vec!["1 a malformed 0".to_owned(), "2 b ok 0".to_owned()],
            "start attempt attempt token done"
        )
    );
    let cut = answer(&with(breaks("ok!", Fault::Stalled))).await;
    assert_eq!(
        cut.kinds(),
        "start attempt attempt token done",
        "what was held back needs no restart"
    );
    let grows = vec![
        say(" o"),
        Act::Wait(s(1)),
        say("k! "),
        Act::Wait(s(1)),
        say("é!"),
        end(),
    ];
    let grown = answer(&with(grows)).await;
    assert_answered(&grown, "a", " ok! é!");
    assert_eq!(
        (grown.kinds().as_str(), grown.done().first_token_ms),
        ("start attempt token done", Some(2_000))
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_whole_answer_may_be_cut_by_its_length() {
    let script = vec![say("Hello and"), Act::End(Finish::Length)];
    let reader = first_answer(House::following([vec![script]])).await;
    assert_eq!(
        (reader.done().finish, &*reader.text),
        (Finish::Length, "Hello and")
    );
}

#[actix_rt::test(system = "Paused")]
async fn the_turns_own_limit_blames_nobody() {
    let mut house = House::following([vec![vec![Act::Forever("ha".to_owned(), ms(500))]]]);
    house.settings.timeouts.turn = s(10);
    let stage = house.open();
    for turn in 0..6 {
        let reader = Reader::follow(&stage.ask(&format!("m{turn}"))).await;
        assert_eq!(reader.done().tried[0].outcome.as_str(), "timeout");
    }
    let vitals = stage.stands[0].vitals().await;
    assert_eq!((vitals.state, vitals.failures), (ProviderState::Closed, 0));
    stage.assert_idle().await;
}
