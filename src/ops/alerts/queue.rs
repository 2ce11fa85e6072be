//! The queue of one sink, and what that sink has been told. Pure.
//!
//! The queue is bounded: the oldest alert is dropped first and counted. A recovery is skipped if
//! the sink did not get the alert, because its delivery failed or it was dropped from the queue.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::payload::Alert;
use super::rules::{AlertChange, AlertSeverity, AlertSubject};
use crate::domain::Timestamp;

pub const MAX_QUEUED: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct QueuedAlert {
    /// The same at each attempt, so that a receiver can recognize duplicates.
    pub id: String,
    pub subject: AlertSubject,
    pub severity: AlertSeverity,
    pub change: AlertChange,
    pub alert: Alert,
}

/// The last alert that a sink received about a subject that is not well. Persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredState {
    #[serde(rename = "cause")]
    pub subject: AlertSubject,
    #[serde(rename = "level")]
    pub severity: AlertSeverity,
    pub at: Timestamp,
    /// The alert was sent as caused by a drill.
    #[serde(default, rename = "staged")]
    pub is_drill: bool,
}

#[derive(Debug, Default)]
pub struct AlertQueue {
    waiting: VecDeque<QueuedAlert>,
    /// The alert being delivered, until the result is known.
    in_flight: Option<QueuedAlert>,
    delivered_states: BTreeMap<AlertSubject, DeliveredState>,
    dropped: u64,
    last_dropped_at: Option<Timestamp>,
}

impl AlertQueue {
    /// Restores what the sink received before a restart.
    pub fn restore(known: Vec<DeliveredState>) -> Self {
        let known = known
            .into_iter()
            .map(|state| (state.subject.clone(), state))
            .collect();
        Self {
            delivered_states: known,
            ..Self::default()
        }
    }

