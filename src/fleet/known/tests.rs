//! Deduplication of messages, events that all instances know, and staggered recovery.

use super::*;
use crate::chat::Fault;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tripped(blocked: bool, fault: Fault, lasts: Duration) -> News {
    News::Tripped {
        blocked,
        fault: Some(fault),
        strikes: 0,
        lasts,
    }
}

#[test]
fn a_message_is_processed_once_and_own_messages_never() {
    let mut dedup = Heard::new("me");
    for (from, number, is_new) in [
        ("me", 1, false),
        ("a", 5, true),
        ("a", 5, false),
        ("a", 4, false),
        ("b", 5, true),
        ("a", 6, true),
        ("a", u64::MAX, true),
        ("a", 7, false),
    ] {
        assert_eq!(dedup.is_news(from, number), is_new, "{from} {number}");
    }
}

#[test]
fn the_number_of_tracked_instances_is_bounded() {
    let mut dedup = Heard::new("me");
    (0..INSTANCES).for_each(|n| assert!(dedup.is_news(&n.to_string(), 1)));
    assert!(
        !dedup.is_news("0", 1),
        "the first is still tracked, and was seen just now"
    );
    assert!(dedup.is_news("one more", 1));
    assert_eq!(dedup.last.len(), INSTANCES);
    assert!(!dedup.is_news("0", 1));
    assert!(
        dedup.is_news("1", 1),
        "the one that was silent for longest is forgotten"
    );
}

#[test]
fn events_known_to_all_are_not_published() {
    use Fault::{QuotaSpent, ServerError, Timeout, Unauthorized, Unreachable};
    let open = |fault| tripped(false, fault, s(10));
    let block = |fault| tripped(true, fault, s(60));
    let limited = |seconds| News::Limited { lasts: s(seconds) };
    for (known, event, after, is_known) in [
        (open(ServerError), open(ServerError), 0, true),
        (open(ServerError), open(ServerError), 6, false),
        (open(ServerError), block(Unauthorized), 0, false),
        (block(QuotaSpent), open(ServerError), 0, true),
        (block(QuotaSpent), block(Unauthorized), 20, true),
        (open(ServerError), open(Unreachable), 0, true),
        (open(Unreachable), open(ServerError), 0, false),
        (open(Unreachable), open(Timeout), 9, true),
        (open(Unreachable), open(Timeout), 10, false),
        (limited(30), limited(30), 0, true),
        (limited(30), limited(30), 2, false),
        (limited(30), limited(20), 2, true),
        (limited(30), open(ServerError), 0, false),
        (open(ServerError), News::Well, 0, false),
        (News::Well, News::Well, 0, false),
        (News::Reset, News::Reset, 0, false),
    ] {
        let mut state = Known::default();
        state.note("a", known, s(100));
        assert_eq!(
            state.covers("a", event, s(100 + after)),
            is_known,
            "{known:?}, then {event:?} after {after}"
        );
        assert!(!state.covers("b", event, s(100)));
    }
}

#[test]
fn events_that_have_ended_are_published_again() {
    let mut state = Known::default();
    let trip = tripped(true, Fault::Unauthorized, s(60));
    let hold = News::Limited { lasts: s(30) };
    state.note("a", trip, s(0));
    state.note("a", hold, s(0));
    state.note("a", News::Well, s(1));
    assert!(!state.covers("a", trip, s(1)));
    assert!(
        state.covers("a", hold, s(1)),
        "a rate limit ends with its duration only"
    );
    state.note("a", News::Reset, s(1));
    assert!(!state.covers("a", hold, s(1)));
}

#[test]
fn the_number_of_accounts_is_bounded() {
    let mut state = Known::default();
    let trip = tripped(false, Fault::ServerError, s(10));
    (0..ACCOUNTS + 5).for_each(|n| state.note(&n.to_string(), trip, s(0)));
    assert_eq!(state.0.len(), ACCOUNTS);
    state.note("later", trip, s(11));
    assert!(
        state.covers("later", trip, s(11)) && state.0.len() == 1,
        "ended events make room"
    );
}

#[test]
fn breakers_close_one_by_one_unless_the_provider_fails_again() {
    for (instances, random_unit, wait) in [
        (1, 1.0, 0),
        (2, 1.0, 10),
        (101, 0.5, 500),
        (1_001, 1.0, 10_000),
        (1_000_000, 1.0, 10_000),
        (0, 1.0, 0),
    ] {
        let mut recovery = Reliefs::default();
        recovery.well("a", instances, s(5), random_unit);
        recovery.well("a", instances, s(6), random_unit);
        assert_eq!(
            recovery.next(),
            Some(s(5) + Duration::from_millis(wait)),
            "{instances}"
        );
    }
    let mut recovery = Reliefs::default();
    recovery.well("a", 1_001, s(5), 1.0);
    assert_eq!(recovery.take_due(s(14)), Vec::<String>::new());
    recovery.well("b", 1_001, s(5), 1.0);
    recovery.cancel("b");
    assert_eq!(recovery.take_due(s(15)), ["a"]);
    assert_eq!(
        (recovery.next(), recovery.take_due(s(100)).len()),
        (None, 0)
    );
}
