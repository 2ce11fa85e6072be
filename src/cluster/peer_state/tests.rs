//! Deduplication of messages, events that all instances know, and staggered recovery.

use super::*;
use crate::domain::FaultKind;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tripped(blocked: bool, fault: FaultKind, lasts: Duration) -> ProviderEvent {
    ProviderEvent::Opened {
        is_blocked: blocked,
        fault: Some(fault),
        failed_probes: 0,
        duration: lasts,
    }
}

#[test]
fn a_message_is_processed_once_and_own_messages_never() {
    let mut dedup = MessageDedup::new("me");
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
        assert_eq!(dedup.is_new(from, number), is_new, "{from} {number}");
    }
}

#[test]
fn the_number_of_tracked_instances_is_bounded() {
    let mut dedup = MessageDedup::new("me");
    (0..MAX_INSTANCES).for_each(|n| assert!(dedup.is_new(&n.to_string(), 1)));
    assert!(
        !dedup.is_new("0", 1),
        "the first is still tracked, and was seen just now"
    );
    assert!(dedup.is_new("one more", 1));
    assert_eq!(dedup.last_seen.len(), MAX_INSTANCES);
    assert!(!dedup.is_new("0", 1));
    assert!(
        dedup.is_new("1", 1),
        "the one that was silent for longest is forgotten"
    );
}

#[test]
fn events_known_to_all_are_not_published() {
    use FaultKind::{QuotaSpent, ServerError, Timeout, Unauthorized, Unreachable};
    let open = |fault| tripped(false, fault, s(10));
    let block = |fault| tripped(true, fault, s(60));
    let limited = |seconds| ProviderEvent::RateLimited {
        duration: s(seconds),
    };
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
        (open(ServerError), ProviderEvent::Recovered, 0, false),
        (ProviderEvent::Recovered, ProviderEvent::Recovered, 0, false),
        (ProviderEvent::Reset, ProviderEvent::Reset, 0, false),
    ] {
        let mut state = PeerState::default();
        state.record("a", known, s(100));
        assert_eq!(
            state.already_known("a", event, s(100 + after)),
            is_known,
            "{known:?}, then {event:?} after {after}"
        );
        assert!(!state.already_known("b", event, s(100)));
    }
}

#[test]
fn events_that_have_ended_are_published_again() {
    let mut state = PeerState::default();
    let trip = tripped(true, FaultKind::Unauthorized, s(60));
    let hold = ProviderEvent::RateLimited { duration: s(30) };
    state.record("a", trip, s(0));
    state.record("a", hold, s(0));
    state.record("a", ProviderEvent::Recovered, s(1));
    assert!(!state.already_known("a", trip, s(1)));
    assert!(
        state.already_known("a", hold, s(1)),
        "a rate limit ends with its duration only"
    );
    state.record("a", ProviderEvent::Reset, s(1));
    assert!(!state.already_known("a", hold, s(1)));
}

#[test]
fn the_number_of_accounts_is_bounded() {
    let mut state = PeerState::default();
    let trip = tripped(false, FaultKind::ServerError, s(10));
    (0..MAX_ACCOUNTS + 5).for_each(|n| state.record(&n.to_string(), trip, s(0)));
    assert_eq!(state.0.len(), MAX_ACCOUNTS);
    state.record("later", trip, s(11));
    assert!(
        state.already_known("later", trip, s(11)) && state.0.len() == 1,
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
        let mut recovery = StaggeredRecovery::default();
        recovery.schedule("a", instances, s(5), random_unit);
        recovery.schedule("a", instances, s(6), random_unit);
        assert_eq!(
            recovery.next_due(),
            Some(s(5) + Duration::from_millis(wait)),
            "{instances}"
        );
    }
    let mut recovery = StaggeredRecovery::default();
    recovery.schedule("a", 1_001, s(5), 1.0);
    assert_eq!(recovery.drain_due(s(14)), Vec::<String>::new());
    recovery.schedule("b", 1_001, s(5), 1.0);
    recovery.cancel("b");
    assert_eq!(recovery.drain_due(s(15)), ["a"]);
    assert_eq!(
        (recovery.next_due(), recovery.drain_due(s(100)).len()),
        (None, 0)
    );
}
