//! Keeps the link: looks whether Redis takes writes, each second and when something failed, and joins again without a storm.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use ::redis::aio::{ConnectionManager, SendError};
use ::redis::{Client, PushInfo, RedisResult};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{HOT, Health, PREFIX, SIGN, Shared, Trouble, manners};
use crate::chat::At;

/// How often it looks while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// And first while it is slow; each such look doubles it, up to the usual.
const LOOK_SOON: Duration = Duration::from_millis(100);

/// The longest that a look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// How long a sign of life stands, in milliseconds.
const SIGN_MS: u64 = 15_000;

/// The first pause before a new connection, and the longest; each failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The wall clock's time.
pub(super) fn now() -> At {
    At::from_system(SystemTime::now())
}

/// The keeper of a link.
pub(super) struct Keeper {
    client: Client,
    sign: String,
    chance: fn() -> f64,
    shared: Arc<Shared>,
}

impl Keeper {
    /// A keeper that shows this instance's sign of life.
    pub(super) fn new(client: Client, instance: &str, chance: fn() -> f64, shared: Arc<Shared>) -> Self {
        Self { client, sign: format!("{PREFIX}{SIGN}{instance}"), chance, shared }
    }

    /// Keeps the link until all who use it have dropped it.
    pub(super) async fn run(self, mut dropped: watch::Receiver<()>) {
        tokio::select! {
            () = self.keep() => {}
            _ = dropped.changed() => {}
        }
    }

    async fn keep(&self) {
        let mut failures = 0;
        loop {
            let (trouble, held) = self.hold().await;
            self.close(trouble);
            failures = if held { 0 } else { failures + 1 };
            sleep(pause(failures, (self.chance)())).await;
        }
    }

    /// Keeps one connection, or what the client's manager makes of it, for as long as it answers. Says what ended it, and whether it ever did.
    async fn hold(&self) -> (Trouble, bool) {
        let mut held = false;
        let mut manager = match self.connect() {
            Ok(manager) => manager,
            Err(error) => return (Trouble::of(&error), held),
        };
        let (mut made, mut slow) = (false, 0_u32);
        loop {
            match timeout(LOOK_LIMIT, self.look(&mut manager)).await {
                // It took what making a connection takes.
                Ok(Ok(_)) if !std::mem::replace(&mut made, true) => continue,
                Ok(Ok(took)) => {
                    slow = if self.open(&manager, took <= HOT) { 0 } else { slow.saturating_add(1) }
                }
                Ok(Err(error)) => return (Trouble::of(&error), held),
                Err(_) => return (Trouble::Unreachable, held),
            }
            held = true;
            let wait = until_next(slow).mul_f64(0.8 + 0.4 * (self.chance)());
            let _ = timeout(wait, self.shared.wake.notified()).await;
        }
    }

    /// A connection that is made when it is first used.
    fn connect(&self) -> RedisResult<ConnectionManager> {
        self.shared.connections.fetch_add(1, Ordering::AcqRel);
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        let hear = move |push: PushInfo| {
            let shared = shared.upgrade().ok_or(SendError)?;
            if shared.channels.pass_on(push) {
                shared.connections.fetch_add(1, Ordering::AcqRel);
                shared.suspect();
            }
            Ok::<(), SendError>(())
        };
        ConnectionManager::new_lazy_with_config(self.client.clone(), manners().set_push_sender(hear))
    }

    /// Shows the sign of life, which is a write, and subscribes to what is heard: also again, since a lost connection forgets it. Says how long the
    /// sign took.
    async fn look(&self, manager: &mut ConnectionManager) -> RedisResult<Duration> {
        let mut sign = ::redis::cmd("SET");
        sign.arg(&self.sign).arg(1).arg("PX").arg(SIGN_MS);
        let asked = Instant::now();
        sign.exec_async(manager).await?;
        let took = asked.elapsed();
        let names = self.shared.channels.names();
        if !names.is_empty() {
            manager.subscribe(names).await?;
        }
        Ok(took)
    }

    /// It takes writes, and in time for a hot path or not: what is late now and then is no matter until a hot path had to wait. Says whether hot
    /// paths may wait for it.
    fn open(&self, manager: &ConnectionManager, in_time: bool) -> bool {
        if !self.shared.open.load(Ordering::Acquire) {
            self.shared.manager.send_replace(Some(manager.clone()));
            self.shared.open.store(true, Ordering::Release);
        }
        let quick = self.shared.quick.fetch_or(in_time, Ordering::AcqRel) || in_time;
        if self.publish((!quick).then_some(Trouble::Slow)) {
            if quick {
                tracing::info!("joined redis");
            } else {
                tracing::warn!("redis is slow; this instance goes on alone and hands over behind the scenes");
            }
        }
        quick
    }

    fn close(&self, trouble: Trouble) {
        self.shared.open.store(false, Ordering::Release);
        self.shared.quick.store(false, Ordering::Release);
        self.shared.manager.send_replace(None);
        if self.publish(Some(trouble)) {
            tracing::warn!(?trouble, "redis is away; this instance goes on alone");
        }
    }

    /// Publishes how it stands; says whether that is news.
    fn publish(&self, trouble: Option<Trouble>) -> bool {
        self.shared.health.send_if_modified(|health| {
            let news = health.trouble != trouble;
            if news {
                *health = Health { trouble, since: now() };
            }
            news
        })
    }
}

/// The time to the next look after so many slow ones in a row.
fn until_next(slow: u32) -> Duration {
    match slow {
        0 => LOOK_EVERY,
        slow => LOOK_SOON.saturating_mul(1 << slow.min(10) >> 1).min(LOOK_EVERY),
    }
}

/// The pause before the next connection: doubled by each failure to its limit, then spread over its upper half by `chance`.
fn pause(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.min(10));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_one_is_looked_at_again_soon_then_as_usual() {
        let looks = [0, 1, 2, 3, 4, 5, 40, u32::MAX].map(until_next).map(|wait| wait.as_millis());
        assert_eq!(looks, [1000, 100, 200, 400, 800, 1000, 1000, 1000]);
    }

    #[test]
    fn pauses_grow_to_their_limit_and_are_spread() {
        assert_eq!((pause(0, 0.0), pause(0, 1.0)), (FIRST_PAUSE / 2, FIRST_PAUSE));
        assert_eq!((pause(3, 0.0), pause(3, 1.0)), (FIRST_PAUSE * 4, FIRST_PAUSE * 8));
        for failures in [5, 9, 40, u32::MAX] {
            assert_eq!((pause(failures, 0.0), pause(failures, 1.0)), (LONGEST_PAUSE / 2, LONGEST_PAUSE));
        }
    }
}
