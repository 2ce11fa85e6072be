//! The Redis client: reports whether Redis is up and fails fast while it is not.
//!
//! A monitor writes a heartbeat each second over one connection manager, which repairs a lost
//! connection by itself. A failed or late command wakes the monitor, and until it has pinged Redis
//! commands fail at once. After a failed ping the monitor reconnects with a delay that doubles and
//! is randomised, so that a returning Redis is not overrun. If Redis answers, but repeatedly too
//! late for hot paths, these back off for up to a second at a time.

mod heard;
mod keeper;
mod pace;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, FromRedisValue, ProtocolVersion, RedisResult};
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::time::timeout;

use self::heard::Channels;
pub use self::trouble::{LinkError, Trouble};
use crate::chat::At;
use crate::settings::Secret;

/// The prefix of every key and channel.
pub const PREFIX: &str = "failsoft:";

/// The heartbeat's key, between [`PREFIX`] and the instance's name.
pub const SIGN: &str = "here:";

/// The timeout of commands that a visitor waits for. Unit tests share a busy machine and get more.
pub const HOT: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 50 });

pub const BEHIND: Duration = Duration::from_secs(2);

const CONNECT: Duration = Duration::from_secs(1);

/// Limit on concurrent commands. Further ones wait for a permit until their timeout.
const IN_FLIGHT: usize = 256;

const BUFFERED: usize = 128;

/// The state of Redis as the monitor last saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// Why Redis is not used, or only in the background. `None` while all is well.
    pub trouble: Option<Trouble>,
    /// The wall-clock time of the last change.
    pub since: At,
}

impl Health {
    /// `true` if Redis accepts writes, even if it is slow.
    pub fn is_up(&self) -> bool {
        matches!(self.trouble, None | Some(Trouble::Slow))
    }
}

/// A client for Redis. Clones share the connection. The monitor ends when the last one is dropped.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    _alive: Arc<watch::Sender<()>>,
}

struct Shared {
    manager: watch::Sender<Option<ConnectionManager>>,
    health: watch::Sender<Health>,
    /// Commands are sent. Cleared by the first failure until the monitor's next ping.
    open: AtomicBool,
    /// Hot paths may send commands. Cleared by a late reply until the monitor allows it again.
    quick: AtomicBool,
    /// A hot-path command was late since the last ping.
    late: AtomicBool,
    /// A hot-path command was answered in time since the last ping.
    timely: AtomicBool,
    /// Counts connections. What an earlier connection acknowledged may be lost.
    connections: AtomicU64,
    wake: Notify,
    places: Semaphore,
    channels: Channels,
}

