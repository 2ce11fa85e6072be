//! Messages heard twice, news that all know, breakers that close apart.

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
fn a_message_is_heard_once_and_ones_own_never() {
    let mut heard = Heard::new("me");
    for (from, number, news) in [
        ("me", 1, false),
        ("a", 5, true),
        ("a", 5, false),
        ("a", 4, false),
        ("b", 5, true),
        ("a", 6, true),
        ("a", u64::MAX, true),
        ("a", 7, false),
    ] {
        assert_eq!(heard.is_news(from, number), news, "{from} {number}");
    }
}

#[test]
fn as_many_instances_are_remembered_as_there_can_be_and_no_more() {
    let mut heard = Heard::new("me");
    (0..INSTANCES).for_each(|n| assert!(heard.is_news(&n.to_string(), 1)));
    assert!(
        !heard.is_news("0", 1),
        "the first is still known, and was heard just now"
    );
    assert!(heard.is_news("one more", 1));
    assert_eq!(heard.last.len(), INSTANCES);
    assert!(!heard.is_news("0", 1));
    assert!(
        heard.is_news("1", 1),
        "the one that said nothing for longest is forgotten"
    );
}

#[test]
fn what_all_know_needs_not_be_told() {
    use Fault::{QuotaSpent, ServerError, Timeout, Unauthorized, Unreachable};
    let open = |fault| tripped(false, fault, s(10));
    let block = |fault| tripped(true, fault, s(60));
    let limited = |seconds| News::Limited { lasts: s(seconds) };
    for (known, news, after, covered) in [
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
        let mut all = Known::default();
        all.note("a", known, s(100));
        assert_eq!(
            all.covers("a", news, s(100 + after)),
            covered,
            "{known:?}, then {news:?} after {after}"
        );
        assert!(!all.covers("b", news, s(100)));
    }
}

#[test]
fn what_is_over_must_be_told_again() {
    let mut all = Known::default();
    let (trip, hold) = (
        tripped(true, Fault::Unauthorized, s(60)),
        News::Limited { lasts: s(30) },
    );
    all.note("a", trip, s(0));
    all.note("a", hold, s(0));
    all.note("a", News::Well, s(1));
    assert!(!all.covers("a", trip, s(1)));
    assert!(
        all.covers("a", hold, s(1)),
        "a rate limit is over with its time alone"
    );
    all.note("a", News::Reset, s(1));
    assert!(!all.covers("a", hold, s(1)));
}

#[test]
fn accounts_are_bounded() {
    let mut all = Known::default();
    let trip = tripped(false, Fault::ServerError, s(10));
    (0..ACCOUNTS + 5).for_each(|n| all.note(&n.to_string(), trip, s(0)));
    assert_eq!(all.0.len(), ACCOUNTS);
    all.note("later", trip, s(11));
    assert!(
        all.covers("later", trip, s(11)) && all.0.len() == 1,
        "what is over makes room"
    );
}

#[test]
fn a_fleet_closes_one_by_one_unless_it_fails_again() {
    for (instances, chance, wait) in [
        (1, 1.0, 0),
        (2, 1.0, 10),
        (101, 0.5, 500),
        (1_001, 1.0, 10_000),
        (1_000_000, 1.0, 10_000),
        (0, 1.0, 0),
    ] {
        let mut reliefs = Reliefs::default();
        reliefs.well("a", instances, s(5), chance);
        reliefs.well("a", instances, s(6), chance);
        assert_eq!(
            reliefs.next(),
            Some(s(5) + Duration::from_millis(wait)),
            "{instances}"
        );
    }
    let mut reliefs = Reliefs::default();
    reliefs.well("a", 1_001, s(5), 1.0);
    assert_eq!(reliefs.take_due(s(14)), Vec::<String>::new());
    reliefs.well("b", 1_001, s(5), 1.0);
    reliefs.cancel("b");
    assert_eq!(reliefs.take_due(s(15)), ["a"]);
    assert_eq!((reliefs.next(), reliefs.take_due(s(100)).len()), (None, 0));
}
