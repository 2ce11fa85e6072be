//! Who is next, when, and who is out of it.

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

/// The turn of this number in the conversation of that one.
fn one(conversation: u8, turn: u64) -> Waiting {
    Waiting {
        turn: TurnId::after(None, turn, 0),
        conversation: ConversationId::from_random([conversation; 16]),
    }
}

fn line(waiting: &[(u8, u64)]) -> Line {
    let mut line = Line::new(PACE);
    for (conversation, turn) in waiting {
        assert_eq!(line.stand(one(*conversation, *turn)), None);
    }
    line
}

#[test]
fn the_oldest_is_first_and_one_is_asked_at_a_time() {
    let mut line = line(&[(2, 20), (1, 10), (3, 30)]);
    let mut now = s(0);
    for (conversation, turn) in [(1, 10), (2, 20)] {
        assert_eq!(line.begin(now, 0.0), Some(one(conversation, turn)));
        assert_eq!(line.begin(now, 0.0), None, "a pause comes before the next");
        now += PACE.least;
        assert_eq!(
            line.begin(now, 0.0).is_some(),
            conversation == 2,
            "one answer was given before"
        );
        assert!(line.settle(one(conversation, turn), Came::Answered, now, 0.5));
    }
    assert!(line.settle(one(3, 30), Came::Answered, now, 0.5));
    assert!(line.is_empty() && line.begin(s(100), 1.0).is_none());
}

#[test]
fn the_more_were_given_the_more_are_asked_at_once_to_a_bound() {
    let mut line = line(&(1..=20).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    let mut now = s(0);
    for allowed in [1, 2, 3, 4, 4, 4] {
        while line.begin(now, 1.0).is_some() {
            now += PACE.most;
        }
        let under_way: Vec<_> = line.under_way().copied().collect();
        assert_eq!(under_way.len(), allowed);
        line.settle(under_way[0], Came::Answered, now, 1.0);
        now += PACE.most;
    }
    // A failure ends that: those under way go on, and the next is alone.
    let under_way: Vec<_> = line.under_way().copied().collect();
    for came in [Came::Failed, Came::Held] {
        line.settle(under_way[0], came, now, 1.0);
        assert_eq!(line.begin(now + PACE.most, 1.0), None);
    }
    under_way[1..]
        .iter()
        .for_each(|one| assert!(line.settle(*one, Came::Unwanted, now, 1.0)));
    now += PACE.rest;
    assert!(line.begin(now, 1.0).is_some() && line.begin(now + PACE.most, 1.0).is_none());
}

#[test]
fn a_conversation_is_answered_in_order() {
    let mut line = line(&[(1, 10), (1, 11), (2, 12)]);
    assert_eq!(line.begin(s(0), 1.0), Some(one(1, 10)));
    line.settle(one(1, 10), Came::Failed, s(0), 1.0);
    // It lets the others go first, but not its own next turn.
    assert_eq!(line.begin(s(10), 1.0), Some(one(2, 12)));
    line.settle(one(2, 12), Came::Answered, s(10), 1.0);
    assert_eq!(line.begin(s(20), 1.0), Some(one(1, 10)));
    assert_eq!(line.begin(s(20), 1.0), None);
    line.settle(one(1, 10), Came::Answered, s(20), 1.0);
    assert_eq!(line.begin(s(30), 1.0), Some(one(1, 11)));
}

#[test]
fn failures_are_rested_on_ever_longer_and_end() {
    let mut line = line(&[(1, 10)]);
    let mut now = s(0);
    for (failure, rest) in (1..=TRIES).zip([10, 20, 25, 25, 25, 25, 25, 25, 25, 25]) {
        assert_eq!(line.begin(now, 1.0), Some(one(1, 10)));
        assert_eq!(
            line.settle(one(1, 10), Came::Failed, now, 0.0),
            failure == TRIES
        );
        let rest = s(rest) * 4 / 5;
        assert_eq!(
            line.begin(now + rest - Duration::from_millis(1), 1.0),
            None,
            "failure {failure}"
        );
        now += rest;
    }
    assert!(line.is_empty());
}

#[test]
fn who_has_no_room_or_no_budget_waits_on() {
    let mut line = line(&[(1, 10), (2, 20)]);
    for round in 0..50 {
        let now = s(100 * round);
        let next = line.begin(now, 1.0).unwrap();
        assert_eq!(
            next,
            if round % 2 == 0 {
                one(1, 10)
            } else {
                one(2, 20)
            }
        );
        assert!(!line.settle(next, Came::Passed, now, 0.5));
    }
    // The budget takes nobody's place.
    for round in 50..60 {
        let now = s(100 * round);
        assert_eq!(line.begin(now, 1.0), Some(one(1, 10)));
        assert!(!line.settle(one(1, 10), Came::Held, now, 0.5));
        assert_eq!(line.begin(now + s(7), 1.0), None);
    }
}

#[test]
fn while_turns_go_unanswered_nobody_is_asked() {
    let mut line = line(&[(1, 10)]);
    assert_eq!(line.enter(one(2, 20), s(0), 1.0), None);
    assert_eq!(line.begin(s(9), 1.0), None);
    // One after the other does not put it off for ever.
    for second in 1..10 {
        line.enter(one(3, 30 + second), s(second), 1.0);
    }
    assert_eq!(line.begin(s(10), 1.0), Some(one(1, 10)));
}

#[test]
fn it_is_bounded_and_the_oldest_goes() {
    let mut line = Line::new(PACE);
    let all: Vec<_> = (0..MOST as u64).map(|turn| one(1, turn)).collect();
    assert!(all.iter().all(|one| line.stand(*one).is_none()));
    assert_eq!(line.stand(all[7]), None, "it stands there already");
    assert_eq!(line.begin(s(0), 1.0), Some(all[0]));
    assert_eq!(
        line.stand(one(2, 1 << 40)),
        Some(all[1]),
        "who is under way stays"
    );
    line.abandon();
    assert_eq!(line.stand(one(2, 1 << 41)), Some(all[0]));
    assert!(
        !line.settle(all[0], Came::Answered, s(0), 0.5),
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
fn wanted_is_what_has_no_answer_of_an_ai_and_is_not_too_old() {
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
        let late = At(1_000).plus(WITHIN);
        assert!(is_wanted(&record, &[], At(late.0 - 1)) && !is_wanted(&record, &[], late));
        let again = TurnRecord {
            retry_of: Some(record.turn),
            ..degraded()
        };
        assert!(
            !is_wanted(&record, &[again], soon),
            "asked again, whatever came of that"
        );
        let other = TurnRecord {
            retry_of: Some(TurnId::after(None, 5, 5)),
            ..degraded()
        };
        assert!(is_wanted(&record, &[other], soon));
        let called = TurnRecord {
            client_msg_id: ClientMsgId::of_call(7),
            ..record.clone()
        };
        assert!(!is_wanted(&called, &[], soon));
        let late = Followup {
            text: "late".into(),
            provider: "p".into(),
            model: "m".into(),
            at: At(1_500),
        };
        assert!(!is_wanted(
            &TurnRecord {
                followup: Some(late),
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
fn whole_is_what_an_ai_said_to_its_end() {
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
