//! The metrics as a scrape shows them.

use super::*;
use crate::domain::{ClientMsgId, Timestamp, TurnId, TurnRecord};
use crate::turn::observer::{TurnFinished, TurnObserver};

fn lines(metrics: &TurnMetrics) -> Vec<String> {
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

fn metrics() -> TurnMetrics {
    TurnMetrics::new(&["a".into(), "b".into()]).unwrap()
}

fn assert_shows(metrics: &TurnMetrics, line: &str) {
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
    metrics.record_first_token("a", Duration::from_millis(200));
    metrics.record_attempt("a", AttemptOutcome::OK, Duration::from_secs(2));
    metrics.record_attempt(
        "b",
        AttemptOutcome::from(FaultKind::Stalled),
        Duration::from_secs(15),
    );
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
    metrics.record_attempt("what a visitor said", AttemptOutcome::OK, Duration::ZERO);
    metrics.record_first_token("what a visitor said", Duration::ZERO);
    let mut after = lines(&metrics);
    before.sort();
    after.sort();
    assert_eq!(before, after);
}

#[test]
fn removed_providers_keep_their_series_until_others_follow() {
    let metrics = metrics();
    metrics.record_attempt("a", AttemptOutcome::OK, Duration::ZERO);
    metrics.record_attempt("b", AttemptOutcome::OK, Duration::ZERO);
    let reason = AttemptOutcome::from(FaultKind::Reset);
    for (from, to) in [("a", Some("b")), ("b", Some("a")), ("a", None)] {
        increment(
            &metrics.restarts,
            &[from, to.unwrap_or(NO_PROVIDER_LABEL), reason.as_str()],
        );
    }
    metrics.set_providers(&["c".into(), "a".into()]);
    metrics.record_attempt("b", AttemptOutcome::OK, Duration::ZERO);
    for line in [
        "failsoft_attempts_total{outcome=\"ok\",provider=\"a\"} 1",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 2",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"c\"} 0",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"b\"} 1",
    ] {
        assert_shows(&metrics, line);
    }
    // A provider that comes back goes on from its old count; no counter decreases.
    metrics.set_providers(&["b".into()]);
    assert_shows(
        &metrics,
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 2",
    );
    // Old removed providers are deleted, so labels do not grow with each reload.
    for number in 0..2 * MAX_REMOVED_PROVIDERS {
        metrics.set_providers(&[format!("new-{number}").into()]);
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
    let first_kept = MAX_REMOVED_PROVIDERS - 1;
    assert!(
        series_of(&format!("new-{first_kept}")) > 0
            && series_of(&format!("new-{}", first_kept - 1)) == 0
    );
    metrics.set_providers(&["b".into()]);
    assert_shows(
        &metrics,
        "failsoft_attempts_total{outcome=\"ok\",provider=\"b\"} 0",
    );
}

#[test]
fn turns_are_counted_by_how_they_ended() {
    let observer = TurnObserver::new(metrics());
    let metrics = &observer.metrics;
    let in_flight = observer.turn_started();
    let dropped = observer.turn_started();
    assert_shows(metrics, "failsoft_turns_in_flight 2");
    let turn = TurnId::next_after(None, 1, 1);
    let mut record = TurnRecord::new(
        turn,
        ClientMsgId::for_turn(turn),
        Timestamp(1),
        "canary".into(),
        None,
    );
    record.source = Some(AnswerSource::Template);
    record.finish = Some(FinishReason::Stop);
    let reason = AttemptOutcome::from(FaultKind::Reset);
    let restart = |to: Option<&str>| RestartEvent {
        from: "a".into(),
        to: to.map(Into::into),
        reason,
    };
    in_flight.finish(&TurnFinished {
        record: &record,
        restarts: &[restart(Some("b")), restart(None)],
        is_lost: false,
    });
    drop(dropped);
    for line in [
        "failsoft_turns_started_total 2",
        "failsoft_turns_in_flight 0",
        "failsoft_turns_total{finish=\"interrupted\",source=\"ai\"} 1",
        "failsoft_turns_total{finish=\"stop\",source=\"template\"} 1",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"b\"} 1",
        "failsoft_restarts_total{from=\"a\",reason=\"reset\",to=\"(none)\"} 1",
    ] {
        assert_shows(metrics, line);
    }
    assert!(!lines(metrics).concat().contains("canary"));
}

#[test]
fn label_values_are_the_names_in_the_protocol() {
    for finish in [
        FinishReason::Stop,
        FinishReason::Length,
        FinishReason::ContentFilter,
        FinishReason::Stopped,
        FinishReason::Interrupted,
    ] {
        assert_eq!(serde_json::to_value(finish).unwrap(), finish.as_str());
    }
    for source in AnswerSource::ALL {
        assert_eq!(serde_json::to_value(source).unwrap(), source.as_str());
    }
}
