//! The incident log: periods in which the service was not normal, and why. Pure: times and ids are
//! passed in.
//!
//! An incident lasts from leaving `Normal` to returning to it, under one id. Its mode is the worst
//! one it had. An incident that was open at shutdown stays open after a restart.

use std::collections::VecDeque;
use std::time::Duration;

use crate::chat::{At, Incident, Life, Mode};
use crate::store::INCIDENTS;

/// Minimum gap between two runs of the service that counts as downtime. A restart takes less.
pub const DOWN: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub struct Incidents {
    /// Oldest first. Only the last one can be open.
    all: VecDeque<Incident>,
}

impl Incidents {
    /// Restores the saved incidents. All but the newest are closed: an incident whose end was lost
    /// ends when the next one starts.
    pub fn recalled(mut incidents: Vec<Incident>) -> Self {
        incidents.sort_by_key(|incident| incident.started);
        let mut next_start = None;
        for incident in incidents.iter_mut().rev() {
            incident.ended = incident.ended.or(next_start);
            next_start = Some(incident.started);
        }
        let mut log = Self {
            all: incidents.into(),
        };
        log.bound();
        log
    }

    /// The open incident, if there is one.
    pub fn running(&self) -> Option<&Incident> {
        self.all.back().filter(|incident| incident.ended.is_none())
    }

    pub fn newest_first(&self) -> impl Iterator<Item = &Incident> {
        self.all.iter().rev()
    }

    /// Records the mode shown at `now`. Returns the incident if it was opened, closed or got worse.
    ///
    /// `id` is called for a new incident, `cause` for a new or worse one.
    pub fn see(
        &mut self,
        mode: Mode,
        now: At,
        cause: impl FnOnce() -> String,
        id: impl FnOnce() -> String,
    ) -> Option<Incident> {
        match self
            .all
            .back_mut()
            .filter(|incident| incident.ended.is_none())
        {
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

    /// Records the time from `life.last` to `now` as an incident of its own if it is longer than
    /// [`MIN_DOWNTIME`] and no incident was open.
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

    fn observe(incidents: &mut Incidents, mode: Mode, at: u64) -> Option<Incident> {
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
    fn an_incident_lasts_from_leaving_normal_to_returning() {
        let mut log = Incidents::default();
        assert_eq!(observe(&mut log, Mode::Normal, 1), None);
        let opened = observe(&mut log, Mode::Degraded, 2).unwrap();
        assert_eq!(
            (opened.id.as_str(), opened.mode, opened.ended),
            ("inc-2", Mode::Degraded, None)
        );
        assert_eq!(
            observe(&mut log, Mode::Degraded, 3),
            None,
            "nothing changed"
        );
        let worse = observe(&mut log, Mode::Outage, 4).unwrap();
        assert_eq!(
            (worse.id.as_str(), worse.mode, worse.cause.as_str()),
            ("inc-2", Mode::Outage, "cause at 4")
        );
        assert_eq!(
            observe(&mut log, Mode::Degraded, 5),
            None,
            "the worst mode is kept"
        );
        assert_eq!(
            log.running().map(|incident| incident.mode),
            Some(Mode::Outage)
        );
        let closed = observe(&mut log, Mode::Normal, 6).unwrap();
        assert_eq!(
            (closed.id.as_str(), closed.started, closed.ended),
            ("inc-2", At(2), Some(At(6)))
        );
        assert_eq!(log.running(), None);
        assert_eq!(observe(&mut log, Mode::Outage, 7).unwrap().id, "inc-7");
        let ids: Vec<_> = log
            .newest_first()
            .map(|incident| incident.id.as_str())
            .collect();
        assert_eq!(ids, ["inc-7", "inc-2"]);
    }

    #[test]
    fn an_open_incident_continues_after_a_restart() {
        let mut log = Incidents::recalled(vec![
            incident(9, None),
            incident(3, None),
            incident(1, Some(2)),
        ]);
        assert_eq!(log.running().map(|incident| incident.started), Some(At(9)));
        let ends: Vec<_> = log.newest_first().map(|incident| incident.ended).collect();
        assert_eq!(ends, [None, Some(At(9)), Some(At(2))]);
        let life = Life {
            first: At(0),
            last: At(10),
        };
        assert_eq!(
            log.back(life, At(10_000_000), || "inc-new".into()),
            None,
            "the downtime is part of the open incident"
        );
        assert_eq!(
            observe(&mut log, Mode::Normal, 10_000_001).unwrap().id,
            "inc-9"
        );
    }

    #[test]
    fn a_long_gap_is_downtime_and_a_restart_is_not() {
        let life = Life {
            first: At(0),
            last: At(1_000),
        };
        let mut log = Incidents::default();
        assert_eq!(
            log.back(life, At(1_000 + 120_000), || "inc-new".into()),
            None
        );
        let down = log
            .back(life, At(1_000 + 120_001), || "inc-new".into())
            .unwrap();
        assert_eq!(
            (down.mode, down.started, down.ended),
            (Mode::Outage, At(1_000), Some(At(121_001)))
        );
        assert_eq!(log.running(), None);
    }

    #[test]
    fn the_oldest_incidents_are_dropped_first() {
        let many = (0..u64::try_from(INCIDENTS).unwrap() + 5).map(|ms| incident(ms, Some(ms)));
        let mut log = Incidents::recalled(many.collect());
        assert_eq!(log.newest_first().count(), INCIDENTS);
        observe(&mut log, Mode::Outage, 9_999);
        assert_eq!(
            (
                log.newest_first().count(),
                log.newest_first().last().unwrap().started
            ),
            (INCIDENTS, At(6))
        );
    }
}
