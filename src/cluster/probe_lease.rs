//! The lease under which one instance of the cluster probes a provider while the others wait.
//!
//! The lease is an expiring key with a token. If its holder dies, the others wait a little longer
//! than the probe could have taken. After a failed probe the key stays until the next probe is due,
//! so that a cluster probes as often as a single instance. The lease only limits load: if Redis
//! does not answer within 50 ms, every instance probes on its own.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::Script;

use crate::provider::actor::probes::{ProbeCoordinator, ProbeLease, ProbeLeaseResult};
use crate::store::redis::client::{BACKGROUND_TIMEOUT, HOT_PATH_TIMEOUT, RedisClient};

/// The duration of a lease beyond the timeout of its probe.
const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// The longest wait after one check of a lease. A longer lease is checked again.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The wait if the lease expired just as it was checked.
const MIN_WAIT: Duration = Duration::from_millis(50);

/// Releases the lease, or extends it by `ARGV[2]` ms, if the token is still ours.
static RELEASE_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         if tonumber(ARGV[2]) > 0 then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
         return redis.call('DEL', KEYS[1])",
    )
});

/// Grants the probe leases of one account.
pub struct ProbeLeases {
    redis: RedisClient,
    key: String,
    random: fn() -> u64,
}

impl ProbeLeases {
    pub fn new(link: RedisClient, account: &str, random: fn() -> u64) -> Self {
        Self {
            redis: link,
            key: super::redis_key("probe", account),
            random,
        }
    }
}

impl ProbeCoordinator for ProbeLeases {
    fn request_lease(&self, limit: Duration) -> BoxFuture<'static, ProbeLeaseResult> {
        let link = self.redis.clone();
        let key = self.key.clone();
        let token = format!("{:016x}", (self.random)());
        Box::pin(async move {
            let mut commands = redis::pipe();
            commands
                .cmd("SET")
                .arg(&key)
                .arg(&token)
                .arg("NX")
                .arg("PX")
                .arg(millis(limit + LEASE_MARGIN));
            commands.cmd("PTTL").arg(&key);
            match link
                .pipeline::<(Option<String>, i64)>(HOT_PATH_TIMEOUT, &commands)
                .await
            {
                Ok((Some(_), _)) => ProbeLeaseResult::Granted(Box::new(RedisProbeLease {
                    redis: link,
                    key,
                    token,
                })),
                Ok((None, left)) if left >= 0 => ProbeLeaseResult::HeldElsewhere(clamp_wait(left)),
                Ok((None, -2)) => ProbeLeaseResult::HeldElsewhere(MIN_WAIT),
                // A key without TTL is not ours. Without Redis each instance probes on its own.
                Ok((None, _)) | Err(_) => ProbeLeaseResult::Granted(Box::new(NoopLease)),
            }
        })
    }
}

fn clamp_wait(left: i64) -> Duration {
    Duration::from_millis(left.unsigned_abs()).clamp(MIN_WAIT, MAX_WAIT)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

struct RedisProbeLease {
    redis: RedisClient,
    key: String,
    token: String,
}

impl ProbeLease for RedisProbeLease {
    fn release(self: Box<Self>, rest: Duration) {
        tokio::spawn(async move {
            let rest = if rest.is_zero() { 0 } else { millis(rest) };
            let mut script = RELEASE_SCRIPT.key(&self.key);
            script.arg(&self.token).arg(rest);
            // If this fails, the lease expires on its own.
            let _ = self.redis.script::<i64>(BACKGROUND_TIMEOUT, &script).await;
        });
    }
}

/// The lease of a probe without coordination.
struct NoopLease;

impl ProbeLease for NoopLease {
    fn release(self: Box<Self>, _: Duration) {}
}

#[cfg(test)]
mod tests;
