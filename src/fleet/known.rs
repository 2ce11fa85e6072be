//! Tracks what the peers know of each account, and which of their messages were processed. Pure:
//! the current time is passed in.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::provider::news::News;

/// The number of tracked instances, far more than share one Redis. Beyond that, the one that was
/// silent for longest is forgotten, and a duplicate of its last message is processed.
const INSTANCES: usize = 4_096;

/// The number of tracked accounts. Each configured provider has one.
const ACCOUNTS: usize = 1_024;

/// A warning that was published or received is not repeated for this long.
const HINT_STANDS: Duration = Duration::from_secs(10);

/// A rate limit counts as known if its end differs by no more than this.
const NEAR: Duration = Duration::from_secs(1);

/// The mean distance between two instances that close their breakers after a recovery, so that a
/// thousand of them return to the provider within ten seconds.
const APART: Duration = Duration::from_millis(10);

const LONGEST_SPREAD: Duration = Duration::from_secs(10);

/// Recognizes duplicate messages, and those of this instance.
#[derive(Debug)]
pub struct Heard {
    own: String,
    /// The last number of each instance, and the value of `count` when it came.
    last: HashMap<String, (u64, u64)>,
    count: u64,
}

impl Heard {
    pub fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            last: HashMap::new(),
            count: 0,
        }
    }

    /// Returns `true` if the message is new and comes from another instance.
    pub fn is_news(&mut self, from: &str, number: u64) -> bool {
        if from == self.own {
            return false;
        }
        self.count += 1;
        let count = self.count;
        if let Some((last, seen_at)) = self.last.get_mut(from) {
            let is_new = number > *last;
            *last = number.max(*last);
            *seen_at = count;
            return is_new;
        }
        if self.last.len() >= INSTANCES {
            let oldest = self
                .last
                .iter()
                .min_by_key(|(_, (_, seen_at))| *seen_at)
                .map(|(name, _)| name.clone());
            oldest.map(|name| self.last.remove(&name));
        }
        self.last.insert(from.to_owned(), (number, count));
        true
    }
}

/// The knowledge of the cluster, this instance included, of each account.
#[derive(Debug, Default)]
pub struct Known(HashMap<String, Stand>);

#[derive(Clone, Copy, Debug, Default)]
struct Stand {
    open_until: Duration,
    blocked_until: Duration,
    hold_until: Duration,
    hint_until: Duration,
}

impl Known {
    pub fn note(&mut self, account: &str, event: News, now: Duration) {
        if self.0.len() >= ACCOUNTS && !self.0.contains_key(account) {
            self.0.retain(|_, state| !state.is_over(now));
            if self.0.len() >= ACCOUNTS {
                return;
            }
        }
        let state = self.0.entry(account.to_owned()).or_default();
        let until = now.saturating_add(event.lasts());
        match event {
            News::Tripped { blocked: true, .. } if event.is_shared() => state.blocked_until = until,
            News::Tripped { .. } if event.is_shared() => state.open_until = until,
            News::Tripped { .. } => state.hint_until = now.saturating_add(HINT_STANDS),
            News::Limited { .. } => state.hold_until = state.hold_until.max(until),
            News::Well => {
                *state = Stand {
                    hold_until: state.hold_until,
                    ..Stand::default()
                }
            }
            News::Reset => *state = Stand::default(),
        }
    }

    /// Returns `true` if the cluster knows of this already, so that in an outage seen by all
    /// instances only a few publish it.
    pub fn covers(&self, account: &str, event: News, now: Duration) -> bool {
        let Some(state) = self.0.get(account) else {
            return false;
        };
        // Half of the duration is enough: an instance that waits for less probes earlier, and
        // probes are one at a time.
        let until = now
            .saturating_add(event.lasts() / 2)
            .max(now.saturating_add(Duration::from_millis(1)));
        match event {
            News::Tripped { blocked: true, .. } if event.is_shared() => {
                state.blocked_until >= until
            }
            News::Tripped { .. } if event.is_shared() => {
                state.open_until.max(state.blocked_until) >= until
            }
            News::Tripped { .. } => {
                state
                    .hint_until
                    .max(state.open_until)
                    .max(state.blocked_until)
                    > now
            }
            News::Limited { lasts } => {
                state.hold_until.saturating_add(NEAR) >= now.saturating_add(lasts)
            }
            News::Well | News::Reset => false,
        }
    }
}

impl Stand {
    fn is_over(&self, now: Duration) -> bool {
        let Self {
            open_until,
            blocked_until,
            hold_until,
            hint_until,
        } = *self;
        [open_until, blocked_until, hold_until, hint_until]
            .into_iter()
            .all(|until| until <= now)
    }
}

/// Accounts that have recovered, with the time at which their breakers close here.
#[derive(Debug, Default)]
pub struct Reliefs(BTreeMap<String, Duration>);

impl Reliefs {
    /// Schedules closing the breaker within a time that grows with the number of instances. A
    /// repeated call does not postpone it.
    pub fn well(&mut self, account: &str, instances: u32, now: Duration, random_unit: f64) {
        let spread = APART
            .saturating_mul(instances.saturating_sub(1))
            .min(LONGEST_SPREAD);
        if self.0.len() < ACCOUNTS {
            let at = now.saturating_add(spread.mul_f64(random_unit.clamp(0.0, 1.0)));
            let due = self.0.entry(account.to_owned()).or_insert(at);
            *due = at.min(*due);
        }
    }

    /// Cancels the recovery after a new failure: the breaker stays as it is.
    pub fn cancel(&mut self, account: &str) {
        self.0.remove(account);
    }

    pub fn take_due(&mut self, now: Duration) -> Vec<String> {
        let due: Vec<_> = self
            .0
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        due.iter().for_each(|account| self.cancel(account));
        due
    }

    pub fn next(&self) -> Option<Duration> {
        self.0.values().min().copied()
    }
}

#[cfg(test)]
mod tests;
