//! Tracks what the peers know of each account, and which of their messages were processed. Pure:
//! the current time is passed in.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::provider::event::ProviderEvent;

/// The number of tracked instances, far more than share one Redis. Beyond that, the one that was
/// silent for longest is forgotten, and a duplicate of its last message is processed.
const MAX_INSTANCES: usize = 4_096;

/// The number of tracked accounts. Each configured provider has one.
const MAX_ACCOUNTS: usize = 1_024;

/// A warning that was published or received is not repeated for this long.
const WARNING_TTL: Duration = Duration::from_secs(10);

/// A rate limit counts as known if its end differs by no more than this.
const RATE_LIMIT_TOLERANCE: Duration = Duration::from_secs(1);

/// The mean distance between two instances that close their breakers after a recovery, so that a
/// thousand of them return to the provider within ten seconds.
const STAGGER: Duration = Duration::from_millis(10);

const MAX_STAGGER: Duration = Duration::from_secs(10);

/// Recognizes duplicate messages, and those of this instance.
#[derive(Debug)]
pub struct MessageDedup {
    own_instance: String,
    /// The last number of each instance, and the value of `count` when it came.
    last_seen: HashMap<String, (u64, u64)>,
    received: u64,
}

impl MessageDedup {
    pub fn new(own: &str) -> Self {
        Self {
            own_instance: own.to_owned(),
            last_seen: HashMap::new(),
            received: 0,
        }
    }

    /// Returns `true` if the message is new and comes from another instance.
    pub fn is_new(&mut self, from: &str, number: u64) -> bool {
        if from == self.own_instance {
            return false;
        }
        self.received += 1;
        let count = self.received;
        if let Some((last, seen_at)) = self.last_seen.get_mut(from) {
            let is_new = number > *last;
            *last = number.max(*last);
            *seen_at = count;
            return is_new;
        }
        if self.last_seen.len() >= MAX_INSTANCES {
            let oldest = self
                .last_seen
                .iter()
                .min_by_key(|(_, (_, seen_at))| *seen_at)
                .map(|(name, _)| name.clone());
            oldest.map(|name| self.last_seen.remove(&name));
        }
        self.last_seen.insert(from.to_owned(), (number, count));
        true
    }
}

/// The knowledge of the cluster, this instance included, of each account.
#[derive(Debug, Default)]
pub struct PeerState(HashMap<String, AccountState>);

#[derive(Clone, Copy, Debug, Default)]
struct AccountState {
    open_until: Duration,
    blocked_until: Duration,
    rate_limited_until: Duration,
    warned_until: Duration,
}

impl PeerState {
    pub fn record(&mut self, account: &str, event: ProviderEvent, now: Duration) {
        if self.0.len() >= MAX_ACCOUNTS && !self.0.contains_key(account) {
            self.0.retain(|_, state| !state.is_over(now));
            if self.0.len() >= MAX_ACCOUNTS {
                return;
            }
        }
        let state = self.0.entry(account.to_owned()).or_default();
        let until = now.saturating_add(event.ttl());
        match event {
            ProviderEvent::Opened {
                is_blocked: true, ..
            } if event.is_authoritative() => state.blocked_until = until,
            ProviderEvent::Opened { .. } if event.is_authoritative() => state.open_until = until,
            ProviderEvent::Opened { .. } => state.warned_until = now.saturating_add(WARNING_TTL),
            ProviderEvent::RateLimited { .. } => {
                state.rate_limited_until = state.rate_limited_until.max(until)
            }
            ProviderEvent::Recovered => {
                *state = AccountState {
                    rate_limited_until: state.rate_limited_until,
                    ..AccountState::default()
                }
            }
            ProviderEvent::Reset => *state = AccountState::default(),
        }
    }

    /// Returns `true` if the cluster knows of this already, so that in an outage seen by all
    /// instances only a few publish it.
    pub fn already_known(&self, account: &str, event: ProviderEvent, now: Duration) -> bool {
        let Some(state) = self.0.get(account) else {
            return false;
        };
        // Half of the duration is enough: an instance that waits for less probes earlier, and
        // probes are one at a time.
        let least = (event.ttl() / 2).max(Duration::from_millis(1));
        let until = now.saturating_add(least);
        let open_until = state.open_until.max(state.blocked_until);
        match event {
            ProviderEvent::Opened {
                is_blocked: true, ..
            } if event.is_authoritative() => state.blocked_until >= until,
            ProviderEvent::Opened { .. } if event.is_authoritative() => open_until >= until,
            ProviderEvent::Opened { .. } => open_until.max(state.warned_until) > now,
            ProviderEvent::RateLimited { duration } => {
                let known = state
                    .rate_limited_until
                    .saturating_add(RATE_LIMIT_TOLERANCE);
                known >= now.saturating_add(duration)
            }
            ProviderEvent::Recovered | ProviderEvent::Reset => false,
        }
    }
}

impl AccountState {
    fn is_over(&self, now: Duration) -> bool {
        let open_until = self.open_until.max(self.blocked_until);
        open_until
            .max(self.rate_limited_until)
            .max(self.warned_until)
            <= now
    }
}

/// Accounts that have recovered, with the time at which their breakers close here.
#[derive(Debug, Default)]
pub struct StaggeredRecovery(BTreeMap<String, Duration>);

impl StaggeredRecovery {
    /// Schedules closing the breaker within a time that grows with the number of instances. A
    /// repeated call does not postpone it.
    pub fn schedule(&mut self, account: &str, instances: u32, now: Duration, random_unit: f64) {
        let spread = STAGGER
            .saturating_mul(instances.saturating_sub(1))
            .min(MAX_STAGGER);
        if self.0.len() < MAX_ACCOUNTS {
            let at = now.saturating_add(spread.mul_f64(random_unit.clamp(0.0, 1.0)));
            let due = self.0.entry(account.to_owned()).or_insert(at);
            *due = at.min(*due);
        }
    }

    /// Cancels the recovery after a new failure: the breaker stays as it is.
    pub fn cancel(&mut self, account: &str) {
        self.0.remove(account);
    }

    pub fn drain_due(&mut self, now: Duration) -> Vec<String> {
        let due = self.0.extract_if(.., |_, at| *at <= now);
        due.map(|(account, _)| account).collect()
    }

    pub fn next_due(&self) -> Option<Duration> {
        self.0.values().min().copied()
    }
}

#[cfg(test)]
mod tests;
