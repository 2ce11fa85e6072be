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

use super::spend_share::{PublishedSpend, SpendShare};
use super::{Cluster, redis_key};
use crate::provider::actor::SetPeerSpend;
use crate::provider::handle::Provider;
use crate::router::runtime_config::RuntimeConfig;
use crate::session::rate_limit::{RateLimiter, UnsyncedUsage};
use crate::session::service::ChatService;
use crate::store::redis::client::{BACKGROUND_TIMEOUT, RedisClient};

const SYNC_INTERVAL: Duration = Duration::from_millis(50);

const MAX_SUM_AGE: Duration = Duration::from_millis(250);

const BATCH_SIZE: usize = 256;

/// Two days, so that a late write still finds its day.
const SPEND_TTL_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

/// Adds messages to buckets, on Redis's clock (in microseconds), and returns each bucket's debt.
///
/// `ARGV`, for each key: the time per message, the number of messages, the maximum debt.
static RATE_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
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
static SPEND_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
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

pub struct SharedCounters {
    cluster: Cluster,
    chat: Arc<ChatService>,
    spend_counters: HashMap<Arc<str>, SpendCounter>,
}

struct SpendCounter {
    share: SpendShare,
    published: Option<PublishedSpend>,
    read_at: Option<Instant>,
}

impl SharedCounters {
    pub fn new(cluster: Cluster, chat: Arc<ChatService>) -> Self {
        let mut counters = Self {
            cluster,
            chat,
            spend_counters: HashMap::new(),
        };
        counters.track_providers();
        counters
    }

    /// Starts counting for each provider with prices, from its cost so far. Must also run while
    /// Redis is unavailable.
    fn track_providers(&mut self) {
        let config = self.chat.turns.config();
        for provider in priced_providers(&config) {
            self.spend_counters
                .entry(Arc::clone(&provider.name))
                .or_insert_with(|| SpendCounter {
                    share: SpendShare::new(provider.status.borrow().spend_today),
                    published: None,
                    read_at: None,
                });
        }
    }

    pub async fn run(mut self) {
        loop {
            self.track_providers();
            let up = self.cluster.redis.is_up();
            self.chat.rate_limiter.set_sync(up);
            if up {
                sync_rate_limits(&self.cluster.redis, &self.chat.rate_limiter).await;
                self.sync_spend().await;
            }
            // Wait for the minimum interval, then for a message or until a budget's sum is too old.
            sleep(SYNC_INTERVAL).await;
            let _ = timeout(
                MAX_SUM_AGE - SYNC_INTERVAL,
                self.chat.rate_limiter.sync_needed(),
            )
            .await;
        }
    }

    /// Publishes changed shares and reads the sums of budgets.
    async fn sync_spend(&mut self) {
        let wall = self.cluster.clock.wall();
        let config = self.chat.turns.config();
        let mut due = Vec::new();
        for provider in priced_providers(&config) {
            let spent = provider.status.borrow().spend_today;
            let Some(account) = self.spend_counters.get(&provider.name) else {
                continue;
            };
            let written = account.share.own_share(spent, wall);
            let is_old = account.read_at.is_none_or(|at| at.elapsed() >= MAX_SUM_AGE);
            if account.published != Some(written) || (provider.has_daily_budget && is_old) {
                due.push((provider, written));
            }
        }
        if due.is_empty() {
            return;
        }
        let mut script = SPEND_SCRIPT.prepare_invoke();
        script.arg(&*self.cluster.instance_id).arg(SPEND_TTL_MS);
        for (provider, written) in &due {
            let of = format!("{}:{}", written.day, provider.name);
            script.key(redis_key("spent", &of)).arg(written.nanos);
        }
        let redis = &self.cluster.redis;
        let Ok(sums) = redis.script::<Vec<i64>>(BACKGROUND_TIMEOUT, &script).await else {
            return;
        };
        for ((provider, written), sum) in due.into_iter().zip(sums) {
            let (Some(account), Ok(sum)) = (
                self.spend_counters.get_mut(&provider.name),
                u64::try_from(sum),
            ) else {
                continue;
            };
            account.published = Some(written);
            account.read_at = Some(Instant::now());
            let elsewhere = account.share.peers_share(written, sum);
            let known = provider.status.borrow().peer_spend_today;
            if elsewhere.day > known.day || elsewhere.usd > known.usd {
                let actor = provider.actor.borrow().clone();
                // An actor that is restarting gets it at the next sync.
                let _ = actor.map(|actor| actor.try_send(SetPeerSpend(elsewhere)));
            }
        }
    }
}

fn priced_providers(config: &RuntimeConfig) -> impl Iterator<Item = &Arc<Provider>> {
    let providers = config.providers.iter();
    providers.filter(|provider| provider.prices.is_some())
}

/// Adds accepted messages to the shared buckets and applies the resulting debts.
async fn sync_rate_limits(link: &RedisClient, rates: &RateLimiter) {
    loop {
        let usage = rates.drain_unsynced(BATCH_SIZE);
        if usage.is_empty() {
            return;
        }
        let mut script = RATE_SCRIPT.prepare_invoke();
        for UnsyncedUsage { key, quota, count } in &usage {
            script
                .key(redis_key("rate", &key.hashed_name()))
                .arg(quota.interval().as_micros().to_string())
                .arg(*count)
                .arg(quota.max_debt().as_micros().to_string());
        }
        // Never retry: the script may have run, and messages would count twice.
        let Ok(debts) = link.script::<Vec<i64>>(BACKGROUND_TIMEOUT, &script).await else {
            return;
        };
        for (usage, debt) in usage.iter().zip(debts) {
            rates.apply_shared_debt(usage, Duration::from_micros(debt.max(0).unsigned_abs()));
        }
    }
}

#[cfg(test)]
mod tests;
