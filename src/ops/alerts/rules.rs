//! Decides what is sent and when. Pure: the current time is passed in.
//!
//! A condition that gets worse is sent at once, unless its severity was sent within the interval;
//! then it is only counted. The recovery of a sent alert is sent at once. An interval therefore has
//! at most one alert per severity, and its recovery. After the interval, the suppressed changes are
//! summed up once: as an alert if the condition is worse than what was sent, else as `Flapped`.
//!
//! Conditions caused by an outage drill are limited separately: they suppress no real alert, and a
//! problem that continues without the drill is sent as new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something that is either well or not. The rate limit for alerts applies per subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertSubject {
    /// A provider: well, down, or blocked.
    Provider(Arc<str>),
    /// A provider's daily budget: available, or spent.
    Budget(Arc<str>),
    Mode,
    Store,
    /// An anomaly metric: in its usual range, or not.
    Warning(AnomalyMetric),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyMetric {
    Degraded,
    /// The ratio of stale cached answers.
    Stale,
    /// The cost in USD per hour.
    Cost,
    /// The 95th percentile of the time to first token.
    FirstToken,
}

impl AnomalyMetric {
    pub const ALL: [Self; 4] = [Self::Degraded, Self::Stale, Self::Cost, Self::FirstToken];

    /// The name in `reason`, which programs read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Degraded => "degraded_share",
            Self::Stale => "stale_share",
            Self::Cost => "cost_per_hour",
            Self::FirstToken => "first_token_p95",
        }
    }
}

/// Severity: 0 well, 1 bad, 2 worse.
pub type AlertSeverity = u8;

pub const MAX_SEVERITY: AlertSeverity = 2;

impl AlertSubject {
    pub fn provider(&self) -> Option<&Arc<str>> {
        match self {
            Self::Provider(name) | Self::Budget(name) => Some(name),
            Self::Mode | Self::Store | Self::Warning(_) => None,
        }
    }

    /// A recovery from severity 2 to 1 is reported. If not, as for a blocked provider that is
    /// merely down by now, only a full recovery is.
    pub const fn reports_partial_recovery(&self) -> bool {
        matches!(self, Self::Mode)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlertCondition {
    pub subject: AlertSubject,
    pub severity: AlertSeverity,
    /// The reason in the protocol's word if it has one.
    pub reason: Option<String>,
    /// The reason in a sentence for people.
    pub description: String,
    /// An outage drill causes the condition.
    pub is_drill: bool,
}

/// A change to send to the sinks.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub condition: AlertCondition,
    /// The severity that was sent before.
    pub previous_severity: AlertSeverity,
    /// The number of times the condition became bad since its last alert but was not sent.
    pub suppressed: u32,
    /// A drill causes the condition, or caused the one that is over.
    pub is_drill: bool,
}

impl Notification {
    pub fn change(&self) -> AlertChange {
        match self.condition.severity.cmp(&self.previous_severity) {
            std::cmp::Ordering::Greater => AlertChange::Raised,
            std::cmp::Ordering::Less => AlertChange::Cleared,
            std::cmp::Ordering::Equal => AlertChange::Flapped,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertChange {
    Raised,
    Cleared,
    /// The severity is as before, but changed in between without being sent.
    Flapped,
}

/// The current and the sent state of one subject.
#[derive(Clone, Copy, Debug, Default)]
struct SubjectState {
    severity: AlertSeverity,
    sent_severity: AlertSeverity,
    /// When severities 1 and 2 were last sent, first for real and then for drill conditions.
    last_sent: [LastSent; 2],
    suppressed: u32,
    /// The sent condition was caused by a drill.
    is_drill: bool,
}

type LastSent = [Option<Duration>; MAX_SEVERITY as usize];

impl SubjectState {
    /// Returns `true` if this severity was not sent within `interval`, for real or for drills.
    fn may_send(
        &self,
        level: AlertSeverity,
        staged: bool,
        interval: Duration,
        now: Duration,
    ) -> bool {
        let [real, drill] = &self.last_sent;
        let times = if staged { drill } else { real };
        let sent = usize::from(level)
            .checked_sub(1)
            .and_then(|index| times.get(index).copied().flatten());
        sent.is_none_or(|sent| now.saturating_sub(sent) >= interval)
    }

    fn mark_sent(&mut self, level: AlertSeverity, staged: bool, now: Duration) {
        let [real, drill] = &mut self.last_sent;
        let times = if staged { drill } else { real };
        if let Some(last_sent) = usize::from(level)
            .checked_sub(1)
            .and_then(|index| times.get_mut(index))
        {
            *last_sent = Some(now);
        }
    }
}

/// The rate limit for alerts, and what was sent per subject.
#[derive(Debug)]
pub struct AlertRules {
    min_interval: Duration,
    subjects: BTreeMap<AlertSubject, SubjectState>,
}

impl AlertRules {
    /// At most one alert per subject and severity within `interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            min_interval: interval,
            subjects: BTreeMap::new(),
        }
    }

    pub fn set_interval(&mut self, interval: Duration) {
        self.min_interval = interval;
    }

    /// Restores an alert sent by an earlier process. `sent_at` is on this process's clock.
    pub fn restore(
        &mut self,
        cause: AlertSubject,
        level: AlertSeverity,
        staged: bool,
        sent_at: Duration,
    ) {
        let level = level.min(MAX_SEVERITY);
        let track = self.subjects.entry(cause).or_default();
        (track.severity, track.sent_severity, track.is_drill) = (level, level, staged);
        track.mark_sent(level, staged, sent_at);
    }

    /// Drops the subjects of removed providers, which will never recover.
    pub fn retain_providers<'p>(&mut self, providers: impl Iterator<Item = &'p str> + Clone) {
        self.subjects.retain(|cause, _| {
            cause
                .provider()
                .is_none_or(|name| providers.clone().any(|kept| *kept == **name))
        });
    }

