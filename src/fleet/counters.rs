//! Counters shared by all instances: accepted messages and daily costs.
//!
//! After accepted messages, at most every 50 ms, this instance adds them to the shared rate limit
//! buckets and receives the debt of each bucket, which includes the peers' messages. A limit
//! therefore holds across the cluster except for what the peers accept within one interval, and
//! that is paid back as debt. Costs are published at the same interval. For providers with a budget
//! the sum is read at least four times a second.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Script;
use tokio::time::{Instant, sleep, timeout};

use super::share::{Share, Written};
use super::{Fleet, key};
use crate::provider::actor::SpentElsewhere;
use crate::session::limits::{Rates, Untold};
use crate::session::lobby::Lobby;
use crate::store::link::{BEHIND, Link};

const BEAT: Duration = Duration::from_millis(50);

const SUM_AGE: Duration = Duration::from_millis(250);

const BATCH: usize = 256;

/// Two days, so that a late write still finds its day.
const DAYS_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

/// Adds messages to buckets, on Redis's clock (in microseconds), and returns each bucket's debt.
///
/// `ARGV`, for each key: the time per message, the number of messages, the maximum debt.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now, lacks = time[1] * 1000000 + time[2], {}
         for i, key in ipairs(KEYS) do
           local known = redis.pcall('GET', key)
           local whole_at = type(known) == 'string' and tonumber(known) or now
           if not (whole_at > now) then whole_at = now end
           whole_at = math.min(whole_at + ARGV[3 * i - 2] * ARGV[3 * i - 1], now + ARGV[3 * i])
           redis.call('SET', key, string.format('%.0f', whole_at), 'PX', math.ceil((whole_at - now) / 1000) + 1)
           lacks[i] = whole_at - now
         end
         return lacks",
    )
});

/// Publishes this instance's share of each provider's day and returns the sums of all shares; -1 if
/// the key holds something else.
///
/// `ARGV`: the instance, the TTL in ms, then the share for each key.
static SPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local sums = {}
         for i, key in ipairs(KEYS) do
           local share = tonumber(ARGV[i + 2])
           local known = redis.pcall('HGET', key, ARGV[1])
           if type(known) == 'table' then
             sums[i] = -1
           else
             local more = share - (known and tonumber(known) or 0)
             if more ~= 0 then
               redis.call('HSET', key, ARGV[1], string.format('%.0f', share))
               redis.call('HINCRBY', key, 'sum', string.format('%.0f', more))
               redis.call('PEXPIRE', key, ARGV[2])
             end
             sums[i] = tonumber(redis.call('HGET', key, 'sum') or '0')
           end
         end
         return sums",
    )
});

pub struct Counters {
    fleet: Fleet,
    lobby: Arc<Lobby>,
    accounts: HashMap<Arc<str>, Account>,
}

struct Account {
    share: Share,
    written: Option<Written>,
    read_at: Option<Instant>,
}

impl Counters {
    pub fn new(fleet: Fleet, lobby: Arc<Lobby>) -> Self {
        let mut counters = Self {
            fleet,
            lobby,
            accounts: HashMap::new(),
        };
        counters.notice();
        counters
    }

    /// Starts counting for each provider with prices, from its cost so far. Must also run while
    /// Redis is unavailable.
    fn notice(&mut self) {
        let config = self.lobby.desk.table();
        for provider in config
            .backends
            .iter()
            .filter(|provider| provider.prices.is_some())
        {
            self.accounts
                .entry(Arc::clone(&provider.name))
                .or_insert_with(|| Account {
                    share: Share::new(provider.vitals.borrow().spent),
                    written: None,
                    read_at: None,
                });
        }
    }

    pub async fn run(mut self) {
        loop {
            self.notice();
            let up = self.fleet.link.is_up();
            self.lobby.rates.share(up);
            if up {
                messages(&self.fleet.link, &self.lobby.rates).await;
                self.costs().await;
            }
            // Wait for the minimum interval, then for a message or until a budget's sum is too old.
            sleep(BEAT).await;
            let _ = timeout(SUM_AGE - BEAT, self.lobby.rates.touched()).await;
        }
    }

    /// Publishes changed shares and reads the sums of budgets.
    async fn costs(&mut self) {
        let wall = self.fleet.clock.wall();
        let config = self.lobby.desk.table();
        let mut due = Vec::new();
        for provider in config
            .backends
            .iter()
            .filter(|provider| provider.prices.is_some())
        {
            let spent = provider.vitals.borrow().spent;
            let Some(account) = self.accounts.get(&provider.name) else {
                continue;
            };
            let written = account.share.written(spent, wall);
            let is_old = account.read_at.is_none_or(|at| at.elapsed() >= SUM_AGE);
            if account.written != Some(written) || (provider.is_budgeted && is_old) {
                due.push((provider, written));
            }
        }
        if due.is_empty() {
            return;
        }
        let mut script = SPEND.prepare_invoke();
        script.arg(&*self.fleet.instance).arg(DAYS_MS);
        for (provider, written) in &due {
            script
                .key(key("spent", &format!("{}:{}", written.day, provider.name)))
                .arg(written.nanos);
        }
        let Ok(sums) = self.fleet.link.script::<Vec<i64>>(BEHIND, &script).await else {
            return;
        };
        for ((provider, written), sum) in due.into_iter().zip(sums) {
            let (Some(account), Ok(sum)) =
                (self.accounts.get_mut(&provider.name), u64::try_from(sum))
            else {
                continue;
            };
            account.written = Some(written);
            account.read_at = Some(Instant::now());
            let elsewhere = account.share.elsewhere(written, sum);
            let known = provider.vitals.borrow().spent_elsewhere;
            if elsewhere.day > known.day || elsewhere.usd > known.usd {
                let actor = provider.actor.borrow().clone();
                // An actor that is restarting gets it at the next sync.
                let _ = actor.map(|actor| actor.try_send(SpentElsewhere(elsewhere)));
            }
        }
    }
}

/// Adds accepted messages to the shared buckets and applies the resulting debts.
async fn messages(link: &Link, rates: &Rates) {
    loop {
        let usage = rates.untold(BATCH);
        if usage.is_empty() {
            return;
        }
        let mut script = TAKE.prepare_invoke();
        for Untold { of, pace, count } in &usage {
            let [interval, max_debt] =
                [pace.every(), pace.most()].map(|time| time.as_micros().to_string());
            script
                .key(key("rate", &of.name()))
                .arg(interval)
                .arg(*count)
                .arg(max_debt);
        }
        // Never retry: the script may have run, and messages would count twice.
        let Ok(debts) = link.script::<Vec<i64>>(BEHIND, &script).await else {
            return;
        };
        for (usage, debt) in usage.iter().zip(debts) {
            rates.learn(usage, Duration::from_micros(debt.max(0).unsigned_abs()));
        }
    }
}

#[cfg(test)]
mod tests;
