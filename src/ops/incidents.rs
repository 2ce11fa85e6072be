//! When the service was not normal, and why. Pure: moments and ids are arguments.
//!
//! An incident runs from leaving normal to regaining it, under one id; its mode is the worst it had. One that ran when the service stopped
//! goes on when it is back, until normal is seen.

use std::collections::VecDeque;
use std::time::Duration;

use crate::chat::{At, Incident, Life, Mode};
use crate::store::INCIDENTS;

/// A service that was not seen to run for longer than this was down: more than a restart takes.
pub const DOWN: Duration = Duration::from_secs(120);

/// The incidents that are remembered, oldest first; the last may still run.
#[derive(Debug, Default)]
pub struct Incidents {
    all: VecDeque<Incident>,
}

impl Incidents {
    /// What is remembered from before. Only the newest may still run: an older one whose end was lost ended when the next began.
    pub fn recalled(mut all: Vec<Incident>) -> Self {
        all.sort_by_key(|one| one.started);
        let mut next = None;
        for one in all.iter_mut().rev() {
            one.ended = one.ended.or(next);
            next = Some(one.started);
        }
        let mut incidents = Self { all: all.into() };
        incidents.bound();
        incidents
    }

    /// The one that runs.
    pub fn running(&self) -> Option<&Incident> {
        self.all.back().filter(|one| one.ended.is_none())
    }

    /// All that are remembered, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Incident> {
        self.all.iter().rev()
    }

    /// Takes note of the mode that is shown at `now`, and gives the incident that changed by it. `cause` and `id` are asked for a new one;
    /// `cause` also for one that became worse.
    pub fn see(
        &mut self,
        mode: Mode,
        now: At,
        cause: impl FnOnce() -> String,
        id: impl FnOnce() -> String,
    ) -> Option<Incident> {
        match self.all.back_mut().filter(|one| one.ended.is_none()) {
            None if mode == Mode::Normal => return None,
            None => {
                self.all.push_back(Incident {
                    id: id(),
                    mode,
                    started: now,
                    ended: None,
                    cause: cause(),
                });
                self.bound();
            }
            Some(running) if mode == Mode::Normal => running.ended = Some(now),
            Some(running) if mode > running.mode => {
                running.mode = mode;
                running.cause = cause();
            }
            Some(_) => return None,
        }
        self.all.back().cloned()
    }

    /// The service runs again at `now` and was last seen at `life.last`: where it was gone for longer than [`DOWN`], that was an incident of its
    /// own, unless one ran already.
    pub fn back(&mut self, life: Life, now: At, id: impl FnOnce() -> String) -> Option<Incident> {
        if self.running().is_some() || now.since(life.last) <= DOWN {
            return None;
        }
        let cause = "The service was not running.".to_owned();
        self.all.push_back(Incident {
            id: id(),
            mode: Mode::Outage,
            started: life.last,
            ended: Some(now),
            cause,
        });
        self.bound();
        self.all.back().cloned()
    }

    fn bound(&mut self) {
        while self.all.len() > INCIDENTS {
            self.all.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(incidents: &mut Incidents, mode: Mode, at: u64) -> Option<Incident> {
        incidents.see(
            mode,
            At(at),
            || format!("cause at {at}"),
            || format!("inc-{at}"),
        )
    }

    fn incident(started: u64, ended: Option<u64>) -> Incident {
        Incident {
            id: format!("inc-{started}"),
            mode: Mode::Degraded,
            started: At(started),
            ended: ended.map(At),
            cause: String::new(),
        }
    }

    #[test]
    fn one_incident_from_leaving_normal_to_regaining_it() {
        let mut all = Incidents::default();
        assert_eq!(see(&mut all, Mode::Normal, 1), None);
        let begun = see(&mut all, Mode::Degraded, 2).unwrap();
        assert_eq!(
            (begun.id.as_str(), begun.mode, begun.ended),
            ("inc-2", Mode::Degraded, None)
        );
        assert_eq!(see(&mut all, Mode::Degraded, 3), None, "nothing changed");
        let worse = see(&mut all, Mode::Outage, 4).unwrap();
        assert_eq!(
            (worse.id.as_str(), worse.mode, worse.cause.as_str()),
            ("inc-2", Mode::Outage, "cause at 4")
        );
        assert_eq!(
            see(&mut all, Mode::Degraded, 5),
            None,
            "it keeps the worst it had"
        );
        assert_eq!(all.running().map(|one| one.mode), Some(Mode::Outage));
        let over = see(&mut all, Mode::Normal, 6).unwrap();
        assert_eq!(
            (over.id.as_str(), over.started, over.ended),
            ("inc-2", At(2), Some(At(6)))
        );
        assert_eq!(all.running(), None);
        assert_eq!(see(&mut all, Mode::Outage, 7).unwrap().id, "inc-7");
        let ids: Vec<_> = all.newest_first().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["inc-7", "inc-2"]);
    }

    #[test]
    fn what_ran_at_the_stop_goes_on() {
        let mut all = Incidents::recalled(vec![
            incident(9, None),
            incident(3, None),
            incident(1, Some(2)),
        ]);
        assert_eq!(all.running().map(|one| one.started), Some(At(9)));
        let ends: Vec<_> = all.newest_first().map(|one| one.ended).collect();
        assert_eq!(ends, [None, Some(At(9)), Some(At(2))]);
        let life = Life {
            first: At(0),
            last: At(10),
        };
        assert_eq!(
            all.back(life, At(10_000_000), || "inc-new".into()),
            None,
            "it is part of the one that runs"
        );
        assert_eq!(see(&mut all, Mode::Normal, 10_000_001).unwrap().id, "inc-9");
    }

    #[test]
    fn a_service_that_was_gone_was_down_and_a_restart_is_none() {
        let life = Life {
            first: At(0),
            last: At(1_000),
        };
        let mut all = Incidents::default();
        assert_eq!(
            all.back(life, At(1_000 + 120_000), || "inc-new".into()),
            None
        );
        let down = all
            .back(life, At(1_000 + 120_001), || "inc-new".into())
            .unwrap();
        assert_eq!(
            (down.mode, down.started, down.ended),
            (Mode::Outage, At(1_000), Some(At(121_001)))
        );
        assert_eq!(all.running(), None);
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let many = (0..u64::try_from(INCIDENTS).unwrap() + 5).map(|ms| incident(ms, Some(ms)));
        let mut all = Incidents::recalled(many.collect());
        assert_eq!(all.newest_first().count(), INCIDENTS);
        see(&mut all, Mode::Outage, 9_999);
        assert_eq!(
            (
                all.newest_first().count(),
                all.newest_first().last().unwrap().started
            ),
            (INCIDENTS, At(6))
        );
    }
}
