//! What all instances count in common: messages let through, and what the day costs.
//!
//! After each message that was let through, but at most every 50 ms, this instance adds to the shared buckets what it let through since the
//! last time, and hears what they lack by all that the others let through. So a limit holds over a fleet but for what the others let through within
//! one such time, and that is owed and paid back. What the answers cost is written at the same beat; where a provider has a budget,
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

/// The least time between two looks at what others count.
const BEAT: Duration = Duration::from_millis(50);

/// How old the sum of a budget may be.
const SUM_AGE: Duration = Duration::from_millis(250);

/// Buckets in one command.
const BATCH: usize = 256;

/// How long a day's costs are kept, in milliseconds: two days.
const DAYS_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

/// Takes `count` from each bucket, with Redis's own clock (microseconds); answers what each lacks. `ARGV`: for each key the time between
/// two, how many, the most it may lack.
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

/// Writes this instance's share of each provider's day, and answers the sum of all shares; -1 where the key holds something else.
/// `ARGV`: this instance, how long it stands, then for each key the share.
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

/// What counts.
pub struct Counters {
    fleet: Fleet,
    lobby: Arc<Lobby>,
    accounts: HashMap<Arc<str>, Account>,
}

/// What is known of a provider's costs.
struct Account {
    share: Share,
    written: Option<Written>,
    read_at: Option<Instant>,
}

impl Counters {
    /// Counts from here.
    pub fn new(fleet: Fleet, lobby: Arc<Lobby>) -> Self {
        let mut counters = Self {
            fleet,
            lobby,
            accounts: HashMap::new(),
        };
        counters.notice();
        counters
    }

    /// Begins to count for each provider that has prices, from what its day had cost before: also while Redis is away.
    fn notice(&mut self) {
        let table = self.lobby.desk.table();
        for backend in table
            .backends
            .iter()
            .filter(|backend| backend.prices.is_some())
        {
            self.accounts
                .entry(Arc::clone(&backend.name))
                .or_insert_with(|| Account {
                    share: Share::new(backend.vitals.borrow().spent),
                    written: None,
                    read_at: None,
                });
        }
    }

    /// Goes on for ever.
    pub async fn run(mut self) {
        loop {
            self.notice();
            let up = self.fleet.link.is_up();
            self.lobby.rates.share(up);
            if up {
                messages(&self.fleet.link, &self.lobby.rates).await;
                self.costs().await;
            }
            sleep(BEAT).await;
            let _ = timeout(SUM_AGE - BEAT, self.lobby.rates.touched()).await;
        }
    }

    async fn costs(&mut self) {
        let wall = self.fleet.clock.wall();
        let table = self.lobby.desk.table();
        let mut due = Vec::new();
        for backend in table
            .backends
            .iter()
            .filter(|backend| backend.prices.is_some())
        {
            let spent = backend.vitals.borrow().spent;
            let Some(account) = self.accounts.get(&backend.name) else {
                continue;
            };
            let written = account.share.written(spent, wall);
            let old = account.read_at.is_none_or(|at| at.elapsed() >= SUM_AGE);
            if account.written != Some(written) || (backend.is_budgeted && old) {
                due.push((backend, written));
            }
        }
        if due.is_empty() {
            return;
        }
        let mut script = SPEND.prepare_invoke();
        script.arg(&*self.fleet.instance).arg(DAYS_MS);
        for (backend, written) in &due {
            script
                .key(key("spent", &format!("{}:{}", written.day, backend.name)))
                .arg(written.nanos);
        }
        let Ok(sums) = self.fleet.link.script::<Vec<i64>>(BEHIND, &script).await else {
            return;
        };
        for ((backend, written), sum) in due.into_iter().zip(sums) {
            let (Some(account), Ok(sum)) =
                (self.accounts.get_mut(&backend.name), u64::try_from(sum))
            else {
                continue;
            };
            account.written = Some(written);
            account.read_at = Some(Instant::now());
            let elsewhere = account.share.elsewhere(written, sum);
            let known = backend.vitals.borrow().spent_elsewhere;
            if elsewhere.day > known.day || elsewhere.usd > known.usd {
                let actor = backend.actor.borrow().clone();
                // One that is being rebuilt hears it at the next beat.
                let _ = actor.map(|actor| actor.try_send(SpentElsewhere(elsewhere)));
            }
        }
    }
}

/// Tells what this instance let through, and hears what is left.
async fn messages(link: &Link, rates: &Rates) {
    loop {
        let told = rates.untold(BATCH);
        if told.is_empty() {
            return;
        }
        let mut script = TAKE.prepare_invoke();
        for Untold { of, pace, count } in &told {
            let [every, most] =
                [pace.every(), pace.most()].map(|time| time.as_micros().to_string());
            script
                .key(key("rate", &of.name()))
                .arg(every)
                .arg(*count)
                .arg(most);
        }
        // What could not be told stays this instance's own: said twice it would count twice.
        let Ok(lacks) = link.script::<Vec<i64>>(BEHIND, &script).await else {
            return;
        };
        for (told, lacks) in told.iter().zip(lacks) {
            rates.learn(told, Duration::from_micros(lacks.max(0).unsigned_abs()));
        }
    }
}

#[cfg(test)]
mod tests;
