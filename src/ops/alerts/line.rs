//! The queue of one sink, and what that sink has been told. Pure.
//!
//! The queue is bounded: the oldest alert is dropped first and counted. A recovery is skipped if
//! the sink did not get the alert, because its delivery failed or it was dropped from the queue.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::alert::Alert;
use super::cause::{Cause, Level};
use super::rules::News;
use crate::chat::At;

pub const MOST: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The same at each attempt, so that a receiver can recognize duplicates.
    pub id: String,
    pub cause: Cause,
    pub level: Level,
    pub news: News,
    pub alert: Alert,
}

/// The last alert that a sink received about a subject that is not well. Persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    #[serde(rename = "cause")]
    pub cause: Cause,
    #[serde(rename = "level")]
    pub level: Level,
    pub at: At,
    /// The alert was sent as caused by a drill.
    #[serde(default, rename = "staged")]
    pub staged: bool,
}

#[derive(Debug, Default)]
pub struct Line {
    waiting: VecDeque<Envelope>,
    /// The alert being delivered, until the result is known.
    under_way: Option<Envelope>,
    known: BTreeMap<Cause, Known>,
    lost: u64,
    lost_at: Option<At>,
}

impl Line {
    /// Restores what the sink received before a restart.
    pub fn recalled(known: Vec<Known>) -> Self {
        let known = known
            .into_iter()
            .map(|state| (state.cause.clone(), state))
            .collect();
        Self {
            known,
            ..Self::default()
        }
    }

