//! Rules of alerts: changes, flapping, summaries, restarts.

use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(300);

fn found(subject: &AlertSubject, level: AlertSeverity) -> AlertCondition {
    AlertCondition {
        subject: subject.clone(),
        severity: level,
        reason: None,
        description: String::new(),
        is_drill: false,
    }
}

fn provider() -> AlertSubject {
    AlertSubject::Provider("a".into())
}

/// The changes sent for these `(second, severity)` steps, as `(second, change, severity,
/// suppressed)`.
fn changes(
    subject: &AlertSubject,
    steps: &[(u64, AlertSeverity)],
) -> Vec<(u64, AlertChange, AlertSeverity, u32)> {
    let mut rules = AlertRules::new(INTERVAL);
    let observe = |&(at, level): &(u64, AlertSeverity)| {
        let notification = rules.observe(&found(subject, level), Duration::from_secs(at))?;
        Some((
            at,
            notification.change(),
            notification.condition.severity,
            notification.suppressed,
        ))
    };
    steps.iter().filter_map(observe).collect()
}

#[test]
fn an_alert_and_its_recovery_are_sent_once() {
    let steps = [
        (0, 0),
        (1, 1),
        (2, 1),
        (400, 1),
        (900, 0),
        (901, 0),
        (2_000, 0),
    ];
    assert_eq!(
        changes(&provider(), &steps),
        [
            (1, AlertChange::Raised, 1, 0),
            (900, AlertChange::Cleared, 0, 0)
        ]
    );
}

#[test]
fn a_hundred_flaps_yield_an_alert_a_recovery_and_a_summary() {
    let flaps = (0..200).map(|n| (n, u8::from(n % 2 == 0)));
    let quiet = (200..2_000).map(|n| (n, 0));
    let all: Vec<_> = flaps.chain(quiet).collect();
    let expected = [
        (0, AlertChange::Raised, 1, 0),
        (1, AlertChange::Cleared, 0, 0),
        (300, AlertChange::Flapped, 0, 99),
    ];
    assert_eq!(changes(&provider(), &all), expected);
}

#[test]
fn a_suppressed_change_is_sent_after_the_interval_if_it_lasts() {
    let steps = [
        (0, 1),
        (10, 0),
        (20, 1),
        (299, 1),
        (300, 1),
        (301, 1),
        (400, 0),
    ];
    let expected = [
        (0, AlertChange::Raised, 1, 0),
        (10, AlertChange::Cleared, 0, 0),
        (300, AlertChange::Raised, 1, 1),
        (400, AlertChange::Cleared, 0, 0),
    ];
    assert_eq!(changes(&provider(), &steps), expected);
}

#[test]
fn a_worse_severity_is_sent_within_the_interval() {
    let steps = [
        (0, 1),
        (10, 2),
        (20, 1),
        (30, 2),
        (40, 0),
        (50, 1),
        (310, 1),
    ];
    let mode = [
        (0, AlertChange::Raised, 1, 0),
        (10, AlertChange::Raised, 2, 0),
        (20, AlertChange::Cleared, 1, 0),
        (40, AlertChange::Cleared, 0, 0),
        (310, AlertChange::Raised, 1, 2),
    ];
    assert_eq!(changes(&AlertSubject::Mode, &steps), mode);
    // For a provider, the step from blocked to down and back is not reported.
    let blocked = [
        (0, AlertChange::Raised, 1, 0),
        (10, AlertChange::Raised, 2, 0),
        (40, AlertChange::Cleared, 0, 0),
        (310, AlertChange::Raised, 1, 1),
    ];
    assert_eq!(changes(&provider(), &steps), blocked);
}

#[test]
fn alerts_of_an_earlier_process_count() {
    let mut rules = AlertRules::new(INTERVAL);
    rules.restore(provider(), 1, false, Duration::from_secs(100));
    let mut observe = |level, at| {
        rules
            .observe(&found(&provider(), level), Duration::from_secs(at))
            .map(|notification| notification.change())
    };
    assert_eq!(observe(1, 200), None, "already sent");
    assert_eq!(observe(0, 210), Some(AlertChange::Cleared));
    assert_eq!(
        observe(1, 220),
        None,
        "within the interval of the earlier process"
    );
    assert_eq!(observe(1, 400), Some(AlertChange::Raised));
}

