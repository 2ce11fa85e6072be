//! What is counted, as a scrape shows it.

use super::*;
use crate::chat::{At, ClientMsgId, TurnId};

fn lines(tally: &Tally) -> Vec<String> {
    let families: Vec<_> = tally
        .collectors()
        .iter()
        .flat_map(|one| one.collect())
        .collect();
    let whole: Vec<_> = families
        .into_iter()
        .filter(|one| !one.get_metric().is_empty())
        .collect();
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&whole)
        .unwrap();
    text.lines().map(str::to_owned).collect()
}

fn tally() -> Tally {
    Tally::new(&["a".into(), "b".into()]).unwrap()
}

fn shows(tally: &Tally, line: &str) {
    let lines = lines(tally);
    assert!(
        lines.iter().any(|one| one == line),
        "{line} is not in {lines:#?}"
    );
}

#[test]
fn what_can_be_known_beforehand_begins_at_0() {
    let tally = tally();
    for line in [
        "failsoft_turns_started_total 0",
        "failsoft_turns_total{finish=\"stop\",source=\"fallback\"} 0",
        "failsoft_attempts_total{outcome=\"stalled\",provider=\"b\"} 0",
        "failsoft_first_token_seconds_count{provider=\"a\"} 0",
    ] {
        shows(&tally, line);
    }
}

#[test]
fn attempts_and_their_times_are_counted_by_provider() {
    let tally = tally();
    tally.first_token("a", Duration::from_millis(200));
    tally.attempt("a", Outcome::OK, Duration::from_secs(2));
    tally.attempt("b", Outcome::from(Fault::Stalled), Duration::from_secs(15));
    for line in [
        "failsoft_attempts_total{outcome=\"ok\",provider=\"a\"} 1",
        "failsoft_attempts_total{outcome=\"stalled\",provider=\"b\"} 1",
        "failsoft_first_token_seconds_bucket{provider=\"a\",le=\"0.1\"} 0",
        "failsoft_first_token_seconds_bucket{provider=\"a\",le=\"0.2\"} 1",
        "failsoft_first_token_seconds_count{provider=\"b\"} 0",
        "failsoft_attempt_seconds_sum{provider=\"b\"} 15",
    ] {
        shows(&tally, line);
    }
}

#[test]
fn a_name_that_is_not_configured_is_counted_nowhere() {
    let tally = tally();
    let before = lines(&tally);
    tally.attempt("what a visitor said", Outcome::OK, Duration::ZERO);
    tally.first_token("what a visitor said", Duration::ZERO);
    let [mut before, mut after] = [before, lines(&tally)];
    before.sort();
    after.sort();
    assert_eq!(before, after);
}

#[test]
fn a_provider_that_went_is_counted_to_its_last_attempt_and_the_last_few_are_told() {
    let tally = tally();
    tally.attempt("a", Outcome::OK, Duration::ZERO);
    tally.attempt("b", Outcome::OK, Duration::ZERO);
    let reason = Outcome::from(Fault::Reset);
    for (from, to) in [("a", Some("b")), ("b", Some("a")), ("a", None)] {
        add(
            &tally.restarts,
            &[from, to.unwrap_or(NOBODY), reason.as_str()],
        );
    }
    tally.follow(&["c".into(), "a".into()]);
    tally.attempt("b", Outcome::OK, Duration::ZERO);
    for line in [
        "failsoft_attempts_total{outcome=\"ok\",provider=\"a\"} 1",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 2",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"c\"} 0",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"b\"} 1",
    ] {
        shows(&tally, line);
    }
    // It comes back, and goes on from there; nothing counts backwards.
    tally.follow(&["b".into()]);
    shows(
        &tally,
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 2",
    );
    // One after the other goes: labels do not grow with each reload.
    for number in 0..2 * REMEMBERED {
        tally.follow(&[format!("new-{number}").into()]);
    }
    let of = |name: &str| {
        lines(&tally)
            .iter()
            .filter(|line| line.contains(&format!("\"{name}\"")))
            .count()
    };
    assert_eq!((of("a"), of("b"), of("new-0")), (0, 0, 0));
    let first_kept = REMEMBERED - 1;
    assert!(of(&format!("new-{first_kept}")) > 0 && of(&format!("new-{}", first_kept - 1)) == 0);
    tally.follow(&["b".into()]);
    shows(
        &tally,
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 0",
    );
}

#[test]
fn a_turn_is_counted_by_how_it_ended() {
    let tally = tally();
    let (underway, torn) = (tally.began(), tally.began());
    shows(&tally, "failsoft_turns_in_flight 2");
    let turn = TurnId::after(None, 1, 1);
    let mut record = TurnRecord::asked(
        turn,
        ClientMsgId::of_turn(turn),
        At(1),
        "canary".into(),
        None,
    );
    record.source = Some(Source::Template);
    record.finish = Some(Finish::Stop);
    let reason = Outcome::from(Fault::Reset);
    let restart = |to: Option<&str>| Restart {
        from: "a".into(),
        to: to.map(Into::into),
        reason,
    };
    underway.ended(&record, &[restart(Some("b")), restart(None)]);
    drop(torn);
    for line in [
        "failsoft_turns_started_total 2",
        "failsoft_turns_in_flight 0",
        "failsoft_turns_total{finish=\"interrupted\",source=\"ai\"} 1",
        "failsoft_turns_total{finish=\"stop\",source=\"template\"} 1",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"b\"} 1",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"(none)\"} 1",
    ] {
        shows(&tally, line);
    }
    assert!(!lines(&tally).concat().contains("canary"));
}

#[test]
fn the_words_are_those_of_the_protocol() {
    for finish in [
        Finish::Stop,
        Finish::Length,
        Finish::ContentFilter,
        Finish::Stopped,
        Finish::Interrupted,
    ] {
        assert_eq!(serde_json::to_value(finish).unwrap(), finish.name());
    }
    for source in Source::ALL {
        assert_eq!(serde_json::to_value(source).unwrap(), source.name());
    }
}
