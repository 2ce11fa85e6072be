//! Which of several instances tells an alert: the one that claimed it in the Redis that they share. The others leave it to that one for as long as it
//! shows a sign of life.
//!
//! A claim is a key that says who holds it, and whether a sink has the alert by now; it is the same key for all who tell the same sinks. It stands
//! while its holder renews it, a little longer than the trouble, and lapses by itself. Where Redis does not say within 50 ms, each tells its own: better twice than never.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::cause::{Cause, Level};
use crate::store::link::{HOT, Link, PREFIX, SIGN};

/// How long a claim stands that is not renewed.
const STANDS: Duration = Duration::from_secs(10 * 60);

/// How long one stands when what it was of is over: the others find that out within this time.
const OUTLASTS: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });

/// What is told: of a cause, this level; as a drill's doing, or else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matter {
    /// What it is about.
    pub cause: Cause,
    /// How bad that is.
    pub level: Level,
    /// Whether an outage drill brings it about.
    pub staged: bool,
}

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This instance.
    Tell,
    /// Another one, that lives.
    Leave,
    /// Another one had told the alert, and is gone: its end is this instance's to tell.
    TakeOver,
}

/// Claims in the name of one instance.
pub struct Claims {
    link: Link,
    instance: Arc<str>,
}

impl Claims {
    /// In the name of this instance, over this link, which shows its sign of life.
    pub fn new(link: Link, instance: Arc<str>) -> Self {
        Self { link, instance }
    }

    /// Who tells that it is so; none where Redis does not say. `sinks` names those that are told.
    pub async fn alert(&self, sinks: &str, matter: &Matter) -> Option<Verdict> {
        let mut claim = CLAIM.key(key(sinks, matter));
        claim
            .arg(&*self.instance)
            .arg(format!("{PREFIX}{SIGN}"))
            .arg(ms(STANDS));
        self.ask(&claim).await
    }

    /// Who tells how often it was so, within `interval`.
    pub async fn sum(&self, sinks: &str, matter: &Matter, interval: Duration) -> Verdict {
        let mut set = redis::cmd("SET");
        set.arg(format!("{}:sum", key(sinks, matter)))
            .arg(&*self.instance)
            .arg("NX")
            .arg("PX");
        set.arg(ms(interval.min(STANDS)));
        match self.link.command::<Option<String>>(HOT, &set).await {
            Ok(None) => Verdict::Leave,
            Ok(Some(_)) | Err(_) => Verdict::Tell,
        }
    }

    /// Who tells that `told` is over, and with it the milder `others` that are.
    pub async fn end(&self, sinks: &str, told: &Matter, others: &[Matter]) -> Verdict {
        let mut end = END.key(key(sinks, told));
        for other in others {
            end.key(key(sinks, other));
        }
        end.arg(&*self.instance)
            .arg(format!("{PREFIX}{SIGN}"))
            .arg(ms(OUTLASTS));
        self.ask(&end).await.unwrap_or(Verdict::Tell)
    }

    /// Renews these claims; of each it is noted whether a sink has the alert. One that another instance holds by now stays that one's.
    pub async fn renew(&self, sinks: &str, mine: &BTreeMap<Matter, bool>) {
        let mut renew = RENEW.prepare_invoke();
        renew.arg(&*self.instance).arg(ms(STANDS));
        for (matter, told) in mine {
            renew.key(key(sinks, matter)).arg(u8::from(*told));
        }
        // What is not renewed now is the next time.
        let _ = self.link.script::<i64>(HOT, &renew).await;
    }

    async fn ask(&self, script: &ScriptInvocation<'_>) -> Option<Verdict> {
        match self.link.script::<i64>(HOT, script).await.ok()? {
            0 => Some(Verdict::Leave),
            2 => Some(Verdict::TakeOver),
            _ => Some(Verdict::Tell),
        }
    }
}

fn key(sinks: &str, matter: &Matter) -> String {
    let cause = serde_json::to_string(&matter.cause).unwrap_or_default();
    let kind = if matter.staged { "drill" } else { "real" };
    format!("{PREFIX}alert:{sinks}:{kind}:{}:{cause}", matter.level)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// A script that leaves an alert to the instance that holds it and lives. Of any other `others` says whether one holds it, and `told` whether a sink has it ('1').
fn whoever(then: &str) -> Script {
    let held = r"
        local held = redis.pcall('GET', KEYS[1])
        local owner, told
        if type(held) == 'string' then owner, told = string.match(held, '^(%S+) (%d)$') end
        local others = owner and owner ~= ARGV[1]
        if others and redis.call('EXISTS', ARGV[2] .. owner) == 1 then return 0 end";
    Script::new(&format!("{held}{then}"))
}

/// Claims an alert. Gives 1; 0 where another instance holds it that lives, 2 where that one had told it and does not. Keys: the alert. Arguments:
/// the instance, the beginning of a sign of life's key, how long it stands.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    whoever(
        r"
        if not others then told = '0' end
        redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. told, 'PX', ARGV[3])
        return told == '1' and 2 or 1",
    )
});

/// Ends what was claimed. Gives 1; 0 where another instance holds it that lives, 2 where that one had told it and does not. Keys: the alert, then
/// others that are over with it. Arguments: as `CLAIM` has them.
static END: LazyLock<Script> = LazyLock::new(|| {
    whoever(
        r"
        if others then redis.call('SET', KEYS[1], ARGV[1] .. ' 0') end
        for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[3]) end
        return others and told == '1' and 2 or 1",
    )
});

/// Renews claims. Keys: the alerts. Arguments: the instance, how long they stand, then of each whether it was told (1, 0).
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