#[test]
fn drills_suppress_no_real_alert_and_remaining_problems_are_sent() {
    let mut rules = AlertRules::new(INTERVAL);
    let mut observe = |level, staged, at| {
        let found = AlertCondition {
            is_drill: staged,
            ..found(&provider(), level)
        };
        rules
            .observe(&found, Duration::from_secs(at))
            .map(|notification| (notification.change(), notification.is_drill))
    };
    assert_eq!(observe(1, true, 1), Some((AlertChange::Raised, true)));
    assert_eq!(observe(1, true, 2), None);
    assert_eq!(
        observe(0, false, 3),
        Some((AlertChange::Cleared, true)),
        "the drill is over"
    );
    assert_eq!(
        observe(1, false, 4),
        Some((AlertChange::Raised, false)),
        "the interval of the drill does not count"
    );
    assert_eq!(observe(1, true, 5), None, "a drill on top changes nothing");
    assert_eq!(observe(0, false, 6), Some((AlertChange::Cleared, false)));
    assert_eq!(observe(1, true, 302), Some((AlertChange::Raised, true)));
    assert_eq!(
        observe(1, false, 400),
        Some((AlertChange::Raised, false)),
        "the problem continues without the drill"
    );
    assert_eq!(observe(0, false, 401), Some((AlertChange::Cleared, false)));
    rules.restore(provider(), 1, true, Duration::from_secs(500));
    let notification = rules
        .observe(&found(&provider(), 0), Duration::from_secs(501))
        .unwrap();
    assert_eq!(
        (notification.change(), notification.is_drill),
        (AlertChange::Cleared, true),
        "the earlier alert was a drill"
    );
}

#[test]
fn removed_providers_are_dropped() {
    let mut rules = AlertRules::new(INTERVAL);
    let a = provider();
    let b = AlertSubject::Provider("b".into());
    for subject in [&a, &b, &AlertSubject::Mode] {
        assert!(rules.observe(&found(subject, 1), INTERVAL).is_some());
    }
    rules.retain_providers(["b"].into_iter());
    assert_eq!(
        rules.subjects.keys().collect::<Vec<_>>(),
        [&b, &AlertSubject::Mode]
    );
}

#[test]
fn without_an_interval_every_change_is_sent() {
    let mut rules = AlertRules::new(Duration::ZERO);
    let changes = (0..10)
        .filter_map(|n| rules.observe(&found(&provider(), n % 2), INTERVAL))
        .count();
    assert_eq!(changes, 9);
}

proptest! {
    /// For any sequence: alerts of one severity respect the interval, only sent conditions
    /// recover, and the receiver ends up with the current state.
    #[test]
    fn guarantees_hold(steps in prop::collection::vec((0_u64..200, 0_u8..=2), 1..200), mode: bool) {
        let subject = if mode { AlertSubject::Mode } else { provider() };
        let mut rules = AlertRules::new(INTERVAL);
        let mut now = 0;
        let mut believed = 0;
        let mut last = [None::<u64>; 3];
        let settling = [(0, steps.last().unwrap().1), (301, steps.last().unwrap().1), (301, steps.last().unwrap().1)];
        for (wait, level) in steps.iter().copied().chain(settling) {
            now += wait;
            let Some(notification) = rules.observe(&found(&subject, level), Duration::from_secs(now)) else { continue };
            prop_assert_eq!(notification.previous_severity, believed);
            match notification.change() {
                AlertChange::Raised => {
                    let index = usize::from(notification.condition.severity);
                    prop_assert!(last[index].is_none_or(|last| now - last >= 300));
                    last[index] = Some(now);
                }
                AlertChange::Cleared => prop_assert!(believed > notification.condition.severity),
                AlertChange::Flapped => {
                    prop_assert!(notification.suppressed > 0 && last.iter().flatten().all(|last| now - last >= 300));
                    last = [Some(now); 3];
                }
            }
            believed = notification.condition.severity;
        }
        let level = steps.last().unwrap().1;
        let is_current = believed == level || (!mode && level > 0 && believed > level);
        prop_assert!(is_current, "believed {believed}, is {level}");
    }
}
