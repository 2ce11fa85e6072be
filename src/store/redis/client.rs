//! The Redis client: reports whether Redis is up and fails fast while it is not.
//!
//! A monitor writes a heartbeat each second over one connection manager, which repairs a lost
//! connection by itself. A failed or late command wakes the monitor, and until it has pinged Redis
//! commands fail at once. After a failed ping the monitor reconnects with a delay that doubles and
//! is randomised, so that a returning Redis is not overrun. If Redis answers, but repeatedly too
//! late for hot paths, these back off for up to a second at a time.

mod health_check;
mod latency_gate;
mod outage;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, FromRedisValue, ProtocolVersion, RedisResult};
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::time::timeout;

pub use self::outage::{CallResult, OutageReason, RedisCallError};
use self::subscriptions::Subscriptions;
use crate::config::Secret;
use crate::domain::Timestamp;

/// The prefix of every key and channel.
pub const PREFIX: &str = "failsoft:";

/// The heartbeat's key, between [`PREFIX`] and the instance's name.
pub const HEARTBEAT_KEY: &str = "here:";

/// The timeout of commands that a visitor waits for. Unit tests share a busy machine and get more.
pub const HOT_PATH_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 50 });

pub const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(2);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Limit on concurrent commands. Further ones wait for a permit until their timeout.
const MAX_IN_FLIGHT: usize = 256;

const PIPELINE_BUFFER_SIZE: usize = 128;

/// The state of Redis as the monitor last saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RedisHealth {
    /// Why Redis is not used, or only in the background. `None` while all is well.
    pub outage: Option<OutageReason>,
    /// The wall-clock time of the last change.
    pub since: Timestamp,
}

impl RedisHealth {
    /// `true` if Redis accepts writes, even if it is slow.
    pub fn is_up(&self) -> bool {
        matches!(self.outage, None | Some(OutageReason::Slow))
    }
}

/// A client for Redis. Clones share the connection. The monitor ends when the last one is dropped.
#[derive(Clone)]
pub struct RedisClient {
    state: Arc<ClientState>,
    _alive: Arc<watch::Sender<()>>,
}

struct ClientState {
    manager: watch::Sender<Option<ConnectionManager>>,
    health: watch::Sender<RedisHealth>,
    /// Commands are sent. Cleared by the first failure until the monitor's next ping.
    is_up: AtomicBool,
    /// Hot paths may send commands. Cleared by a late reply until the monitor allows it again.
    allows_hot_paths: AtomicBool,
    /// A hot-path command was late since the last ping.
    had_late_reply: AtomicBool,
    /// A hot-path command was answered in time since the last ping.
    had_timely_reply: AtomicBool,
    /// Counts connections. What an earlier connection acknowledged may be lost.
    connection_count: AtomicU64,
    wake: Notify,
    permits: Semaphore,
    subscriptions: Subscriptions,
}

impl RedisClient {
    /// Starts a client for the Redis at `url`, which need not be up yet. The monitor runs on the
    /// runtime of the caller.
    ///
    /// `instance` names this instance among those that share the Redis. `random_unit` returns
    /// numbers in 0..1.
    ///
    /// # Errors
    /// The problem with the URL, without the URL itself.
    pub fn open(url: &Secret, instance: &str, random_unit: fn() -> f64) -> Result<Self, String> {
        let client = new_client(url.expose())
            .map_err(|_| "it is not a Redis URL that can be used".to_owned())?;
        let state = Arc::new(ClientState {
            manager: watch::Sender::new(None),
            health: watch::Sender::new(RedisHealth {
                outage: Some(OutageReason::Joining),
                since: health_check::wall_clock_now(),
            }),
            is_up: AtomicBool::new(false),
            allows_hot_paths: AtomicBool::new(false),
            had_late_reply: AtomicBool::new(false),
            had_timely_reply: AtomicBool::new(false),
            connection_count: AtomicU64::new(0),
            wake: Notify::new(),
            permits: Semaphore::new(MAX_IN_FLIGHT),
            subscriptions: Subscriptions::default(),
        });
        let (alive, dropped) = watch::channel(());
        let monitor =
            health_check::ConnectionMonitor::new(client, instance, random_unit, Arc::clone(&state));
        tokio::spawn(monitor.run(dropped));
        Ok(Self {
            state,
            _alive: Arc::new(alive),
        })
    }

    pub fn health(&self) -> watch::Receiver<RedisHealth> {
        self.state.health.subscribe()
    }

    /// `true` if a command would be sent now, at least in the background.
    pub fn is_up(&self) -> bool {
        self.state.is_up.load(Ordering::Acquire)
    }

