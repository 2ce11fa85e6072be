//! Keeps the link: looks whether Redis takes writes, each second and when something failed, and joins again without a storm.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use ::redis::aio::{ConnectionManager, SendError};
use ::redis::{Client, PushInfo, RedisResult};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::pace::{Pace, Seen};
use super::{HOT, Health, PREFIX, SIGN, Shared, Trouble, manners};
use crate::chat::At;

/// How often it looks while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    pub(super) fn new(
        client: Client,
        instance: &str,
        chance: fn() -> f64,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            client,
            sign: format!("{PREFIX}{SIGN}{instance}"),
            chance,
            shared,
        }
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
        let mut pace = Pace::default();
        loop {
            let (trouble, held) = self.hold(&mut pace).await;
            self.close(trouble);
            failures = if held { 0 } else { failures + 1 };
            sleep(pause(failures, (self.chance)())).await;
        }
    }

    /// Keeps one connection, or what the client's manager makes of it, for as long as it answers. Says what ended it, and whether it ever did.
    async fn hold(&self, pace: &mut Pace) -> (Trouble, bool) {
        let mut held = false;
        let mut manager = match self.connect() {
            Ok(manager) => manager,
            Err(error) => return (Trouble::of(&error), held),
        };
        loop {
            let took = match timeout(LOOK_LIMIT, self.look(&mut manager)).await {
                Ok(Ok(took)) => took,
                Ok(Err(error)) => return (Trouble::of(&error), held),
                Err(_) => return (Trouble::Unreachable, held),
            };
            held = true;
            let left_alone = pace.looked(Seen {
                late: self.shared.late.swap(false, Ordering::AcqRel),
                timely: self.shared.timely.swap(false, Ordering::AcqRel),
                late_look: took > HOT,
            });
            self.open(&manager, left_alone.is_none(), pace.is_slow());
            let wait = left_alone
                .unwrap_or(LOOK_EVERY)
                .mul_f64(0.8 + 0.4 * (self.chance)());
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
        ConnectionManager::new_lazy_with_config(
            self.client.clone(),
            manners().set_push_sender(hear),
        )
    }

    /// Shows the sign of life, which is a write, and subscribes to what is heard: also again, since a lost connection forgets it. Says how long
    /// the write took.
    async fn look(&self, manager: &mut ConnectionManager) -> RedisResult<Duration> {
        let begun = Instant::now();
        let mut sign = ::redis::cmd("SET");
        sign.arg(&self.sign).arg(1).arg("PX").arg(SIGN_MS);
        sign.exec_async(manager).await?;
        let took = begun.elapsed();
        let names = self.shared.channels.names();
        if !names.is_empty() {
            manager.subscribe(names).await?;
        }
        Ok(took)
    }

    /// It takes writes; `quick`: hot paths may wait for it; `slow`: it is late for them again and again.
    fn open(&self, manager: &ConnectionManager, quick: bool, slow: bool) {
        if !self.shared.open.load(Ordering::Acquire) {
            self.shared.manager.send_replace(Some(manager.clone()));
            self.shared.open.store(true, Ordering::Release);
        }
        self.shared.quick.store(quick, Ordering::Release);
        if self.publish(slow.then_some(Trouble::Slow)) {
            if slow {
                tracing::warn!(
                    "redis is slow; this instance goes on alone and hands over behind the scenes"
                );
            } else {
                tracing::info!("joined redis");
            }
        }
    }

    fn close(&self, trouble: Trouble) {
        self.shared.open.store(false, Ordering::Release);
        self.shared.quick.store(false, Ordering::Release);
        self.shared.manager.send_replace(None);
        if self.publish(Some(trouble)) {
            tracing::warn!(
                ?trouble,
                why = trouble.sentence(),
                "redis is away; this instance goes on alone"
            );
        }
    }

    /// Publishes how it stands; says whether that is news.
    fn publish(&self, trouble: Option<Trouble>) -> bool {
        self.shared.health.send_if_modified(|health| {
            let news = health.trouble != trouble;
            if news {
                *health = Health {
                    trouble,
                    since: now(),
                };
            }
            news
        })
    }
}

/// The pause before the next connection: doubled by each failure to its limit, then spread over its upper half by `chance`.
fn pause(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.min(10));
    doubled
        .min(LONGEST_PAUSE)
        .mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_are_spread() {
        assert_eq!(
            (pause(0, 0.0), pause(0, 1.0)),
            (FIRST_PAUSE / 2, FIRST_PAUSE)
        );
        assert_eq!(
            (pause(3, 0.0), pause(3, 1.0)),
            (FIRST_PAUSE * 4, FIRST_PAUSE * 8)
        );
        for failures in [5, 9, 40, u32::MAX] {
            assert_eq!(
                (pause(failures, 0.0), pause(failures, 1.0)),
                (LONGEST_PAUSE / 2, LONGEST_PAUSE)
            );
        }
    }
}
