//! Deduplication of alerts across instances: the alerts this instance owns, and those it defers
//! to other instances while these are alive and the condition lasts.
//!
//! Alerts about its own store are always sent, and so is everything if this is the only instance.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cause::{Cause, Finding, Level};
use super::claims::{Claims, Matter, Verdict};
use super::rules::{News, Told};

/// The interval at which claims are renewed and deferred alerts checked again.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });

/// An alert is no longer deferred after this many checks in a row that Redis did not answer.
const UNHEARD: u32 = 3;

/// Each deferred alert costs a check; more than this are sent instead.
const MOST: usize = 64;

/// The alerts owned by this instance and those it defers. `H` is the pending notification.
pub struct Together<H> {
    claims: Option<Claims>,
    /// Owned alerts, each with whether a sink has received it.
    mine: BTreeMap<Matter, bool>,
    left: Vec<Left<H>>,
    looked: Duration,
}

struct Left<H> {
    matter: Matter,
    held: H,
    /// Checks in a row that Redis did not answer.
    unheard: u32,
}

impl<H> Together<H> {
    /// `claims` is `None` if this is the only instance.
    pub fn new(claims: Option<Claims>) -> Self {
        Self {
            claims,
            mine: BTreeMap::new(),
            left: Vec::new(),
            looked: Duration::ZERO,
        }
    }

    /// Returns the instance that sends this notification. A summary is sent once per `interval`.
    pub async fn verdict(
        &mut self,
        sinks: &str,
        notification: &Told,
        interval: Duration,
    ) -> Verdict {
        let key = |level| matter(notification, level);
        let Some(claims) = self
            .claims
            .as_ref()
            .filter(|_| notification.found.cause != Cause::Store)
        else {
            return Verdict::Tell;
        };
        match notification.news() {
            News::Worse => {
                let key = key(notification.found.level);
                let verdict = claims.alert(sinks, &key).await.unwrap_or(Verdict::Tell);
                self.holds(key, verdict);
                verdict
            }
            News::Flapped => {
                claims
                    .sum(sinks, &key(notification.found.level), interval)
                    .await
            }
            News::Better => {
                let worst = notification.before;
                let now = notification.found.level;
                let milder: Vec<_> = (now + 1..worst).map(key).collect();
                let is_over =
                    |key: &Matter| key.cause == notification.found.cause && key.level > now;
                self.mine.retain(|key, _| !is_over(key));
                self.left.retain(|left| !is_over(&left.matter));
                claims.end(sinks, &key(worst), &milder).await
            }
        }
    }

    /// Restores an alert that an earlier process of this instance sent and that was not over.
    pub fn recall(&mut self, cause: Cause, level: Level, staged: bool) {
        self.mine.insert(
            Matter {
                cause,
                level,
                staged,
            },
            true,
        );
    }

    fn holds(&mut self, key: Matter, verdict: Verdict) {
        match verdict {
            Verdict::Leave => drop(self.mine.remove(&key)),
            Verdict::Tell => drop(self.mine.insert(key, false)),
            Verdict::TakeOver => drop(self.mine.insert(key, true)),
        }
    }

    /// Defers an alert to another instance. Gives `held` back if too many are deferred.
    pub fn leave(&mut self, notification: &Told, held: H) -> Option<H> {
        let key = matter(notification, notification.found.level);
        self.left.retain(|left| left.matter != key);
        if self.left.len() >= MOST {
            return Some(held);
        }
        self.left.push(Left {
            matter: key,
            held,
            unheard: 0,
        });
        None
    }

    /// Renews the owned claims and checks the deferred alerts whose conditions last.
    ///
    /// `has` returns `true` if a sink has received the alert. Returns the alerts that this
    /// instance has to send or take over.
    pub async fn again(
        &mut self,
        sinks: &str,
        found: &[Finding],
        now: Duration,
        has: impl Fn(&Matter) -> bool,
    ) -> Vec<(Verdict, H)> {
        let Some(claims) = self
            .claims
            .as_ref()
            .filter(|_| now.saturating_sub(self.looked) >= AGAIN)
        else {
            return Vec::new();
        };
        self.looked = now;
        // The claim of a removed provider is left to expire.
        let condition_of =
            |key: &Matter| found.iter().find(|condition| condition.cause == key.cause);
        let is_active = |key: &Matter| match condition_of(key) {
            Some(condition) => condition.level >= key.level,
            // A provider in half-open state has no condition, but its budget still has one.
            None => key.cause.provider().is_some_and(|name| {
                found
                    .iter()
                    .any(|condition| condition.cause.provider() == Some(name))
            }),
        };
        self.mine
            .retain(|key, _| condition_of(key).is_some() || is_active(key));
        self.mine
            .iter_mut()
            .for_each(|(key, is_sent)| *is_sent |= has(key));
        if !self.mine.is_empty() {
            claims.renew(sinks, &self.mine).await;
        }
        let mut due = Vec::new();
        let mut left = Vec::new();
        for Left {
            matter,
            held,
            unheard,
        } in std::mem::take(&mut self.left)
        {
            if !is_active(&matter) {
                continue;
            }
            match claims.alert(sinks, &matter).await {
                Some(Verdict::Leave) => left.push(Left {
                    matter,
                    held,
                    unheard: 0,
                }),
                None if unheard + 1 < UNHEARD => left.push(Left {
                    matter,
                    held,
                    unheard: unheard + 1,
                }),
                verdict => due.push((matter, verdict.unwrap_or(Verdict::Tell), held)),
            }
        }
        self.left = left;
        due.into_iter()
            .map(|(key, verdict, held)| {
                self.holds(key, verdict);
                (verdict, held)
            })
            .collect()
    }
}

fn matter(notification: &Told, level: Level) -> Matter {
    Matter {
        cause: notification.found.cause.clone(),
        level,
        staged: notification.staged,
    }
}
