//! The lease under which one instance of the fleet probes a provider, and the others wait.
//!
//! A key with a token that expires by itself: whoever dies with it keeps the others waiting for a little longer than its probe could have
//! taken. After a probe that failed it stands until the provider is worth another, so that a fleet makes no more probes than one
//! instance would. It bounds the load and decides nothing: where Redis does not answer within 50 ms, everyone probes alone.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::Script;

use crate::provider::leave::{Held, Leave, Probing};
use crate::store::link::{BEHIND, HOT, Link};

/// A lease stands for so much longer than the probe may take.
const MARGIN: Duration = Duration::from_secs(1);

/// The longest that anybody is made to wait by one look at the lease; a longer one is looked at again.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The wait where the lease ended just as it was looked at.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Gives the lease back, or has it stand for `ARGV[2]` ms more, if it is still ours.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         if tonumber(ARGV[2]) > 0 then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
         return redis.call('DEL', KEYS[1])",
    )
});

/// The leases of one account.
pub struct Leases {
    link: Link,
    key: String,
    random: fn() -> u64,
}

impl Leases {
    /// The leases of this account.
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
        let (link, key, token) = (
            self.link.clone(),
            self.key.clone(),
            format!("{:016x}", (self.random)()),
        );
        Box::pin(async move {
            let mut asked = redis::pipe();
            asked
                .cmd("SET")
                .arg(&key)
                .arg(&token)
                .arg("NX")
                .arg("PX")
                .arg(ms(limit + MARGIN));
            asked.cmd("PTTL").arg(&key);
            match link.pipeline::<(Option<String>, i64)>(HOT, &asked).await {
                Ok((Some(_), _)) => Leave::Go(Box::new(Lease { link, key, token })),
                Ok((None, left)) if left >= 0 => Leave::Wait(wait(left)),
                Ok((None, -2)) => Leave::Wait(AT_ONCE),
                // A key that never expires is none of ours; and with Redis away each instance probes alone.
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
            // Where that does not arrive, the lease ends by itself.
            let _ = self.link.script::<i64>(BEHIND, &script).await;
        });
    }
}

/// Nobody was asked.
struct Alone;

impl Held for Alone {
    fn give_back(self: Box<Self>, _: Duration) {}
}

#[cfg(test)]
mod tests;
