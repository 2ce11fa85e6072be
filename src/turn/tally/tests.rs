//! The metrics as a scrape shows them.

use super::*;
use crate::chat::{At, ClientMsgId, TurnId};

fn lines(metrics: &Tally) -> Vec<String> {
    let families: Vec<_> = metrics
        .collectors()
        .iter()
        .flat_map(|collector| collector.collect())
        .collect();
    let families: Vec<_> = families
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&families)
        .unwrap();
    text.lines().map(str::to_owned).collect()
}

fn metrics() -> Tally {
    Tally::new(&["a".into(), "b".into()]).unwrap()
}

fn assert_shows(metrics: &Tally, line: &str) {
    let lines = lines(metrics);
    assert!(
        lines.iter().any(|shown| shown == line),
        "{line} is not in {lines:#?}"
    );
}

#[test]
fn known_label_values_start_at_0() {
    let metrics = metrics();
    for line in [
        "failsoft_turns_started_total 0",
        "failsoft_turns_total{finish=\"stop\",source=\"fallback\"} 0",
        "failsoft_attempts_total{outcome=\"stalled\",provider=\"b\"} 0",
        "failsoft_first_token_seconds_count{provider=\"a\"} 0",
    ] {
        assert_shows(&metrics, line);
    }
}

#[test]
fn attempts_and_their_durations_are_counted_by_provider() {
    let metrics = metrics();
    metrics.first_token("a", Duration::from_millis(200));
    metrics.attempt("a", Outcome::OK, Duration::from_secs(2));
    metrics.attempt("b", Outcome::from(Fault::Stalled), Duration::from_secs(15));
    for line in [
        "failsoft_attempts_total{outcome=\"ok\",provider=\"a\"} 1",
        "failsoft_attempts_total{outcome=\"stalled\",provider=\"b\"} 1",
        "failsoft_first_token_seconds_bucket{provider=\"a\",le=\"0.1\"} 0",
        "failsoft_first_token_seconds_bucket{provider=\"a\",le=\"0.2\"} 1",
        "failsoft_first_token_seconds_count{provider=\"b\"} 0",
        "failsoft_attempt_seconds_sum{provider=\"b\"} 15",
    ] {
        assert_shows(&metrics, line);
    }
}

#[test]
fn unknown_provider_names_are_not_counted() {
    let metrics = metrics();
    let mut before = lines(&metrics);
    metrics.attempt("what a visitor said", Outcome::OK, Duration::ZERO);
    metrics.first_token("what a visitor said", Duration::ZERO);
    let mut after = lines(&metrics);
    before.sort();
    after.sort();
    assert_eq!(before, after);
}

#[test]
fn removed_providers_keep_their_series_until_others_follow() {
    let metrics = metrics();
    metrics.attempt("a", Outcome::OK, Duration::ZERO);
    metrics.attempt("b", Outcome::OK, Duration::ZERO);
    let reason = Outcome::from(Fault::Reset);
    for (from, to) in [("a", Some("b")), ("b", Some("a")), ("a", None)] {
        add(
            &metrics.restarts,
            &[from, to.unwrap_or(NOBODY), reason.as_str()],
        );
    }
    metrics.follow(&["c".into(), "a".into()]);
    metrics.attempt("b", Outcome::OK, Duration::ZERO);
    for line in [
        "failsoft_attempts_total{outcome=\"ok\",provider=\"a\"} 1",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 2",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"c\"} 0",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"b\"} 1",
    ] {
        assert_shows(&metrics, line);
    }
    // A provider that comes back goes on from its old count; no counter decreases.
    metrics.follow(&["b".into()]);
    assert_shows(
        &metrics,
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 2",
    );
    // Old removed providers are deleted, so labels do not grow with each reload.
    for number in 0..2 * REMEMBERED {
        metrics.follow(&[format!("new-{number}").into()]);
    }
    let series_of = |name: &str| {
        lines(&metrics)
            .iter()
            .filter(|line| line.contains(&format!("\"{name}\"")))
            .count()
    };
    assert_eq!(
        (series_of("a"), series_of("b"), series_of("new-0")),
        (0, 0, 0)
    );
    let first_kept = REMEMBERED - 1;
    assert!(
        series_of(&format!("new-{first_kept}")) > 0
            && series_of(&format!("new-{}", first_kept - 1)) == 0
    );
    metrics.follow(&["b".into()]);
    assert_shows(
        &metrics,
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 0",
    );
}

#[test]
fn turns_are_counted_by_how_they_ended() {
    let metrics = metrics();
    let in_flight = metrics.began();
    let dropped = metrics.began();
    assert_shows(&metrics, "failsoft_turns_in_flight 2");
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
    in_flight.ended(&record, &[restart(Some("b")), restart(None)]);
    drop(dropped);
    for line in [
        "failsoft_turns_started_total 2",
        "failsoft_turns_in_flight 0",
        "failsoft_turns_total{finish=\"interrupted\",source=\"ai\"} 1",
        "failsoft_turns_total{finish=\"stop\",source=\"template\"} 1",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"b\"} 1",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"(none)\"} 1",
    ] {
        assert_shows(&metrics, line);
    }
    assert!(!lines(&metrics).concat().contains("canary"));
}

#[test]
fn label_values_are_the_names_in_the_protocol() {
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