    /// Records the current condition of a subject and returns the change to send, if any.
    ///
    /// Must be called repeatedly even while nothing changes: suppressed changes are sent later.
    pub fn observe(&mut self, found: &AlertCondition, now: Duration) -> Option<Notification> {
        let interval = self.min_interval;
        let track = self.subjects.entry(found.subject.clone()).or_default();
        let level = found.severity.min(MAX_SEVERITY);
        let worsened = level > std::mem::replace(&mut track.severity, level);
        // If only a drill was sent, a real condition is new.
        let before = if track.is_drill && !found.is_drill && level > 0 {
            0
        } else {
            track.sent_severity
        };
        let found = AlertCondition {
            severity: level,
            ..found.clone()
        };
        if level > before {
            if track.may_send(level, found.is_drill, interval, now) {
                (track.sent_severity, track.is_drill) = (level, found.is_drill);
                track.mark_sent(level, found.is_drill, now);
                return Some(Notification {
                    previous_severity: before,
                    suppressed: std::mem::take(&mut track.suppressed),
                    is_drill: found.is_drill,
                    condition: found,
                });
            }
            track.suppressed += u32::from(worsened);
            return None;
        }
        if level < before {
            let is_reported = level == 0 || found.subject.reports_partial_recovery();
            let staged = track.is_drill;
            return is_reported.then(|| {
                track.sent_severity = level;
                track.is_drill &= level > 0;
                Notification {
                    condition: found,
                    previous_severity: before,
                    suppressed: 0,
                    is_drill: staged,
                }
            });
        }
        let is_interval_over = (1..=MAX_SEVERITY).all(|level| {
            [true, false]
                .iter()
                .all(|staged| track.may_send(level, *staged, interval, now))
        });
        if track.suppressed == 0 || !is_interval_over {
            return None;
        }
        // The summary counts as an alert: the next one waits for the interval again.
        (1..=MAX_SEVERITY).for_each(|level| track.mark_sent(level, found.is_drill, now));
        Some(Notification {
            previous_severity: before,
            suppressed: std::mem::take(&mut track.suppressed),
            is_drill: found.is_drill,
            condition: found,
        })
    }
}

#[cfg(test)]
mod tests;
