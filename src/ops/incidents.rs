//! The incident log: periods in which the service was not normal, and why. Pure: times and ids are
//! passed in.
//!
//! An incident lasts from leaving `Normal` to returning to it, under one id. Its mode is the worst
//! one it had. An incident that was open at shutdown stays open after a restart.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::{Incident, ServiceLifetime, ServiceMode, Timestamp};
use crate::store::MAX_INCIDENTS;

/// Minimum gap between two runs of the service that counts as downtime. A restart takes less.
pub const MIN_DOWNTIME: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub struct IncidentLog {
    /// Oldest first. Only the last one can be open.
    incidents: VecDeque<Incident>,
}

impl IncidentLog {
    /// Restores the saved incidents. All but the newest are closed: an incident whose end was lost
    /// ends when the next one starts.
    pub fn restore(mut incidents: Vec<Incident>) -> Self {
        incidents.sort_by_key(|incident| incident.started);
        let mut next_start = None;
        for incident in incidents.iter_mut().rev() {
            incident.ended = incident.ended.or(next_start);
            next_start = Some(incident.started);
        }
        let mut log = Self {
            incidents: incidents.into(),
        };
        log.truncate();
        log
    }

    /// The open incident, if there is one.
    pub fn running(&self) -> Option<&Incident> {
        self.incidents
            .back()
            .filter(|incident| incident.ended.is_none())
    }

    pub fn newest_first(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().rev()
    }

    /// Records the mode shown at `now`. Returns the incident if it was opened, closed or got worse.
    ///
    /// `id` is called for a new incident, `cause` for a new or worse one.
    pub fn observe(
        &mut self,
        mode: ServiceMode,
        now: Timestamp,
        cause: impl FnOnce() -> String,
        id: impl FnOnce() -> String,
    ) -> Option<Incident> {
        match self
            .incidents
            .back_mut()
            .filter(|incident| incident.ended.is_none())
        {
            None if mode == ServiceMode::Normal => return None,
            None => {
                self.incidents.push_back(Incident {
                    id: id(),
                    mode,
                    started: now,
                    ended: None,
                    cause: cause(),
                });
                self.truncate();
            }
            Some(running) if mode == ServiceMode::Normal => running.ended = Some(now),
            Some(running) if mode > running.mode => {
                running.mode = mode;
                running.cause = cause();
            }
            Some(_) => return None,
        }
        self.incidents.back().cloned()
    }

    /// Records the time from `life.last` to `now` as an incident of its own if it is longer than
    /// [`MIN_DOWNTIME`] and no incident was open.
    pub fn record_downtime(
        &mut self,
        life: ServiceLifetime,
        now: Timestamp,
        id: impl FnOnce() -> String,
    ) -> Option<Incident> {
        if self.running().is_some() || now.since(life.last_seen) <= MIN_DOWNTIME {
            return None;
        }
        let cause = "The service was not running.".to_owned();
        self.incidents.push_back(Incident {
            id: id(),
            mode: ServiceMode::Outage,
            started: life.last_seen,
            ended: Some(now),
            cause,
        });
        self.truncate();
        self.incidents.back().cloned()
    }

