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

use crate::provider::leave::{Held, Leave, Probing};
use crate::store::link::{BEHIND, HOT, Link};

/// The duration of a lease beyond the timeout of its probe.
const MARGIN: Duration = Duration::from_secs(1);

/// The longest wait after one check of a lease. A longer lease is checked again.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The wait if the lease expired just as it was checked.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Releases the lease, or extends it by `ARGV[2]` ms, if the token is still ours.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         if tonumber(ARGV[2]) > 0 then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
         return redis.call('DEL', KEYS[1])",
    )
});

/// Grants the probe leases of one account.
pub struct Leases {
    link: Link,
    key: String,
    random: fn() -> u64,
}

impl Leases {
    pub fn new(link: Link, account: &str, random: fn() -> u64) -> Self {
        Self {
            link,
            key: super::key("probe", account),
            random,
        }
    }
}

impl Probing for Leases {
    fn ask(&self, limit: Duration) -> BoxFuture<'static, Leave> {
        let link = self.link.clone();
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
                .arg(ms(limit + MARGIN));
            commands.cmd("PTTL").arg(&key);
            match link.pipeline::<(Option<String>, i64)>(HOT, &commands).await {
                Ok((Some(_), _)) => Leave::Go(Box::new(Lease { link, key, token })),
                Ok((None, left)) if left >= 0 => Leave::Wait(wait(left)),
                Ok((None, -2)) => Leave::Wait(AT_ONCE),
                // A key without TTL is not ours. Without Redis each instance probes on its own.
                Ok((None, _)) | Err(_) => Leave::Go(Box::new(Alone)),
            }
        })
    }
}

fn wait(left: i64) -> Duration {
    Duration::from_millis(left.unsigned_abs()).clamp(AT_ONCE, LONGEST_WAIT)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

struct Lease {
    link: Link,
    key: String,
    token: String,
}

impl Held for Lease {
    fn give_back(self: Box<Self>, rest: Duration) {
        tokio::spawn(async move {
            let rest = if rest.is_zero() { 0 } else { ms(rest) };
            let mut script = GIVE_BACK.key(&self.key);
            script.arg(&self.token).arg(rest);
            // If this fails, the lease expires on its own.
            let _ = self.link.script::<i64>(BEHIND, &script).await;
        });
    }
}

/// The lease of a probe without coordination.
struct Alone;

impl Held for Alone {
    fn give_back(self: Box<Self>, _: Duration) {}
}

#[cfg(test)]
mod tests;
