//! What waits to be sent to one sink, and what that sink knows. Pure.
//!
//! Bounded: the oldest goes first, and is counted. A recovery is passed over where this sink was not told of what is over, be it that the alert
//! was given up, or pushed out of a full line.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::alert::Alert;
use super::cause::{Cause, Level};
use super::rules::News;
use crate::chat::At;

/// The most alerts that wait.
pub const MOST: usize = 64;

/// One alert on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The same at each try, so that a receiver can tell a repetition.
    pub id: String,
    /// What it is about.
    pub cause: Cause,
    /// How bad that is.
    pub level: Level,
    /// What kind of news it is.
    pub news: News,
    /// What is told.
    pub alert: Alert,
}

/// What a sink was told last of a cause that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What.
    pub cause: Cause,
    /// How bad.
    pub level: Level,
    /// When.
    pub at: At,
    /// Whether as a drill's doing.
    #[serde(default)]
    pub staged: bool,
}

/// The line before one sink.
#[derive(Debug, Default)]
pub struct Line {
    waiting: VecDeque<Envelope>,
    /// The one that was given out last, until it is known what became of it.
    under_way: Option<Envelope>,
    known: BTreeMap<Cause, Known>,
    lost: u64,
    lost_at: Option<At>,
}

impl Line {
    /// A line to a sink that was told this before.
    pub fn recalled(known: Vec<Known>) -> Self {
        let known = known
            .into_iter()
            .map(|one| (one.cause.clone(), one))
            .collect();
        Self {
            known,
            ..Self::default()
        }
    }

    /// Takes one more; the oldest makes room for it where the line is full.
    pub fn push(&mut self, envelope: Envelope, now: At) {
        if self.waiting.len() >= MOST
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.given_up(&oldest, now);
        }
        self.waiting.push_back(envelope);
    }

    /// The same line, before somebody else who sends: what was under way is the next again.
    pub fn resumed(mut self) -> Self {
        if let Some(first) = self.under_way.take() {
            self.waiting.push_front(first);
        }
        self
    }

    /// The next that this sink should hear.
    pub fn take(&mut self) -> Option<Envelope> {
        while let Some(next) = self.waiting.pop_front() {
            let known = self.known.get(&next.cause);
            let wanted = match next.news {
                News::Worse => known
                    .is_none_or(|one| one.level < next.level || (one.staged && !next.alert.drill)),
                News::Better => known.is_some(),
                News::Flapped => true,
            };
            if wanted {
                self.under_way = Some(next.clone());
                return Some(next);
            }
        }
        None
    }

    /// It was delivered.
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

    /// It will not be delivered. Where it was a recovery, that is forgotten: the next alert is news again.
    pub fn given_up(&mut self, envelope: &Envelope, now: At) {
        if self
            .under_way
            .as_ref()
            .is_some_and(|one| one.id == envelope.id)
        {
            self.under_way = None;
        }
        self.lost += 1;
        self.lost_at = Some(now);
        if envelope.news == News::Better {
            self.known.remove(&envelope.cause);
        }
    }

    /// Another instance told the sink this, and is gone.
    pub fn learn(&mut self, known: Known) {
        self.known.insert(known.cause.clone(), known);
    }

    /// Another instance tells the sink that this is no worse than `level` now.
    pub fn forget(&mut self, cause: &Cause, level: Level) {
        if level == 0 {
            self.known.remove(cause);
        } else if let Some(known) = self.known.get_mut(cause) {
            known.level = known.level.min(level);
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many were given up, and when the last was.
    pub fn lost(&self) -> (u64, Option<At>) {
        (self.lost, self.lost_at)
    }

    /// What the sink knows to be bad.
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

    fn ids(line: &mut Line) -> Vec<String> {
        std::iter::from_fn(|| {
            let next = line.take()?;
            line.delivered(&next);
            Some(next.id)
        })
        .collect()
    }

    #[test]
    fn alerts_go_in_their_order() {
        let mut line = Line::default();
        [down(1), up(2), down(3)]
            .into_iter()
            .for_each(|one| line.push(one, At(9)));
        assert_eq!(ids(&mut line), ["1", "2", "3"]);
        let known = Known {
            cause: Cause::Store,
            level: 1,
            at: At(3),
            staged: false,
        };
        assert_eq!((line.known(), line.lost()), (vec![known], (0, None)));
    }

    #[test]
    fn nothing_is_over_that_was_not_told() {
        let mut line = Line::default();
        line.push(down(1), At(1));
        let first = line.take().unwrap();
        line.given_up(&first, At(2));
        line.push(up(3), At(3));
        assert!(line.take().is_none());
        assert_eq!(line.lost(), (1, Some(At(2))));
        // And a recovery that was given up leaves the next alert news.
        line.push(down(4), At(4));
        assert_eq!(ids(&mut line), ["4"]);
        line.push(up(5), At(5));
        let over = line.take().unwrap();
        line.given_up(&over, At(5));
        line.push(down(6), At(6));
        assert_eq!(ids(&mut line), ["6"]);
    }

    #[test]
    fn the_oldest_makes_room_and_its_recovery_goes_with_it() {
        let mut line = Line::default();
        line.push(down(0), At(0));
        (1..=u64::try_from(MOST).unwrap())
            .for_each(|n| line.push(envelope(Cause::Mode, 0, News::Flapped, n), At(n)));
        line.push(up(1_000), At(1_000));
        assert_eq!((line.len(), line.lost().0), (MOST, 2));
        let told = ids(&mut line);
        assert_eq!(
            (told.len(), told[0].as_str()),
            (MOST - 1, "2"),
            "the recovery is passed over"
        );
    }

    #[test]
    fn what_was_under_way_is_the_next_again() {
        let mut line = Line::default();
        [down(1), up(2)]
            .into_iter()
            .for_each(|one| line.push(one, At(9)));
        assert_eq!(line.take().unwrap().id, "1");
        assert_eq!(ids(&mut line.resumed()), ["1", "2"]);
    }

    #[test]
    fn who_was_told_of_a_drill_is_told_of_what_goes_on_without_it() {
        let of = |at, drill| Envelope {
            alert: Alert {
                drill,
                ..down(at).alert
            },
            ..down(at)
        };
        let mut line = Line::default();
        [
            of(1, true),
            of(2, true),
            of(3, false),
            of(4, false),
            of(5, true),
        ]
        .into_iter()
        .for_each(|one| line.push(one, At(9)));
        assert_eq!(ids(&mut line), ["1", "3"]);
    }

    #[test]
    fn what_an_earlier_process_told_is_known() {
        let known = vec![Known {
            cause: Cause::Store,
            level: 1,
            at: At(1),
            staged: false,
        }];
        let mut line = Line::recalled(known);
        [down(2), up(3)]
            .into_iter()
            .for_each(|one| line.push(one, At(9)));
        assert_eq!(ids(&mut line), ["3"], "it was told, and is told to be over");
        let text = serde_json::to_string(
            &Line::recalled(vec![Known {
                cause: Cause::Provider("a".into()),
                level: 2,
                at: At(1),
                staged: true,
            }])
            .known(),
        );
        let back: Vec<Known> = serde_json::from_str(&text.unwrap()).unwrap();
        assert_eq!(
            (back[0].level, &back[0].cause),
            (2, &Cause::Provider("a".into()))
        );
    }
}