    fn truncate(&mut self) {
        while self.incidents.len() > MAX_INCIDENTS {
            self.incidents.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(incidents: &mut IncidentLog, mode: ServiceMode, at: u64) -> Option<Incident> {
        incidents.observe(
            mode,
            Timestamp(at),
            || format!("cause at {at}"),
            || format!("inc-{at}"),
        )
    }

    fn incident(started: u64, ended: Option<u64>) -> Incident {
        Incident {
            id: format!("inc-{started}"),
            mode: ServiceMode::Degraded,
            started: Timestamp(started),
            ended: ended.map(Timestamp),
            cause: String::new(),
        }
    }

    #[test]
    fn an_incident_lasts_from_leaving_normal_to_returning() {
        let mut log = IncidentLog::default();
        assert_eq!(observe(&mut log, ServiceMode::Normal, 1), None);
        let opened = observe(&mut log, ServiceMode::Degraded, 2).unwrap();
        assert_eq!(
            (opened.id.as_str(), opened.mode, opened.ended),
            ("inc-2", ServiceMode::Degraded, None)
        );
        assert_eq!(
            observe(&mut log, ServiceMode::Degraded, 3),
            None,
            "nothing changed"
        );
        let worse = observe(&mut log, ServiceMode::Outage, 4).unwrap();
        assert_eq!(
            (worse.id.as_str(), worse.mode, worse.cause.as_str()),
            ("inc-2", ServiceMode::Outage, "cause at 4")
        );
        assert_eq!(
            observe(&mut log, ServiceMode::Degraded, 5),
            None,
            "the worst mode is kept"
        );
        assert_eq!(
            log.running().map(|incident| incident.mode),
            Some(ServiceMode::Outage)
        );
        let closed = observe(&mut log, ServiceMode::Normal, 6).unwrap();
        assert_eq!(
            (closed.id.as_str(), closed.started, closed.ended),
            ("inc-2", Timestamp(2), Some(Timestamp(6)))
        );
        assert_eq!(log.running(), None);
        assert_eq!(
            observe(&mut log, ServiceMode::Outage, 7).unwrap().id,
            "inc-7"
        );
        let ids: Vec<_> = log
            .newest_first()
            .map(|incident| incident.id.as_str())
            .collect();
        assert_eq!(ids, ["inc-7", "inc-2"]);
    }

    #[test]
    fn an_open_incident_continues_after_a_restart() {
        let mut log = IncidentLog::restore(vec![
            incident(9, None),
            incident(3, None),
            incident(1, Some(2)),
        ]);
        assert_eq!(
            log.running().map(|incident| incident.started),
            Some(Timestamp(9))
        );
        let ends: Vec<_> = log.newest_first().map(|incident| incident.ended).collect();
        assert_eq!(ends, [None, Some(Timestamp(9)), Some(Timestamp(2))]);
        let life = ServiceLifetime {
            first_start: Timestamp(0),
            last_seen: Timestamp(10),
        };
        assert_eq!(
            log.record_downtime(life, Timestamp(10_000_000), || "inc-new".into()),
            None,
            "the downtime is part of the open incident"
        );
        assert_eq!(
            observe(&mut log, ServiceMode::Normal, 10_000_001)
                .unwrap()
                .id,
            "inc-9"
        );
    }

    #[test]
    fn a_long_gap_is_downtime_and_a_restart_is_not() {
        let life = ServiceLifetime {
            first_start: Timestamp(0),
            last_seen: Timestamp(1_000),
        };
        let mut log = IncidentLog::default();
        assert_eq!(
            log.record_downtime(life, Timestamp(1_000 + 120_000), || "inc-new".into()),
            None
        );
        let down = log
            .record_downtime(life, Timestamp(1_000 + 120_001), || "inc-new".into())
            .unwrap();
        assert_eq!(
            (down.mode, down.started, down.ended),
            (
                ServiceMode::Outage,
                Timestamp(1_000),
                Some(Timestamp(121_001))
            )
        );
        assert_eq!(log.running(), None);
    }

    #[test]
    fn the_oldest_incidents_are_dropped_first() {
        let many = (0..u64::try_from(MAX_INCIDENTS).unwrap() + 5).map(|ms| incident(ms, Some(ms)));
        let mut log = IncidentLog::restore(many.collect());
        assert_eq!(log.newest_first().count(), MAX_INCIDENTS);
        observe(&mut log, ServiceMode::Outage, 9_999);
        assert_eq!(
            (
                log.newest_first().count(),
                log.newest_first().last().unwrap().started
            ),
            (MAX_INCIDENTS, Timestamp(6))
        );
    }
}
