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

use super::rules::{AlertSeverity, AlertSubject};
use crate::store::redis::client::{HEARTBEAT_KEY, HOT_PATH_TIMEOUT, PREFIX, RedisClient};

const CLAIM_TTL: Duration = Duration::from_secs(10 * 60);

/// The default of [`AlertClaims::recovery_ttl`].
const RECOVERY_CLAIM_TTL: Duration = Duration::from_secs(30);

/// The alert that a claim is about. Alerts caused by a drill have claims of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertKey {
    pub subject: AlertSubject,
    pub severity: AlertSeverity,
    pub is_drill: bool,
}

/// The instance that sends an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertOwnership {
    Send,
    /// Another instance that is alive sends it.
    OwnedElsewhere,
    /// Another instance sent the alert and is gone. This instance will send the recovery.
    TakeOver,
}

pub struct AlertClaims {
    redis: RedisClient,
    instance: Arc<str>,
    /// The TTL of a claim after the condition is over. The other instances notice the recovery
    /// within this time.
    pub recovery_ttl: Duration,
}

impl AlertClaims {
    /// `link` must send the heartbeat of `instance`.
    pub fn new(link: RedisClient, instance: Arc<str>) -> Self {
        Self {
            redis: link,
            instance,
            recovery_ttl: RECOVERY_CLAIM_TTL,
        }
    }

    /// Claims the alert. `None` if Redis does not answer. `sinks` is the fingerprint of the sinks.
    pub async fn claim(&self, sinks: &str, alert: &AlertKey) -> Option<AlertOwnership> {
        let script = CLAIM_SCRIPT.key(redis_key(sinks, alert));
        self.run_script(script, CLAIM_TTL).await
    }

    /// Claims the summary of suppressed alerts, which one instance sends per `interval`.
    pub async fn claim_summary(
        &self,
        sinks: &str,
        alert: &AlertKey,
        interval: Duration,
    ) -> AlertOwnership {
        let mut set = redis::cmd("SET");
        set.arg(format!("{}:sum", redis_key(sinks, alert)))
            .arg(&*self.instance)
            .arg("NX")
            .arg("PX");
        set.arg(millis(interval.min(CLAIM_TTL)));
        match self
            .redis
            .command::<Option<String>>(HOT_PATH_TIMEOUT, &set)
            .await
        {
            Ok(None) => AlertOwnership::OwnedElsewhere,
            Ok(Some(_)) | Err(_) => AlertOwnership::Send,
        }
    }

    /// Claims the recovery of `alert`, and with it that of the milder alerts in `others`.
    pub async fn release(
        &self,
        sinks: &str,
        alert: &AlertKey,
        others: &[AlertKey],
    ) -> AlertOwnership {
        let mut script = RELEASE_SCRIPT.key(redis_key(sinks, alert));
        for other in others {
            script.key(redis_key(sinks, other));
        }
        let verdict = self.run_script(script, self.recovery_ttl).await;
        verdict.unwrap_or(AlertOwnership::Send)
    }

    /// Renews claims, each with whether a sink has received the alert. A claim that another
    /// instance holds by now stays with that instance.
    pub async fn renew(&self, sinks: &str, owned: &BTreeMap<AlertKey, bool>) {
        let mut script = RENEW_SCRIPT.prepare_invoke();
        script.arg(&*self.instance).arg(millis(CLAIM_TTL));
        for (alert, is_sent) in owned {
            script.key(redis_key(sinks, alert)).arg(u8::from(*is_sent));
        }
        // A renewal that fails is repeated at the next check.
        let _ = self.redis.script::<i64>(HOT_PATH_TIMEOUT, &script).await;
    }

    async fn run_script(
        &self,
        mut script: ScriptInvocation<'_>,
        ttl: Duration,
    ) -> Option<AlertOwnership> {
        let heartbeats = format!("{PREFIX}{HEARTBEAT_KEY}");
        script.arg(&*self.instance).arg(heartbeats).arg(millis(ttl));
        let reply = self.redis.script::<i64>(HOT_PATH_TIMEOUT, &script).await;
        match reply.ok()? {
            0 => Some(AlertOwnership::OwnedElsewhere),
            2 => Some(AlertOwnership::TakeOver),
            _ => Some(AlertOwnership::Send),
        }
    }
}

fn redis_key(sinks: &str, alert: &AlertKey) -> String {
    let subject = serde_json::to_string(&alert.subject).unwrap_or_default();
    let cause = if alert.is_drill { "drill" } else { "real" };
    format!("{PREFIX}alert:{sinks}:{cause}:{}:{subject}", alert.severity)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Builds a script that returns 0 if another live instance owns the alert.
///
/// Otherwise it runs `then`, in which `others` is true if another instance owns the alert and
/// `told` is '1' if a sink has received it.
fn owner_script(then: &str) -> Script {
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
static CLAIM_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    owner_script(
        r"
        if not others then told = '0' end
        redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. told, 'PX', ARGV[3])
        return told == '1' and 2 or 1",
    )
});

/// Claims the recovery of an alert. Returns as `CLAIM_SCRIPT` does.
///
/// Keys: the alert, then the milder ones that are over with it. Arguments: as for `CLAIM_SCRIPT`.
static RELEASE_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    owner_script(
        r"
        if others then redis.call('SET', KEYS[1], ARGV[1] .. ' 0') end
        for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[3]) end
        return others and told == '1' and 2 or 1",
    )
});

/// Renews claims.
///
/// Keys: the alerts. Arguments: the instance, the TTL in ms, then for each key 1 if it was sent.
static RENEW_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
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
