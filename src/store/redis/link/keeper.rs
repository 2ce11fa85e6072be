//! Keeps the link: looks whether Redis takes writes, each second and when something failed, and joins again without a storm.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use ::redis::aio::{ConnectionManager, SendError};
use ::redis::{Client, PushInfo, RedisResult};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Health, PREFIX, SIGN, Shared, Trouble, manners};
use crate::chat::At;

/// How often it looks while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long hot paths leave it alone that was late for them twice; each further time in a row doubles it, up to the usual.
const LEFT_ALONE: Duration = Duration::from_millis(100);

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
        let mut seen = 0;
        loop {
            match timeout(LOOK_LIMIT, self.look(&mut manager)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return (Trouble::of(&error), held),
                Err(_) => return (Trouble::Unreachable, held),
            }
            held = true;
            // Once may be a busy machine, and it is well. More than that in a row is paid for, each time once.
            let late = self.shared.late.load(Ordering::Acquire);
            if late < 2 {
                seen = 0;
            }
            let slow = late > 1 && std::mem::replace(&mut seen, late) != late;
            self.open(&manager, !slow);
            let wait = if slow { left_alone(late) } else { LOOK_EVERY };
            let wait = wait.mul_f64(0.8 + 0.4 * (self.chance)());
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

    /// Shows the sign of life, which is a write, and subscribes to what is heard: also again, since a lost connection forgets it.
    async fn look(&self, manager: &mut ConnectionManager) -> RedisResult<()> {
        let mut sign = ::redis::cmd("SET");
        sign.arg(&self.sign).arg(1).arg("PX").arg(SIGN_MS);
        sign.exec_async(manager).await?;
        let names = self.shared.channels.names();
        if names.is_empty() { Ok(()) } else { manager.subscribe(names).await }
    }

    /// It takes writes; `quick`: hot paths may wait for it.
    fn open(&self, manager: &ConnectionManager, quick: bool) {
        if !self.shared.open.load(Ordering::Acquire) {
            self.shared.manager.send_replace(Some(manager.clone()));
            self.shared.open.store(true, Ordering::Release);
        }
        self.shared.quick.store(quick, Ordering::Release);
        if self.publish((!quick).then_some(Trouble::Slow)) {
            if quick {
                tracing::info!("joined redis");
            } else {
                tracing::warn!("redis is slow; this instance goes on alone and hands over behind the scenes");
            }
        }
    }

    fn close(&self, trouble: Trouble) {
        self.shared.open.store(false, Ordering::Release);
        self.shared.quick.store(false, Ordering::Release);
        self.shared.manager.send_replace(None);
        if self.publish(Some(trouble)) {
            tracing::warn!(?trouble, why = trouble.sentence(), "redis is away; this instance goes on alone");
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

/// How long it is left alone that was late so many times in a row.
fn left_alone(late: u32) -> Duration {
    LEFT_ALONE.saturating_mul(1 << late.saturating_sub(2).min(10)).min(LOOK_EVERY)
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
    fn what_is_late_again_and_again_is_left_alone_for_longer() {
        let waits = [2, 3, 4, 5, 6, 40, u32::MAX].map(left_alone).map(|wait| wait.as_millis());
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000, 1000]);
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
