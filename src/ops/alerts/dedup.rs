//! Deduplication of alerts across instances: the alerts this instance owns, and those it defers
//! to other instances while these are alive and the condition lasts.
//!
//! Alerts about its own store are always sent, and so is everything if this is the only instance.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claims::{AlertClaims, AlertKey, AlertOwnership};
use super::rules::{AlertChange, AlertCondition, AlertSeverity, AlertSubject, Notification};

/// The default of [`AlertDedup::recheck_interval`].
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// An alert is no longer deferred after this many checks in a row that Redis did not answer.
const MAX_SILENT_CHECKS: u32 = 3;

/// Each deferred alert costs a check; more than this are sent instead.
const MAX_DEFERRED: usize = 64;

/// The alerts owned by this instance and those it defers. `H` is the pending notification.
pub struct AlertDedup<H> {
    claims: Option<AlertClaims>,
    /// Owned alerts, each with whether a sink has received it.
    owned: BTreeMap<AlertKey, bool>,
    deferred: Vec<DeferredAlert<H>>,
    checked_at: Duration,
    /// The interval at which claims are renewed and deferred alerts checked again.
    pub recheck_interval: Duration,
}

struct DeferredAlert<H> {
    key: AlertKey,
    pending: H,
    /// Checks in a row that Redis did not answer.
    silent_checks: u32,
}

impl<H> AlertDedup<H> {
    /// `claims` is `None` if this is the only instance.
    pub fn new(claims: Option<AlertClaims>) -> Self {
        Self {
            claims,
            owned: BTreeMap::new(),
            deferred: Vec::new(),
            checked_at: Duration::ZERO,
            recheck_interval: RECHECK_INTERVAL,
        }
    }

    /// Returns the instance that sends this notification. A summary is sent once per `interval`.
    pub async fn ownership(
        &mut self,
        sinks: &str,
        notification: &Notification,
        interval: Duration,
    ) -> AlertOwnership {
        let key = |level| alert_key(notification, level);
        let Some(claims) = self
            .claims
            .as_ref()
            .filter(|_| notification.condition.subject != AlertSubject::Store)
        else {
            return AlertOwnership::Send;
        };
        match notification.change() {
            AlertChange::Raised => {
                let key = key(notification.condition.severity);
                let verdict = claims
                    .claim(sinks, &key)
                    .await
                    .unwrap_or(AlertOwnership::Send);
                self.record(key, verdict);
                verdict
            }
            AlertChange::Flapped => {
                claims
                    .claim_summary(sinks, &key(notification.condition.severity), interval)
                    .await
            }
            AlertChange::Cleared => {
                let worst = notification.previous_severity;
                let now = notification.condition.severity;
                let milder: Vec<_> = (now + 1..worst).map(key).collect();
                let is_over = |key: &AlertKey| {
                    key.subject == notification.condition.subject && key.severity > now
                };
                self.owned.retain(|key, _| !is_over(key));
                self.deferred.retain(|left| !is_over(&left.key));
                claims.release(sinks, &key(worst), &milder).await
            }
        }
    }

    /// Restores an alert that an earlier process of this instance sent and that was not over.
    pub fn restore(&mut self, cause: AlertSubject, level: AlertSeverity, staged: bool) {
        self.owned.insert(
            AlertKey {
                subject: cause,
                severity: level,
                is_drill: staged,
            },
            true,
        );
    }

    fn record(&mut self, key: AlertKey, verdict: AlertOwnership) {
        match verdict {
            AlertOwnership::OwnedElsewhere => drop(self.owned.remove(&key)),
            AlertOwnership::Send => drop(self.owned.insert(key, false)),
            AlertOwnership::TakeOver => drop(self.owned.insert(key, true)),
        }
    }

    /// Defers an alert to another instance. Gives `held` back if too many are deferred.
    pub fn defer(&mut self, notification: &Notification, held: H) -> Option<H> {
        let key = alert_key(notification, notification.condition.severity);
        self.deferred.retain(|left| left.key != key);
        if self.deferred.len() >= MAX_DEFERRED {
            return Some(held);
        }
        self.deferred.push(DeferredAlert {
            key,
            pending: held,
            silent_checks: 0,
        });
        None
    }

    /// Renews the owned claims and checks the deferred alerts whose conditions last.
    ///
    /// `has` returns `true` if a sink has received the alert. Returns the alerts that this
    /// instance has to send or take over.
    pub async fn recheck(
        &mut self,
        sinks: &str,
        found: &[AlertCondition],
        now: Duration,
        has: impl Fn(&AlertKey) -> bool,
    ) -> Vec<(AlertOwnership, H)> {
        let Some(claims) = self
            .claims
            .as_ref()
            .filter(|_| now.saturating_sub(self.checked_at) >= self.recheck_interval)
        else {
            return Vec::new();
        };
        self.checked_at = now;
        // The claim of a removed provider is left to expire.
        let condition_of = |key: &AlertKey| {
            found
                .iter()
                .find(|condition| condition.subject == key.subject)
        };
        let is_active = |key: &AlertKey| match condition_of(key) {
            Some(condition) => condition.severity >= key.severity,
            // A provider in half-open state has no condition, but its budget still has one.
            None => key.subject.provider().is_some_and(|name| {
                found
                    .iter()
                    .any(|condition| condition.subject.provider() == Some(name))
            }),
        };
        self.owned
            .retain(|key, _| condition_of(key).is_some() || is_active(key));
        self.owned
            .iter_mut()
            .for_each(|(key, is_sent)| *is_sent |= has(key));
        if !self.owned.is_empty() {
            claims.renew(sinks, &self.owned).await;
        }
        let mut due = Vec::new();
        let mut left = Vec::new();
        for mut alert in std::mem::take(&mut self.deferred) {
            if !is_active(&alert.key) {
                continue;
            }
            let verdict = claims.claim(sinks, &alert.key).await;
            alert.silent_checks = verdict.map_or(alert.silent_checks + 1, |_| 0);
            match verdict {
                Some(AlertOwnership::OwnedElsewhere) => left.push(alert),
                None if alert.silent_checks < MAX_SILENT_CHECKS => left.push(alert),
                verdict => due.push((verdict.unwrap_or(AlertOwnership::Send), alert)),
            }
        }
        self.deferred = left;
        due.into_iter()
            .map(|(verdict, alert)| {
                self.record(alert.key, verdict);
                (verdict, alert.pending)
            })
            .collect()
    }
}

fn alert_key(notification: &Notification, level: AlertSeverity) -> AlertKey {
    AlertKey {
        subject: notification.condition.subject.clone(),
        severity: level,
        is_drill: notification.is_drill,
    }
}