    /// Appends an alert. Drops the oldest one if the queue is full.
    pub fn push(&mut self, envelope: Envelope, now: At) {
        if self.waiting.len() >= MOST
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.given_up(&oldest, now);
        }
        self.waiting.push_back(envelope);
    }

    /// Prepares the queue for another sender: the alert in flight is put back in front.
    pub fn resumed(mut self) -> Self {
        if let Some(first) = self.under_way.take() {
            self.waiting.push_front(first);
        }
        self
    }

    pub fn take(&mut self) -> Option<Envelope> {
        while let Some(next) = self.waiting.pop_front() {
            let known = self.known.get(&next.cause);
            let is_wanted = match next.news {
                News::Worse => known.is_none_or(|state| {
                    state.level < next.level || (state.staged && !next.alert.drill)
                }),
                News::Better => known.is_some(),
                News::Flapped => true,
            };
            if is_wanted {
                self.under_way = Some(next.clone());
                return Some(next);
            }
        }
        None
    }

    pub fn delivered(&mut self, envelope: &Envelope) {
        self.under_way = None;
        if envelope.level == 0 {
            self.known.remove(&envelope.cause);
        } else {
            let Envelope {
                cause,
                level,
                alert,
                ..
            } = envelope;
            let known = Known {
                cause: cause.clone(),
                level: *level,
                at: alert.at,
                staged: alert.drill,
            };
            self.known.insert(cause.clone(), known);
        }
    }

    /// Records that an alert will not be delivered.
    ///
    /// If it was a recovery, the sink's state is removed, so that the next alert is sent.
    pub fn given_up(&mut self, envelope: &Envelope, now: At) {
        if self
            .under_way
            .as_ref()
            .is_some_and(|in_flight| in_flight.id == envelope.id)
        {
            self.under_way = None;
        }
        self.lost += 1;
        self.lost_at = Some(now);
        if envelope.news == News::Better {
            self.known.remove(&envelope.cause);
        }
    }

    /// Records that another instance, which is gone, sent this to the sink.
    pub fn learn(&mut self, known: Known) {
        self.known.insert(known.cause.clone(), known);
    }

    /// Records that another instance reports a recovery to `level`.
    pub fn forget(&mut self, cause: &Cause, level: Level) {
        if level == 0 {
            self.known.remove(cause);
        } else if let Some(known) = self.known.get_mut(cause) {
            known.level = known.level.min(level);
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The number of dropped alerts, and when the last one was dropped.
    pub fn lost(&self) -> (u64, Option<At>) {
        (self.lost, self.lost_at)
    }

    /// The conditions that the sink knows of.
    pub fn known(&self) -> Vec<Known> {
        self.known.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Mode;

    fn envelope(cause: Cause, level: Level, news: News, at: u64) -> Envelope {
        let alert = Alert {
            event: "x",
            provider: None,
            mode: Mode::Normal,
            incident: None,
            reason: None,
            at: At(at),
            text: String::new(),
            held_back: 0,
            drill: false,
        };
        Envelope {
            id: at.to_string(),
            cause,
            level,
            news,
            alert,
        }
    }

    fn down(at: u64) -> Envelope {
        envelope(Cause::Store, 1, News::Worse, at)
    }

    fn up(at: u64) -> Envelope {
        envelope(Cause::Store, 0, News::Better, at)
    }

    fn ids(queue: &mut Line) -> Vec<String> {
        std::iter::from_fn(|| {
            let next = queue.take()?;
            queue.delivered(&next);
            Some(next.id)
        })
        .collect()
    }

    #[test]
    fn alerts_are_sent_in_order() {
        let mut queue = Line::default();
        [down(1), up(2), down(3)]
            .into_iter()
            .for_each(|alert| queue.push(alert, At(9)));
        assert_eq!(ids(&mut queue), ["1", "2", "3"]);
        let known = Known {
            cause: Cause::Store,
            level: 1,
            at: At(3),
            staged: false,
        };
        assert_eq!((queue.known(), queue.lost()), (vec![known], (0, None)));
    }

    #[test]
    fn recovery_of_an_undelivered_alert_is_skipped() {
        let mut queue = Line::default();
        queue.push(down(1), At(1));
        let first = queue.take().unwrap();
        queue.given_up(&first, At(2));
        queue.push(up(3), At(3));
        assert!(queue.take().is_none());
        assert_eq!(queue.lost(), (1, Some(At(2))));
        // After a recovery that failed, the next alert is sent.
        queue.push(down(4), At(4));
        assert_eq!(ids(&mut queue), ["4"]);
        queue.push(up(5), At(5));
        let recovery = queue.take().unwrap();
        queue.given_up(&recovery, At(5));
        queue.push(down(6), At(6));
        assert_eq!(ids(&mut queue), ["6"]);
    }

    #[test]
    fn the_oldest_alert_is_dropped_and_its_recovery_skipped() {
        let mut queue = Line::default();
        queue.push(down(0), At(0));
        (1..=u64::try_from(MOST).unwrap())
            .for_each(|n| queue.push(envelope(Cause::Mode, 0, News::Flapped, n), At(n)));
        queue.push(up(1_000), At(1_000));
        assert_eq!((queue.len(), queue.lost().0), (MOST, 2));
        let sent = ids(&mut queue);
        assert_eq!(
            (sent.len(), sent[0].as_str()),
            (MOST - 1, "2"),
            "the recovery is skipped"
        );
    }

    #[test]
    fn an_alert_in_flight_is_requeued_first() {
        let mut queue = Line::default();
        [down(1), up(2)]
            .into_iter()
            .for_each(|alert| queue.push(alert, At(9)));
        assert_eq!(queue.take().unwrap().id, "1");
        assert_eq!(ids(&mut queue.resumed()), ["1", "2"]);
    }

    #[test]
    fn a_real_alert_is_sent_after_a_drill_alert() {
        let alert = |at, drill| Envelope {
            alert: Alert {
                drill,
                ..down(at).alert
            },
            ..down(at)
        };
        let mut queue = Line::default();
        [
            alert(1, true),
            alert(2, true),
            alert(3, false),
            alert(4, false),
            alert(5, true),
        ]
        .into_iter()
        .for_each(|alert| queue.push(alert, At(9)));
        assert_eq!(ids(&mut queue), ["1", "3"]);
    }

    #[test]
    fn delivered_state_is_restored_after_a_restart() {
        let known = vec![Known {
            cause: Cause::Store,
            level: 1,
            at: At(1),
            staged: false,
        }];
        let mut queue = Line::recalled(known);
        [down(2), up(3)]
            .into_iter()
            .for_each(|alert| queue.push(alert, At(9)));
        assert_eq!(ids(&mut queue), ["3"], "only the recovery is sent");
        let text = serde_json::to_string(
            &Line::recalled(vec![Known {
                cause: Cause::Provider("a".into()),
                level: 2,
                at: At(1),
                staged: true,
            }])
            .known(),
        );
        let restored: Vec<Known> = serde_json::from_str(&text.unwrap()).unwrap();
        assert_eq!(
            (restored[0].level, &restored[0].cause),
            (2, &Cause::Provider("a".into()))
        );
    }
}
