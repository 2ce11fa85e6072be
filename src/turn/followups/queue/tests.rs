//! Order, pacing and bounds of follow-ups.

use super::*;
use crate::domain::{ClientMsgId, Followup};

const PACE: RetryPacing = RetryPacing {
    min_interval: Duration::from_millis(200),
    max_interval: Duration::from_secs(2),
    base_backoff: Duration::from_secs(10),
    max_backoff: Duration::from_secs(25),
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns a follow-up with this conversation and turn number.
fn followup(conversation: u8, turn: u64) -> PendingFollowup {
    PendingFollowup {
        turn: TurnId::next_after(None, turn, 0),
        conversation: ConversationId::from_random([conversation; 16]),
    }
}

fn order_of(waiting: &[(u8, u64)]) -> FollowupOrder {
    let mut order = FollowupOrder::new(PACE);
    for (conversation, turn) in waiting {
        assert_eq!(order.insert(followup(*conversation, *turn)), None);
    }
    order
}

#[test]
fn oldest_goes_first_and_concurrency_starts_at_one() {
    let mut order = order_of(&[(2, 20), (1, 10), (3, 30)]);
    let mut now = s(0);
    for (conversation, turn) in [(1, 10), (2, 20)] {
        assert_eq!(
            order.start_next(now, 0.0),
            Some(followup(conversation, turn))
        );
        assert_eq!(
            order.start_next(now, 0.0),
            None,
            "the interval has not passed"
        );
        now += PACE.min_interval;
        assert_eq!(
            order.start_next(now, 0.0).is_some(),
            conversation == 2,
            "a second one may run after the first success"
        );
        assert!(order.record_outcome(
            followup(conversation, turn),
            FollowupOutcome::Answered,
            now,
            0.5
        ));
    }
    assert!(order.record_outcome(followup(3, 30), FollowupOutcome::Answered, now, 0.5));
    assert!(order.is_empty() && order.start_next(s(100), 1.0).is_none());
}

#[test]
fn concurrency_grows_with_successes_up_to_a_limit() {
    let mut order = order_of(&(1..=20).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    let mut now = s(0);
    for allowed in [1, 2, 3, 4, 4, 4] {
        while order.start_next(now, 1.0).is_some() {
            now += PACE.max_interval;
        }
        let under_way: Vec<_> = order.running().copied().collect();
        assert_eq!(under_way.len(), allowed);
        order.record_outcome(under_way[0], FollowupOutcome::Answered, now, 1.0);
        now += PACE.max_interval;
    }
    // A failure resets it: running ones go on, and the next one is alone.
    let under_way: Vec<_> = order.running().copied().collect();
    for outcome in [FollowupOutcome::Failed, FollowupOutcome::Deferred] {
        order.record_outcome(under_way[0], outcome, now, 1.0);
        assert_eq!(order.start_next(now + PACE.max_interval, 1.0), None);
    }
    under_way[1..].iter().for_each(|running| {
        assert!(order.record_outcome(*running, FollowupOutcome::Obsolete, now, 1.0))
    });
    now += PACE.base_backoff;
    assert!(
        order.start_next(now, 1.0).is_some()
            && order.start_next(now + PACE.max_interval, 1.0).is_none()
    );
}

#[test]
fn conversation_is_answered_in_order() {
    let mut order = order_of(&[(1, 10), (1, 11), (2, 12)]);
    assert_eq!(order.start_next(s(0), 1.0), Some(followup(1, 10)));
    order.record_outcome(followup(1, 10), FollowupOutcome::Failed, s(0), 1.0);
    // Another conversation goes first, but not the next turn of this one.
    assert_eq!(order.start_next(s(10), 1.0), Some(followup(2, 12)));
    order.record_outcome(followup(2, 12), FollowupOutcome::Answered, s(10), 1.0);
    assert_eq!(order.start_next(s(20), 1.0), Some(followup(1, 10)));
    assert_eq!(order.start_next(s(20), 1.0), None);
    order.record_outcome(followup(1, 10), FollowupOutcome::Answered, s(20), 1.0);
    assert_eq!(order.start_next(s(30), 1.0), Some(followup(1, 11)));
}

#[test]
fn failures_double_the_pause_until_the_turn_is_given_up() {
    let mut order = order_of(&[(1, 10)]);
    let mut now = s(0);
    for (failure, rest) in (1..=MAX_FAILURES).zip([10, 20, 25, 25, 25, 25, 25, 25, 25, 25]) {
        assert_eq!(order.start_next(now, 1.0), Some(followup(1, 10)));
        assert_eq!(
            order.record_outcome(followup(1, 10), FollowupOutcome::Failed, now, 0.0),
            failure == MAX_FAILURES
        );
        let rest = s(rest) * 4 / 5;
        assert_eq!(
            order.start_next(now + rest - Duration::from_millis(1), 1.0),
            None,
            "failure {failure}"
        );
        now += rest;
    }
    assert!(order.is_empty());
}

#[test]
fn skipped_and_deferred_turns_keep_waiting() {
    let mut order = order_of(&[(1, 10), (2, 20)]);
    for round in 0..50 {
        let now = s(100 * round);
        let next = order.start_next(now, 1.0).unwrap();
        assert_eq!(
            next,
            if round % 2 == 0 {
                followup(1, 10)
            } else {
                followup(2, 20)
            }
        );
        assert!(!order.record_outcome(next, FollowupOutcome::Skipped, now, 0.5));
    }
    // A deferred turn keeps its place.
    for round in 50..60 {
        let now = s(100 * round);
        assert_eq!(order.start_next(now, 1.0), Some(followup(1, 10)));
        assert!(!order.record_outcome(followup(1, 10), FollowupOutcome::Deferred, now, 0.5));
        assert_eq!(order.start_next(now + s(7), 1.0), None);
    }
}

#[test]
fn unanswered_turns_pause_followups() {
    let mut order = order_of(&[(1, 10)]);
    assert_eq!(order.insert_and_back_off(followup(2, 20), s(0), 1.0), None);
    assert_eq!(order.start_next(s(9), 1.0), None);
    // Further unanswered turns do not extend the pause.
    for second in 1..10 {
        order.insert_and_back_off(followup(3, 30 + second), s(second), 1.0);
    }
    assert_eq!(order.start_next(s(10), 1.0), Some(followup(1, 10)));
}

#[test]
fn full_queue_drops_the_oldest_turn() {
    let mut order = FollowupOrder::new(PACE);
    let turns: Vec<_> = (0..MAX_WAITING as u64)
        .map(|turn| followup(1, turn))
        .collect();
    assert!(turns.iter().all(|turn| order.insert(*turn).is_none()));
    assert_eq!(order.insert(turns[7]), None, "it waits already");
    assert_eq!(order.start_next(s(0), 1.0), Some(turns[0]));
    assert_eq!(
        order.insert(followup(2, 1 << 40)),
        Some(turns[1]),
        "running turns are not dropped"
    );
    order.reset_running();
    assert_eq!(order.insert(followup(2, 1 << 41)), Some(turns[0]));
    assert!(
        !order.record_outcome(turns[0], FollowupOutcome::Answered, s(0), 0.5),
        "it is gone"
    );
}

fn degraded() -> TurnRecord {
    let id = TurnId::next_after(None, 1_000, 0);
    let name: ClientMsgId = "m".parse().unwrap();
    let mut record = TurnRecord::new(id, name, Timestamp(1_000), "what?".into(), None);
    record.state = TurnState::Done;
    record.source = Some(AnswerSource::Fallback);
    record.finish = Some(FinishReason::Stop);
    record.degraded = true;
    record
}

#[test]
fn turn_is_wanted_until_answered_retried_or_expired() {
    let soon = Timestamp(2_000);
    let interrupted = TurnRecord {
        degraded: false,
        ..degraded()
    }
    .into_interrupted();
    let running = TurnRecord {
        state: TurnState::Running,
        degraded: false,
        ..degraded()
    };
    for record in [degraded(), interrupted, running] {
        assert!(
            is_still_wanted(&record, std::slice::from_ref(&record), soon),
            "{:?}",
            record.state
        );
        let expired = Timestamp(1_000).saturating_add(MAX_AGE);
        assert!(
            is_still_wanted(&record, &[], Timestamp(expired.0 - 1))
                && !is_still_wanted(&record, &[], expired)
        );
        let retry = TurnRecord {
            retry_of: Some(record.turn),
            ..degraded()
        };
        assert!(
            !is_still_wanted(&record, &[retry], soon),
            "retried, whatever the outcome"
        );
        let unrelated = TurnRecord {
            retry_of: Some(TurnId::next_after(None, 5, 5)),
            ..degraded()
        };
        assert!(is_still_wanted(&record, &[unrelated], soon));
        let api_call = TurnRecord {
            client_msg_id: ClientMsgId::for_http_call(7),
            ..record.clone()
        };
        assert!(!is_still_wanted(&api_call, &[], soon));
        let followup = Followup {
            text: "late".into(),
            provider: "p".into(),
            model: "m".into(),
            at: Timestamp(1_500),
        };
        assert!(!is_still_wanted(
            &TurnRecord {
                followup: Some(followup),
                ..record
            },
            &[],
            soon
        ));
    }
    assert!(!is_still_wanted(
        &TurnRecord {
            degraded: false,
            ..degraded()
        },
        &[],
        soon
    ));
}

#[test]
fn complete_answer_is_an_ai_answer_with_a_regular_end() {
    let ai = TurnRecord {
        source: Some(AnswerSource::Ai),
        degraded: false,
        ..degraded()
    };
    assert!(is_complete_answer(&ai));
    assert!(is_complete_answer(&TurnRecord {
        finish: Some(FinishReason::Length),
        ..ai.clone()
    }));
    for finish in [FinishReason::ContentFilter, FinishReason::Stopped] {
        assert!(!is_complete_answer(&TurnRecord {
            finish: Some(finish),
            ..ai.clone()
        }));
    }
    assert!(!is_complete_answer(&ai.into_interrupted()) && !is_complete_answer(&degraded()));
}
