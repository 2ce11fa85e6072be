//! The connection monitor: pings Redis each second and after failures, and reconnects with backoff.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use ::redis::aio::{ConnectionManager, SendError};
use ::redis::{Client, PushInfo, RedisResult};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::latency_gate::{LatencyGate, LatencySample};
use super::{
    ClientState, HEARTBEAT_KEY, HOT_PATH_TIMEOUT, OutageReason, PREFIX, RedisHealth,
    connection_config,
};
use crate::domain::Timestamp;

const PING_INTERVAL: Duration = Duration::from_secs(1);

const PING_TIMEOUT: Duration = Duration::from_secs(1);

const HEARTBEAT_TTL_MS: u64 = 15_000;

/// Bounds of the delay before a new connection. Each failure doubles the delay.
const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(100);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(3);

pub(super) fn wall_clock_now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

pub(super) struct ConnectionMonitor {
    client: Client,
    heartbeat_key: String,
    random_unit: fn() -> f64,
    state: Arc<ClientState>,
}

impl ConnectionMonitor {
    pub(super) fn new(
        client: Client,
        instance: &str,
        random_unit: fn() -> f64,
        state: Arc<ClientState>,
    ) -> Self {
        Self {
            client,
            heartbeat_key: format!("{PREFIX}{HEARTBEAT_KEY}{instance}"),
            random_unit,
            state,
        }
    }

    /// Runs until all clients are dropped.
    pub(super) async fn run(self, mut dropped: watch::Receiver<()>) {
        tokio::select! {
            () = self.reconnect_forever() => {}
            _ = dropped.changed() => {}
        }
    }

    async fn reconnect_forever(&self) {
        let mut failures = 0;
        let mut gate = LatencyGate::default();
        loop {
            let (outage, was_up) = self.monitor(&mut gate).await;
            self.mark_down(outage);
            failures = if was_up { 0 } else { failures + 1 };
            sleep(reconnect_delay(failures, (self.random_unit)())).await;
        }
    }

    /// Uses one connection manager for as long as pings succeed.
    ///
    /// Returns why it ended, and `true` if any ping succeeded.
    async fn monitor(&self, gate: &mut LatencyGate) -> (OutageReason, bool) {
        let mut was_up = false;
        let mut manager = match self.connect() {
            Ok(manager) => manager,
            Err(error) => return (OutageReason::from_error(&error), was_up),
        };
        loop {
            let took = match timeout(PING_TIMEOUT, self.ping(&mut manager)).await {
                Ok(Ok(took)) => took,
                Ok(Err(error)) => return (OutageReason::from_error(&error), was_up),
                Err(_) => return (OutageReason::Unreachable, was_up),
            };
            was_up = true;
            let backoff = gate.on_ping(LatencySample {
                had_late_reply: self.state.had_late_reply.swap(false, Ordering::AcqRel),
                had_timely_reply: self.state.had_timely_reply.swap(false, Ordering::AcqRel),
                is_ping_late: took > HOT_PATH_TIMEOUT,
            });
            self.mark_up(&manager, backoff.is_none(), gate.is_slow());
            // The next ping comes when hot paths may try again, and at once after a failure.
            let wait = backoff
                .unwrap_or(PING_INTERVAL)
                .mul_f64(0.8 + 0.4 * (self.random_unit)());
            let _ = timeout(wait, self.state.wake.notified()).await;
        }
    }

    /// Creates a connection manager, which connects at its first command.
    fn connect(&self) -> RedisResult<ConnectionManager> {
        self.state.connection_count.fetch_add(1, Ordering::AcqRel);
        let state: Weak<ClientState> = Arc::downgrade(&self.state);
        let on_push = move |push: PushInfo| {
            let state = state.upgrade().ok_or(SendError)?;
            if state.subscriptions.dispatch(push) {
                state.connection_count.fetch_add(1, Ordering::AcqRel);
                state.mark_suspect();
            }
            Ok::<(), SendError>(())
        };
        ConnectionManager::new_lazy_with_config(
            self.client.clone(),
            connection_config().set_push_sender(on_push),
        )
    }

    /// Writes the heartbeat and subscribes to all channels. Returns how long the write took.
    ///
    /// Subscribing again is needed because Redis forgets the subscriptions of a lost connection.
    async fn ping(&self, manager: &mut ConnectionManager) -> RedisResult<Duration> {
        let started = Instant::now();
        let mut heartbeat = ::redis::cmd("SET");
        heartbeat.arg((&self.heartbeat_key, 1, "PX", HEARTBEAT_TTL_MS));
        heartbeat.exec_async(manager).await?;
        let took = started.elapsed();
        let names = self.state.subscriptions.channel_names();
        if !names.is_empty() {
            manager.subscribe(names).await?;
        }
        Ok(took)
    }

    /// Publishes that Redis is up. With `allow_hot`, hot paths may use it; with `is_slow`, it is
    /// reported as slow.
    fn mark_up(&self, manager: &ConnectionManager, allow_hot: bool, is_slow: bool) {
        if !self.state.is_up.load(Ordering::Acquire) {
            self.state.manager.send_replace(Some(manager.clone()));
            self.state.is_up.store(true, Ordering::Release);
        }
        let allows = &self.state.allows_hot_paths;
        allows.store(allow_hot, Ordering::Release);
        if self.publish_health(is_slow.then_some(OutageReason::Slow)) {
            if is_slow {
                tracing::warn!(
                    "redis is slow: continuing standalone, replicating in the background"
                );
            } else {
                tracing::info!("joined redis");
            }
        }
    }

    fn mark_down(&self, outage: OutageReason) {
        self.state.is_up.store(false, Ordering::Release);
        self.state.allows_hot_paths.store(false, Ordering::Release);
        self.state.manager.send_replace(None);
        if self.publish_health(Some(outage)) {
            tracing::warn!(
                trouble = ?outage,
                why = outage.describe(),
                "redis is away; this instance goes on alone"
            );
        }
    }

    /// Publishes the state. Returns `true` if it changed.
    fn publish_health(&self, outage: Option<OutageReason>) -> bool {
        self.state.health.send_if_modified(|health| {
            let changed = health.outage != outage;
            if changed {
                *health = RedisHealth {
                    outage,
                    since: wall_clock_now(),
                };
            }
            changed
        })
    }
}

/// Returns the delay before the next connection: doubled per failure up to a limit, then randomised
/// over its upper half.
fn reconnect_delay(failures: u32, random_unit: f64) -> Duration {
    let doubled = MIN_RECONNECT_DELAY.saturating_mul(1 << failures.min(10));
    doubled
        .min(MAX_RECONNECT_DELAY)
        .mul_f64(0.5 + 0.5 * random_unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_delay_doubles_to_its_limit_and_is_randomised() {
        assert_eq!(
            (reconnect_delay(0, 0.0), reconnect_delay(0, 1.0)),
            (MIN_RECONNECT_DELAY / 2, MIN_RECONNECT_DELAY)
        );
        assert_eq!(
            (reconnect_delay(3, 0.0), reconnect_delay(3, 1.0)),
            (MIN_RECONNECT_DELAY * 4, MIN_RECONNECT_DELAY * 8)
        );
        for failures in [5, 9, 40, u32::MAX] {
            assert_eq!(
                (
                    reconnect_delay(failures, 0.0),
                    reconnect_delay(failures, 1.0)
                ),
                (MAX_RECONNECT_DELAY / 2, MAX_RECONNECT_DELAY)
            );
        }
    }
}
