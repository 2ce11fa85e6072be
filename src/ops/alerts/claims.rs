//! Claims on alerts: of several instances on one Redis, the one that claims an alert sends it. The
//! others leave it to the owner while its heartbeat key exists.
//!
//! A claim is a Redis key that holds its owner and whether a sink has received the alert. Instances
//! with the same sinks use the same keys. The owner renews the claim while the condition lasts; it
//! expires on its own a little later. If Redis does not answer within 50 ms, every instance sends
//! its own alert: twice is better than never.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::cause::{Cause, Level};
use crate::store::link::{HOT, Link, PREFIX, SIGN};

const STANDS: Duration = Duration::from_secs(10 * 60);

/// The TTL of a claim after the condition is over. The other instances notice the recovery within
/// this time.
const OUTLASTS: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });

/// The alert that a claim is about. Alerts caused by a drill have claims of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matter {
    pub cause: Cause,
    pub level: Level,
    pub staged: bool,
}

/// The instance that sends an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Tell,
    /// Another instance that is alive sends it.
    Leave,
    /// Another instance sent the alert and is gone. This instance will send the recovery.
    TakeOver,
}

pub struct Claims {
    link: Link,
    instance: Arc<str>,
}

impl Claims {
    /// `link` must send the heartbeat of `instance`.
    pub fn new(link: Link, instance: Arc<str>) -> Self {
        Self { link, instance }
    }

    /// Claims the alert. `None` if Redis does not answer. `sinks` is the fingerprint of the sinks.
    pub async fn alert(&self, sinks: &str, alert: &Matter) -> Option<Verdict> {
        let mut script = CLAIM.key(key(sinks, alert));
        script
            .arg(&*self.instance)
            .arg(format!("{PREFIX}{SIGN}"))
            .arg(ms(STANDS));
        self.ask(&script).await
    }

    /// Claims the summary of suppressed alerts, which one instance sends per `interval`.
    pub async fn sum(&self, sinks: &str, alert: &Matter, interval: Duration) -> Verdict {
        let mut set = redis::cmd("SET");
        set.arg(format!("{}:sum", key(sinks, alert)))
            .arg(&*self.instance)
            .arg("NX")
            .arg("PX");
        set.arg(ms(interval.min(STANDS)));
        match self.link.command::<Option<String>>(HOT, &set).await {
            Ok(None) => Verdict::Leave,
            Ok(Some(_)) | Err(_) => Verdict::Tell,
        }
    }

    /// Claims the recovery of `alert`, and with it that of the milder alerts in `others`.
    pub async fn end(&self, sinks: &str, alert: &Matter, others: &[Matter]) -> Verdict {
        let mut script = END.key(key(sinks, alert));
        for other in others {
            script.key(key(sinks, other));
        }
        script
            .arg(&*self.instance)
            .arg(format!("{PREFIX}{SIGN}"))
            .arg(ms(OUTLASTS));
        self.ask(&script).await.unwrap_or(Verdict::Tell)
    }

    /// Renews claims, each with whether a sink has received the alert. A claim that another
    /// instance holds by now stays with that instance.
    pub async fn renew(&self, sinks: &str, owned: &BTreeMap<Matter, bool>) {
        let mut script = RENEW.prepare_invoke();
        script.arg(&*self.instance).arg(ms(STANDS));
        for (alert, is_sent) in owned {
            script.key(key(sinks, alert)).arg(u8::from(*is_sent));
        }
        // A renewal that fails is repeated at the next check.
        let _ = self.link.script::<i64>(HOT, &script).await;
    }

    async fn ask(&self, script: &ScriptInvocation<'_>) -> Option<Verdict> {
        match self.link.script::<i64>(HOT, script).await.ok()? {
            0 => Some(Verdict::Leave),
            2 => Some(Verdict::TakeOver),
            _ => Some(Verdict::Tell),
        }
    }
}

fn key(sinks: &str, alert: &Matter) -> String {
    let subject = serde_json::to_string(&alert.cause).unwrap_or_default();
    let cause = if alert.staged { "drill" } else { "real" };
    format!("{PREFIX}alert:{sinks}:{cause}:{}:{subject}", alert.level)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Builds a script that returns 0 if another live instance owns the alert.
///
/// Otherwise it runs `then`, in which `others` is true if another instance owns the alert and
/// `told` is '1' if a sink has received it.
fn whoever(then: &str) -> Script {
    let held = r"
        local held = redis.pcall('GET', KEYS[1])
        local owner, told
        if type(held) == 'string' then owner, told = string.match(held, '^(%S+) (%d)$') end
        local others = owner and owner ~= ARGV[1]
        if others and redis.call('EXISTS', ARGV[2] .. owner) == 1 then return 0 end";
    Script::new(&format!("{held}{then}"))
}

/// Claims an alert. Returns 1 if claimed, 0 if another live instance owns it, and 2 if a dead
/// instance owned and had sent it.
///
/// Keys: the alert. Arguments: the instance, the prefix of heartbeat keys, the TTL in ms.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    whoever(
        r"
        if not others then told = '0' end
        redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. told, 'PX', ARGV[3])
        return told == '1' and 2 or 1",
    )
});

/// Claims the recovery of an alert. Returns as `CLAIM_SCRIPT` does.
///
/// Keys: the alert, then the milder ones that are over with it. Arguments: as for `CLAIM_SCRIPT`.
static END: LazyLock<Script> = LazyLock::new(|| {
    whoever(
        r"
        if others then redis.call('SET', KEYS[1], ARGV[1] .. ' 0') end
        for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[3]) end
        return others and told == '1' and 2 or 1",
    )
});

/// Renews claims.
///
/// Keys: the alerts. Arguments: the instance, the TTL in ms, then for each key 1 if it was sent.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        for at, key in ipairs(KEYS) do
            local held = redis.pcall('GET', key)
            local owner = type(held) == 'string' and string.match(held, '^(%S+) %d$')
            if not owner or owner == ARGV[1] then
                redis.call('SET', key, ARGV[1] .. ' ' .. ARGV[2 + at], 'PX', ARGV[2])
            end
        end
        return 1",
    )
});

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
