//! What is known of each account from others, and whose messages were heard. Pure: the moment is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::provider::news::News;

/// Instances whose last message is remembered: far more than share one Redis. Beyond that the one that said nothing for longest is
/// forgotten, and could be heard twice.
const INSTANCES: usize = 4_096;

/// Accounts that anything is remembered of; there are as many as there are configured providers, in all versions of the configuration.
const ACCOUNTS: usize = 1_024;

/// For how long a hint that was told or heard needs not be repeated.
const HINT_STANDS: Duration = Duration::from_secs(10);

/// A hold that is known to within this is known.
const NEAR: Duration = Duration::from_secs(1);

/// Every instance closes its breaker, and sends its visitors, this much after the one before it, by chance: a provider that is well again
/// meets a thousand instances in the course of ten seconds.
const APART: Duration = Duration::from_millis(10);

/// The longest that an instance waits with that.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);

/// Which messages were heard.
#[derive(Debug)]
pub struct Heard {
    own: String,
    last: HashMap<String, (u64, u64)>,
    count: u64,
}

impl Heard {
    /// Nothing yet; `own` is this instance, whose own messages are none of its business.
    pub fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            last: HashMap::new(),
            count: 0,
        }
    }

    /// Whether this message is new, and of another.
    pub fn is_news(&mut self, from: &str, number: u64) -> bool {
        if from == self.own {
            return false;
        }
        self.count += 1;
        let count = self.count;
        if let Some((last, when)) = self.last.get_mut(from) {
            let news = number > *last;
            *last = number.max(*last);
            *when = count;
            return news;
        }
        if self.last.len() >= INSTANCES {
            let oldest = self
                .last
                .iter()
                .min_by_key(|(_, (_, when))| *when)
                .map(|(name, _)| name.clone());
            oldest.map(|name| self.last.remove(&name));
        }
        self.last.insert(from.to_owned(), (number, count));
        true
    }
}

/// What all instances are known to think of each account, this one included.
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
    /// Takes note of what was told or heard.
    pub fn note(&mut self, account: &str, news: News, now: Duration) {
        if self.0.len() >= ACCOUNTS && !self.0.contains_key(account) {
            self.0.retain(|_, stand| !stand.is_over(now));
            if self.0.len() >= ACCOUNTS {
                return;
            }
        }
        let stand = self.0.entry(account.to_owned()).or_default();
        let until = now.saturating_add(news.lasts());
        match news {
            News::Tripped { blocked: true, .. } if news.is_shared() => stand.blocked_until = until,
            News::Tripped { .. } if news.is_shared() => stand.open_until = until,
            News::Tripped { .. } => stand.hint_until = now.saturating_add(HINT_STANDS),
            News::Limited { .. } => stand.hold_until = stand.hold_until.max(until),
            News::Well => {
                *stand = Stand {
                    hold_until: stand.hold_until,
                    ..Stand::default()
                }
            }
            News::Reset => *stand = Stand::default(),
        }
    }

    /// Whether everyone knows that already. In an outage that all see at once, a few tell it and not all.
    pub fn covers(&self, account: &str, news: News, now: Duration) -> bool {
        let Some(stand) = self.0.get(account) else {
            return false;
        };
        // Half of it is near enough: whoever believes the shorter wait tries earlier, one at a time.
        let until = now
            .saturating_add(news.lasts() / 2)
            .max(now.saturating_add(Duration::from_millis(1)));
        match news {
            News::Tripped { blocked: true, .. } if news.is_shared() => stand.blocked_until >= until,
            News::Tripped { .. } if news.is_shared() => {
                stand.open_until.max(stand.blocked_until) >= until
            }
            News::Tripped { .. } => {
                stand
                    .hint_until
                    .max(stand.open_until)
                    .max(stand.blocked_until)
                    > now
            }
            News::Limited { lasts } => {
                stand.hold_until.saturating_add(NEAR) >= now.saturating_add(lasts)
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

/// Accounts that were found well, and whose breakers close here at their own moment.
#[derive(Debug, Default)]
pub struct Reliefs(BTreeMap<String, Duration>);

impl Reliefs {
    /// The account is well: its breaker here closes within a time that grows with the number of instances. Hearing it again puts nothing off.
    pub fn well(&mut self, account: &str, instances: u32, now: Duration, chance: f64) {
        let spread = APART
            .saturating_mul(instances.saturating_sub(1))
            .min(LONGEST_SPREAD);
        if self.0.len() < ACCOUNTS {
            let at = now.saturating_add(spread.mul_f64(chance.clamp(0.0, 1.0)));
            let closes = self.0.entry(account.to_owned()).or_insert(at);
            *closes = at.min(*closes);
        }
    }

    /// It is not, after all: the breaker stays as it is.
    pub fn cancel(&mut self, account: &str) {
        self.0.remove(account);
    }

    /// Those whose moment has come.
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

    /// When the next one's moment comes.
    pub fn next(&self) -> Option<Duration> {
        self.0.values().min().copied()
    }
}

#[cfg(test)]
mod tests;