impl Link {
    /// Starts a client for the Redis at `url`, which need not be up yet. The monitor runs on the
    /// runtime of the caller.
    ///
    /// `instance` names this instance among those that share the Redis. `random_unit` returns
    /// numbers in 0..1.
    ///
    /// # Errors
    /// The problem with the URL, without the URL itself.
    pub fn open(url: &Secret, instance: &str, random_unit: fn() -> f64) -> Result<Self, String> {
        let client = client(url.expose())
            .map_err(|_| "it is not a Redis URL that can be used".to_owned())?;
        let state = Arc::new(Shared {
            manager: watch::Sender::new(None),
            health: watch::Sender::new(Health {
                trouble: Some(Trouble::Joining),
                since: keeper::now(),
            }),
            open: AtomicBool::new(false),
            quick: AtomicBool::new(false),
            late: AtomicBool::new(false),
            timely: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            wake: Notify::new(),
            places: Semaphore::new(IN_FLIGHT),
            channels: Channels::default(),
        });
        let (alive, dropped) = watch::channel(());
        let monitor = keeper::Keeper::new(client, instance, random_unit, Arc::clone(&state));
        tokio::spawn(monitor.run(dropped));
        Ok(Self {
            shared: state,
            _alive: Arc::new(alive),
        })
    }

    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// `true` if a command would be sent now, at least in the background.
    pub fn is_up(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// The number of the current connection. A new number may mean another Redis, or one that lost
    /// its last acknowledged writes.
    pub fn connection(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
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
    pub async fn ask<T, F>(
        &self,
        limit: Duration,
        commands: impl FnOnce(ConnectionManager) -> F,
    ) -> Result<T, LinkError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let hot = limit <= HOT;
        if !self.is_up() || hot && !self.shared.quick.load(Ordering::Acquire) {
            return Err(LinkError::Away);
        }
        let call = timeout(limit, async {
            let _place = self.shared.places.acquire().await.ok()?;
            let manager = self.shared.manager.borrow().clone()?;
            Some(commands(manager).await)
        });
        match call.await {
            Ok(Some(Ok(answer))) => {
                if hot {
                    self.shared.timely.store(true, Ordering::Release);
                }
                Ok(answer)
            }
            Ok(Some(Err(error))) => {
                if trouble::is_of_the_link(&error) {
                    self.shared.suspect();
                    Err(LinkError::Away)
                } else {
                    Err(LinkError::Refused)
                }
            }
            Ok(None) => Err(LinkError::Away),
            Err(_) => {
                // Of several commands that were late together, only the first is counted.
                if hot && self.shared.quick.swap(false, Ordering::AcqRel) {
                    self.shared.late.store(true, Ordering::Release);
                }
                self.shared.suspect();
                Err(LinkError::Away)
            }
        }
    }

    pub async fn command<T: FromRedisValue>(
        &self,
        limit: Duration,
        command: &::redis::Cmd,
    ) -> Result<T, LinkError> {
        self.ask(limit, |mut manager| async move {
            command.query_async(&mut manager).await
        })
        .await
    }

    pub async fn pipeline<T: FromRedisValue>(
        &self,
        limit: Duration,
        commands: &::redis::Pipeline,
    ) -> Result<T, LinkError> {
        self.ask(limit, |mut manager| async move {
            commands.query_async(&mut manager).await
        })
        .await
    }

    pub async fn script<T: FromRedisValue>(
        &self,
        limit: Duration,
        script: &::redis::ScriptInvocation<'_>,
    ) -> Result<T, LinkError> {
        self.ask(limit, |mut manager| async move {
            script.invoke_async(&mut manager).await
        })
        .await
    }

    /// Subscribes to a channel, named without [`PREFIX`].
    ///
    /// The subscription survives an outage but misses what is published meanwhile. A receiver that
    /// falls behind gets a `Lagged` error. Channels stay subscribed until the client is dropped, so
    /// use only a few fixed names.
    pub fn hear(&self, channel: &str) -> broadcast::Receiver<Arc<[u8]>> {
        let receiver = self.shared.channels.hear(channel);
        // The monitor subscribes at its next ping.
        self.shared.wake.notify_one();
        receiver
    }

    /// Publishes to a channel, named without [`PREFIX`].
    pub async fn publish(
        &self,
        limit: Duration,
        channel: &str,
        message: &[u8],
    ) -> Result<(), LinkError> {
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(format!("{PREFIX}{channel}")).arg(message);
        self.command::<i64>(limit, &command).await.map(drop)
    }
}

impl Shared {
    /// Stops sending commands until the monitor has pinged Redis.
    fn suspect(&self) {
        self.quick.store(false, Ordering::Release);
        self.open.store(false, Ordering::Release);
        self.wake.notify_one();
    }
}

/// Creates a client that speaks RESP3, which delivers published messages over the same connection.
fn client(url: &str) -> RedisResult<Client> {
    use ::redis::IntoConnectionInfo as _;
    let info = url.into_connection_info()?;
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings))
}

fn manners() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(BEHIND))
        // The monitor reconnects.
        .set_number_of_retries(0)
        .set_pipeline_buffer_size(BUFFERED)
}

#[cfg(test)]
mod tests;