    /// The number of the current connection. A new number may mean another Redis, or one that lost
    /// its last acknowledged writes.
    pub fn connection_number(&self) -> u64 {
        self.state.connection_count.load(Ordering::Acquire)
    }

    /// Runs commands within `limit`: [`HOT_PATH_TIMEOUT`] if a visitor waits, else
    /// [`BACKGROUND_TIMEOUT`].
    ///
    /// `commands` gets its own handle of the connection. The call fails at once while Redis is
    /// down, and on hot paths also while it is slow.
    ///
    /// # Errors
    /// `Unavailable` if Redis is down, late or accepts no writes. Commands may have taken effect.
    /// `Rejected` if Redis cannot execute them, for example because a key holds another type.
    pub async fn call<T, F>(
        &self,
        limit: Duration,
        commands: impl FnOnce(ConnectionManager) -> F,
    ) -> CallResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let hot = limit <= HOT_PATH_TIMEOUT;
        if !self.is_up() || hot && !self.state.allows_hot_paths.load(Ordering::Acquire) {
            return Err(RedisCallError::Unavailable);
        }
        let call = timeout(limit, async {
            let _place = self.state.permits.acquire().await.ok()?;
            let manager = self.state.manager.borrow().clone()?;
            Some(commands(manager).await)
        });
        match call.await {
            Ok(Some(Ok(answer))) => {
                if hot {
                    self.state.had_timely_reply.store(true, Ordering::Release);
                }
                Ok(answer)
            }
            Ok(Some(Err(error))) => {
                if outage::is_connection_failure(&error) {
                    self.state.mark_suspect();
                    Err(RedisCallError::Unavailable)
                } else {
                    Err(RedisCallError::Rejected)
                }
            }
            Ok(None) => Err(RedisCallError::Unavailable),
            Err(_) => {
                // Of several commands that were late together, only the first is counted.
                if hot && self.state.allows_hot_paths.swap(false, Ordering::AcqRel) {
                    self.state.had_late_reply.store(true, Ordering::Release);
                }
                self.state.mark_suspect();
                Err(RedisCallError::Unavailable)
            }
        }
    }

    pub async fn command<T: FromRedisValue>(
        &self,
        limit: Duration,
        command: &::redis::Cmd,
    ) -> CallResult<T> {
        self.call(limit, |mut manager| async move {
            command.query_async(&mut manager).await
        })
        .await
    }

    pub async fn pipeline<T: FromRedisValue>(
        &self,
        limit: Duration,
        commands: &::redis::Pipeline,
    ) -> CallResult<T> {
        self.call(limit, |mut manager| async move {
            commands.query_async(&mut manager).await
        })
        .await
    }

    pub async fn script<T: FromRedisValue>(
        &self,
        limit: Duration,
        script: &::redis::ScriptInvocation<'_>,
    ) -> CallResult<T> {
        self.call(limit, |mut manager| async move {
            script.invoke_async(&mut manager).await
        })
        .await
    }

    /// Subscribes to a channel, named without [`PREFIX`].
    ///
    /// The subscription survives an outage but misses what is published meanwhile. A receiver that
    /// falls behind gets a `Lagged` error. Channels stay subscribed until the client is dropped, so
    /// use only a few fixed names.
    pub fn subscribe(&self, channel: &str) -> broadcast::Receiver<Arc<[u8]>> {
        let receiver = self.state.subscriptions.subscribe(channel);
        // The monitor subscribes at its next ping.
        self.state.wake.notify_one();
        receiver
    }

    /// Publishes to a channel, named without [`PREFIX`].
    pub async fn publish(&self, limit: Duration, channel: &str, message: &[u8]) -> CallResult<()> {
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(format!("{PREFIX}{channel}")).arg(message);
        self.command::<i64>(limit, &command).await.map(drop)
    }
}

impl ClientState {
    /// Stops sending commands until the monitor has pinged Redis.
    fn mark_suspect(&self) {
        self.allows_hot_paths.store(false, Ordering::Release);
        self.is_up.store(false, Ordering::Release);
        self.wake.notify_one();
    }
}

/// Creates a client that speaks RESP3, which delivers published messages over the same connection.
fn new_client(url: &str) -> RedisResult<Client> {
    use ::redis::IntoConnectionInfo as _;
    let info = url.into_connection_info()?;
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings))
}

fn connection_config() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(BACKGROUND_TIMEOUT))
        // The monitor reconnects.
        .set_number_of_retries(0)
        .set_pipeline_buffer_size(PIPELINE_BUFFER_SIZE)
}

#[cfg(test)]
mod tests;
