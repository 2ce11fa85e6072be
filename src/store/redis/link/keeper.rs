//! The connection monitor: pings Redis each second and after failures, and reconnects with backoff.

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

const LOOK_EVERY: Duration = Duration::from_secs(1);

const LOOK_LIMIT: Duration = Duration::from_secs(1);

const SIGN_MS: u64 = 15_000;

/// Bounds of the delay before a new connection. Each failure doubles the delay.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

pub(super) fn now() -> At {
    At::from_system(SystemTime::now())
}

pub(super) struct Keeper {
    client: Client,
    sign: String,
    chance: fn() -> f64,
    shared: Arc<Shared>,
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        instance: &str,
        random_unit: fn() -> f64,
        state: Arc<Shared>,
    ) -> Self {
        Self {
            client,
            sign: format!("{PREFIX}{SIGN}{instance}"),
            chance: random_unit,
            shared: state,
        }
    }

    /// Runs until all clients are dropped.
    pub(super) async fn run(self, mut dropped: watch::Receiver<()>) {
        tokio::select! {
            () = self.keep() => {}
            _ = dropped.changed() => {}
        }
    }

    async fn keep(&self) {
        let mut failures = 0;
        let mut gate = Pace::default();
        loop {
            let (outage, was_up) = self.hold(&mut gate).await;
            self.close(outage);
            failures = if was_up { 0 } else { failures + 1 };
            sleep(pause(failures, (self.chance)())).await;
        }
    }

    /// Uses one connection manager for as long as pings succeed.
    ///
    /// Returns why it ended, and `true` if any ping succeeded.
    async fn hold(&self, gate: &mut Pace) -> (Trouble, bool) {
        let mut was_up = false;
        let mut manager = match self.connect() {
            Ok(manager) => manager,
            Err(error) => return (Trouble::of(&error), was_up),
        };
        loop {
            let took = match timeout(LOOK_LIMIT, self.look(&mut manager)).await {
                Ok(Ok(took)) => took,
                Ok(Err(error)) => return (Trouble::of(&error), was_up),
                Err(_) => return (Trouble::Unreachable, was_up),
            };
            was_up = true;
            let backoff = gate.looked(Seen {
                late: self.shared.late.swap(false, Ordering::AcqRel),
                timely: self.shared.timely.swap(false, Ordering::AcqRel),
                late_look: took > HOT,
            });
            self.open(&manager, backoff.is_none(), gate.is_slow());
            // The next ping comes when hot paths may try again, and at once after a failure.
            let wait = backoff
                .unwrap_or(LOOK_EVERY)
                .mul_f64(0.8 + 0.4 * (self.chance)());
            let _ = timeout(wait, self.shared.wake.notified()).await;
        }
    }

    /// Creates a connection manager, which connects at its first command.
    fn connect(&self) -> RedisResult<ConnectionManager> {
        self.shared.connections.fetch_add(1, Ordering::AcqRel);
        let state: Weak<Shared> = Arc::downgrade(&self.shared);
        let on_push = move |push: PushInfo| {
            let state = state.upgrade().ok_or(SendError)?;
            if state.channels.pass_on(push) {
                state.connections.fetch_add(1, Ordering::AcqRel);
                state.suspect();
            }
            Ok::<(), SendError>(())
        };
        ConnectionManager::new_lazy_with_config(
            self.client.clone(),
            manners().set_push_sender(on_push),
        )
    }

    /// Writes the heartbeat and subscribes to all channels. Returns how long the write took.
    ///
    /// Subscribing again is needed because Redis forgets the subscriptions of a lost connection.
    async fn look(&self, manager: &mut ConnectionManager) -> RedisResult<Duration> {
        let started = Instant::now();
        let mut sign = ::redis::cmd("SET");
        sign.arg(&self.sign).arg(1).arg("PX").arg(SIGN_MS);
        sign.exec_async(manager).await?;
        let took = started.elapsed();
        let names = self.shared.channels.names();
        if !names.is_empty() {
            manager.subscribe(names).await?;
        }
        Ok(took)
    }

    /// Publishes that Redis is up. With `allow_hot`, hot paths may use it; with `is_slow`, it is
    /// reported as slow.
    fn open(&self, manager: &ConnectionManager, allow_hot: bool, is_slow: bool) {
        if !self.shared.open.load(Ordering::Acquire) {
            self.shared.manager.send_replace(Some(manager.clone()));
            self.shared.open.store(true, Ordering::Release);
        }
        self.shared.quick.store(allow_hot, Ordering::Release);
        if self.publish(is_slow.then_some(Trouble::Slow)) {
            if is_slow {
                tracing::warn!(
                    "redis is slow: continuing standalone, replicating in the background"
                );
            } else {
                tracing::info!("joined redis");
            }
        }
    }

    fn close(&self, outage: Trouble) {
        self.shared.open.store(false, Ordering::Release);
        self.shared.quick.store(false, Ordering::Release);
        self.shared.manager.send_replace(None);
        if self.publish(Some(outage)) {
            tracing::warn!(
                trouble = ?outage,
                why = outage.sentence(),
                "redis is away; this instance goes on alone"
            );
        }
    }

    /// Publishes the state. Returns `true` if it changed.
    fn publish(&self, outage: Option<Trouble>) -> bool {
        self.shared.health.send_if_modified(|health| {
            let changed = health.trouble != outage;
            if changed {
                *health = Health {
                    trouble: outage,
                    since: now(),
                };
            }
            changed
        })
    }
}

/// Returns the delay before the next connection: doubled per failure up to a limit, then randomised
/// over its upper half.
fn pause(failures: u32, random_unit: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.min(10));
    doubled
        .min(LONGEST_PAUSE)
        .mul_f64(0.5 + 0.5 * random_unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_delay_doubles_to_its_limit_and_is_randomised() {
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
