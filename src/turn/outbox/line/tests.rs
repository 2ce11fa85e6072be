//! Order, pacing and bounds of follow-ups.

use super::*;
use crate::chat::{ClientMsgId, Followup};

const PACE: Pace = Pace {
    least: Duration::from_millis(200),
    most: Duration::from_secs(2),
    rest: Duration::from_secs(10),
    longest_rest: Duration::from_secs(25),
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns a follow-up with this conversation and turn number.
fn followup(conversation: u8, turn: u64) -> Waiting {
    Waiting {
        turn: TurnId::after(None, turn, 0),
        conversation: ConversationId::from_random([conversation; 16]),
    }
}

fn order_of(waiting: &[(u8, u64)]) -> Line {
    let mut order = Line::new(PACE);
    for (conversation, turn) in waiting {
        assert_eq!(order.stand(followup(*conversation, *turn)), None);
    }
    order
}

#[test]
fn oldest_goes_first_and_concurrency_starts_at_one() {
    let mut order = order_of(&[(2, 20), (1, 10), (3, 30)]);
    let mut now = s(0);
    for (conversation, turn) in [(1, 10), (2, 20)] {
        assert_eq!(order.begin(now, 0.0), Some(followup(conversation, turn)));
        assert_eq!(order.begin(now, 0.0), None, "the interval has not passed");
        now += PACE.least;
        assert_eq!(
            order.begin(now, 0.0).is_some(),
            conversation == 2,
            "a second one may run after the first success"
        );
        assert!(order.settle(followup(conversation, turn), Came::Answered, now, 0.5));
    }
    assert!(order.settle(followup(3, 30), Came::Answered, now, 0.5));
    assert!(order.is_empty() && order.begin(s(100), 1.0).is_none());
}

#[test]
fn concurrency_grows_with_successes_up_to_a_limit() {
    let mut order = order_of(&(1..=20).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    let mut now = s(0);
    for allowed in [1, 2, 3, 4, 4, 4] {
        while order.begin(now, 1.0).is_some() {
            now += PACE.most;
        }
        let under_way: Vec<_> = order.under_way().copied().collect();
        assert_eq!(under_way.len(), allowed);
        order.settle(under_way[0], Came::Answered, now, 1.0);
        now += PACE.most;
    }
    // A failure resets it: running ones go on, and the next one is alone.
    let under_way: Vec<_> = order.under_way().copied().collect();
    for outcome in [Came::Failed, Came::Held] {
        order.settle(under_way[0], outcome, now, 1.0);
        assert_eq!(order.begin(now + PACE.most, 1.0), None);
    }
    under_way[1..]
        .iter()
        .for_each(|running| assert!(order.settle(*running, Came::Unwanted, now, 1.0)));
    now += PACE.rest;
    assert!(order.begin(now, 1.0).is_some() && order.begin(now + PACE.most, 1.0).is_none());
}

#[test]
fn conversation_is_answered_in_order() {
    let mut order = order_of(&[(1, 10), (1, 11), (2, 12)]);
    assert_eq!(order.begin(s(0), 1.0), Some(followup(1, 10)));
    order.settle(followup(1, 10), Came::Failed, s(0), 1.0);
    // Another conversation goes first, but not the next turn of this one.
    assert_eq!(order.begin(s(10), 1.0), Some(followup(2, 12)));
    order.settle(followup(2, 12), Came::Answered, s(10), 1.0);
    assert_eq!(order.begin(s(20), 1.0), Some(followup(1, 10)));
    assert_eq!(order.begin(s(20), 1.0), None);
    order.settle(followup(1, 10), Came::Answered, s(20), 1.0);
    assert_eq!(order.begin(s(30), 1.0), Some(followup(1, 11)));
}

#[test]
fn failures_double_the_pause_until_the_turn_is_given_up() {
    let mut order = order_of(&[(1, 10)]);
    let mut now = s(0);
    for (failure, rest) in (1..=TRIES).zip([10, 20, 25, 25, 25, 25, 25, 25, 25, 25]) {
        assert_eq!(order.begin(now, 1.0), Some(followup(1, 10)));
        assert_eq!(
            order.settle(followup(1, 10), Came::Failed, now, 0.0),
            failure == TRIES
        );
        let rest = s(rest) * 4 / 5;
        assert_eq!(
            order.begin(now + rest - Duration::from_millis(1), 1.0),
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
        let next = order.begin(now, 1.0).unwrap();
        assert_eq!(
            next,
            if round % 2 == 0 {
                followup(1, 10)
            } else {
                followup(2, 20)
            }
        );
        assert!(!order.settle(next, Came::Passed, now, 0.5));
    }
    // A deferred turn keeps its place.
    for round in 50..60 {
        let now = s(100 * round);
        assert_eq!(order.begin(now, 1.0), Some(followup(1, 10)));
        assert!(!order.settle(followup(1, 10), Came::Held, now, 0.5));
        assert_eq!(order.begin(now + s(7), 1.0), None);
    }
}

#[test]
fn unanswered_turns_pause_followups() {
    let mut order = order_of(&[(1, 10)]);
    assert_eq!(order.enter(followup(2, 20), s(0), 1.0), None);
    assert_eq!(order.begin(s(9), 1.0), None);
    // Further unanswered turns do not extend the pause.
    for second in 1..10 {
        order.enter(followup(3, 30 + second), s(second), 1.0);
    }
    assert_eq!(order.begin(s(10), 1.0), Some(followup(1, 10)));
}

#[test]
fn full_queue_drops_the_oldest_turn() {
    let mut order = Line::new(PACE);
    let turns: Vec<_> = (0..MOST as u64).map(|turn| followup(1, turn)).collect();
    assert!(turns.iter().all(|turn| order.stand(*turn).is_none()));
    assert_eq!(order.stand(turns[7]), None, "it waits already");
    assert_eq!(order.begin(s(0), 1.0), Some(turns[0]));
    assert_eq!(
        order.stand(followup(2, 1 << 40)),
        Some(turns[1]),
        "running turns are not dropped"
    );
    order.abandon();
    assert_eq!(order.stand(followup(2, 1 << 41)), Some(turns[0]));
    assert!(
        !order.settle(turns[0], Came::Answered, s(0), 0.5),
        "it is gone"
    );
}

fn degraded() -> TurnRecord {
    let id = TurnId::after(None, 1_000, 0);
    let name: ClientMsgId = "m".parse().unwrap();
    let mut record = TurnRecord::asked(id, name, At(1_000), "what?".into(), None);
    record.state = TurnState::Done;
    record.source = Some(Source::Fallback);
    record.finish = Some(Finish::Stop);
    record.degraded = true;
    record
}

#[test]
fn turn_is_wanted_until_answered_retried_or_expired() {
    let soon = At(2_000);
    let interrupted = TurnRecord {
        degraded: false,
        ..degraded()
    }
    .interrupted();
    let running = TurnRecord {
        state: TurnState::Running,
        degraded: false,
        ..degraded()
    };
    for record in [degraded(), interrupted, running] {
        assert!(
            is_wanted(&record, std::slice::from_ref(&record), soon),
            "{:?}",
            record.state
        );
        let expired = At(1_000).plus(WITHIN);
        assert!(is_wanted(&record, &[], At(expired.0 - 1)) && !is_wanted(&record, &[], expired));
        let retry = TurnRecord {
            retry_of: Some(record.turn),
            ..degraded()
        };
        assert!(
            !is_wanted(&record, &[retry], soon),
            "retried, whatever the outcome"
        );
        let unrelated = TurnRecord {
            retry_of: Some(TurnId::after(None, 5, 5)),
            ..degraded()
        };
        assert!(is_wanted(&record, &[unrelated], soon));
        let api_call = TurnRecord {
            client_msg_id: ClientMsgId::of_call(7),
            ..record.clone()
        };
        assert!(!is_wanted(&api_call, &[], soon));
        let followup = Followup {
            text: "late".into(),
            provider: "p".into(),
            model: "m".into(),
            at: At(1_500),
        };
        assert!(!is_wanted(
            &TurnRecord {
                followup: Some(followup),
                ..record
            },
            &[],
            soon
        ));
    }
    assert!(!is_wanted(
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
        source: Some(Source::Ai),
        degraded: false,
        ..degraded()
    };
    assert!(is_whole(&ai));
    assert!(is_whole(&TurnRecord {
        finish: Some(Finish::Length),
        ..ai.clone()
    }));
    for finish in [Finish::ContentFilter, Finish::Stopped] {
        assert!(!is_whole(&TurnRecord {
            finish: Some(finish),
            ..ai.clone()
        }));
    }
    assert!(!is_whole(&ai.interrupted()) && !is_whole(&degraded()));
}