    /// Appends an alert. Drops the oldest one if the queue is full.
    pub fn push(&mut self, envelope: QueuedAlert, now: Timestamp) {
        if self.waiting.len() >= MAX_QUEUED
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.drop_failed(&oldest, now);
        }
        self.waiting.push_back(envelope);
    }

    /// Prepares the queue for another sender: the alert in flight is put back in front.
    pub fn requeue(mut self) -> Self {
        if let Some(first) = self.in_flight.take() {
            self.waiting.push_front(first);
        }
        self
    }

    pub fn pop(&mut self) -> Option<QueuedAlert> {
        while let Some(next) = self.waiting.pop_front() {
            let known = self.delivered_states.get(&next.subject);
            let is_wanted = match next.change {
                AlertChange::Raised => known.is_none_or(|state| {
                    state.severity < next.severity || (state.is_drill && !next.alert.drill)
                }),
                AlertChange::Cleared => known.is_some(),
                AlertChange::Flapped => true,
            };
            if is_wanted {
                self.in_flight = Some(next.clone());
                return Some(next);
            }
        }
        None
    }

    pub fn mark_delivered(&mut self, envelope: &QueuedAlert) {
        self.in_flight = None;
        if envelope.severity == 0 {
            self.delivered_states.remove(&envelope.subject);
        } else {
            self.mark_received(DeliveredState {
                subject: envelope.subject.clone(),
                severity: envelope.severity,
                at: envelope.alert.at,
                is_drill: envelope.alert.drill,
            });
        }
    }

    /// Records that an alert will not be delivered.
    ///
    /// If it was a recovery, the sink's state is removed, so that the next alert is sent.
    pub fn drop_failed(&mut self, envelope: &QueuedAlert, now: Timestamp) {
        if self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.id == envelope.id)
        {
            self.in_flight = None;
        }
        self.dropped += 1;
        self.last_dropped_at = Some(now);
        if envelope.change == AlertChange::Cleared {
            self.delivered_states.remove(&envelope.subject);
        }
    }

    /// Records what the sink received, also from another instance.
    pub fn mark_received(&mut self, known: DeliveredState) {
        self.delivered_states.insert(known.subject.clone(), known);
    }

    /// Records that another instance reports a recovery to `level`.
    pub fn mark_cleared(&mut self, cause: &AlertSubject, level: AlertSeverity) {
        if level == 0 {
            self.delivered_states.remove(cause);
        } else if let Some(known) = self.delivered_states.get_mut(cause) {
            known.severity = known.severity.min(level);
        }
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The number of dropped alerts, and when the last one was dropped.
    pub fn dropped(&self) -> (u64, Option<Timestamp>) {
        (self.dropped, self.last_dropped_at)
    }

    /// The conditions that the sink knows of.
    pub fn delivered_states(&self) -> Vec<DeliveredState> {
        self.delivered_states.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ServiceMode;

    fn envelope(
        cause: AlertSubject,
        level: AlertSeverity,
        news: AlertChange,
        at: u64,
    ) -> QueuedAlert {
        let alert = Alert {
            event: "x",
            provider: None,
            mode: ServiceMode::Normal,
            incident: None,
            reason: None,
            at: Timestamp(at),
            text: String::new(),
            held_back: 0,
            drill: false,
        };
        QueuedAlert {
            id: at.to_string(),
            subject: cause,
            severity: level,
            change: news,
            alert,
        }
    }

    fn down(at: u64) -> QueuedAlert {
        envelope(AlertSubject::Store, 1, AlertChange::Raised, at)
    }

    fn up(at: u64) -> QueuedAlert {
        envelope(AlertSubject::Store, 0, AlertChange::Cleared, at)
    }

    fn ids(queue: &mut AlertQueue) -> Vec<String> {
        std::iter::from_fn(|| {
            let next = queue.pop()?;
            queue.mark_delivered(&next);
            Some(next.id)
        })
        .collect()
    }

    #[test]
    fn alerts_are_sent_in_order() {
        let mut queue = AlertQueue::default();
        [down(1), up(2), down(3)]
            .into_iter()
            .for_each(|alert| queue.push(alert, Timestamp(9)));
        assert_eq!(ids(&mut queue), ["1", "2", "3"]);
        let known = DeliveredState {
            subject: AlertSubject::Store,
            severity: 1,
            at: Timestamp(3),
            is_drill: false,
        };
        assert_eq!(
            (queue.delivered_states(), queue.dropped()),
            (vec![known], (0, None))
        );
    }

    #[test]
    fn recovery_of_an_undelivered_alert_is_skipped() {
        let mut queue = AlertQueue::default();
        queue.push(down(1), Timestamp(1));
        let first = queue.pop().unwrap();
        queue.drop_failed(&first, Timestamp(2));
        queue.push(up(3), Timestamp(3));
        assert!(queue.pop().is_none());
        assert_eq!(queue.dropped(), (1, Some(Timestamp(2))));
        // After a recovery that failed, the next alert is sent.
        queue.push(down(4), Timestamp(4));
        assert_eq!(ids(&mut queue), ["4"]);
        queue.push(up(5), Timestamp(5));
        let recovery = queue.pop().unwrap();
        queue.drop_failed(&recovery, Timestamp(5));
        queue.push(down(6), Timestamp(6));
        assert_eq!(ids(&mut queue), ["6"]);
    }

    #[test]
    fn the_oldest_alert_is_dropped_and_its_recovery_skipped() {
        let mut queue = AlertQueue::default();
        queue.push(down(0), Timestamp(0));
        (1..=u64::try_from(MAX_QUEUED).unwrap()).for_each(|n| {
            queue.push(
                envelope(AlertSubject::Mode, 0, AlertChange::Flapped, n),
                Timestamp(n),
            )
        });
        queue.push(up(1_000), Timestamp(1_000));
        assert_eq!((queue.waiting_count(), queue.dropped().0), (MAX_QUEUED, 2));
        let sent = ids(&mut queue);
        assert_eq!(
            (sent.len(), sent[0].as_str()),
            (MAX_QUEUED - 1, "2"),
            "the recovery is skipped"
        );
    }

    #[test]
    fn an_alert_in_flight_is_requeued_first() {
        let mut queue = AlertQueue::default();
        [down(1), up(2)]
            .into_iter()
            .for_each(|alert| queue.push(alert, Timestamp(9)));
        assert_eq!(queue.pop().unwrap().id, "1");
        assert_eq!(ids(&mut queue.requeue()), ["1", "2"]);
    }

    #[test]
    fn a_real_alert_is_sent_after_a_drill_alert() {
        let alert = |at, drill| QueuedAlert {
            alert: Alert {
                drill,
                ..down(at).alert
            },
            ..down(at)
        };
        let mut queue = AlertQueue::default();
        [
            alert(1, true),
            alert(2, true),
            alert(3, false),
            alert(4, false),
            alert(5, true),
        ]
        .into_iter()
        .for_each(|alert| queue.push(alert, Timestamp(9)));
        assert_eq!(ids(&mut queue), ["1", "3"]);
    }

    #[test]
    fn delivered_state_is_restored_after_a_restart() {
        let known = vec![DeliveredState {
            subject: AlertSubject::Store,
            severity: 1,
            at: Timestamp(1),
            is_drill: false,
        }];
        let mut queue = AlertQueue::restore(known);
        [down(2), up(3)]
            .into_iter()
            .for_each(|alert| queue.push(alert, Timestamp(9)));
        assert_eq!(ids(&mut queue), ["3"], "only the recovery is sent");
        let text = serde_json::to_string(
            &AlertQueue::restore(vec![DeliveredState {
                subject: AlertSubject::Provider("a".into()),
                severity: 2,
                at: Timestamp(1),
                is_drill: true,
            }])
            .delivered_states(),
        );
        let restored: Vec<DeliveredState> = serde_json::from_str(&text.unwrap()).unwrap();
        assert_eq!(
            (restored[0].severity, &restored[0].subject),
            (2, &AlertSubject::Provider("a".into()))
        );
    }
}
