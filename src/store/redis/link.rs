//! The one link to Redis: it says whether Redis is there, and never makes anybody wait who need not.
//!
//! A keeper writes a sign of life each second over the client's own connection manager, which mends a lost connection at once. A command
//! that fails or is late wakes the keeper; until it has looked, hot paths are told at once that Redis is away. What fails to answer the
//! keeper gets a new connection after a pause that grows and is spread by chance, so that a Redis that comes back is not overrun. One that
//! answers, but late for hot paths again and again, is tried by them ever more seldom, down to once a second.

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

/// The beginning of every key and channel.
pub const PREFIX: &str = "failsoft:";

/// The beginning of a sign of life's key, after [`PREFIX`]; the instance's name follows.
pub const SIGN: &str = "here:";

/// The longest that a hot path waits for Redis. Unit tests, many at once on a busy machine, are about what is answered, not how soon.
pub const HOT: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 50 });

/// The longest that work behind the scenes waits for one answer.
pub const BEHIND: Duration = Duration::from_secs(2);

/// The longest that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(1);

/// Commands under way at once. More are refused on hot paths, and wait for a place behind the scenes.
const IN_FLIGHT: usize = 256;

/// Commands that the client holds for the socket.
const BUFFERED: usize = 128;

/// Whether Redis is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// What keeps it away, or from being of use to who waits; none: it is well.
    pub trouble: Option<Trouble>,
    /// Since when, by the wall clock.
    pub since: At,
}

impl Health {
    /// Whether it is there and takes writes; one that is slow does.
    pub fn is_up(&self) -> bool {
        matches!(self.trouble, None | Some(Trouble::Slow))
    }
}

/// A link to Redis; its clones are the same link. The keeper ends when the last of them is dropped.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    _alive: Arc<watch::Sender<()>>,
}

/// What the users of the link share with its keeper.
struct Shared {
    manager: watch::Sender<Option<ConnectionManager>>,
    health: watch::Sender<Health>,
    /// Whether commands are sent at all: false from the first failure until the keeper has looked.
    open: AtomicBool,
    /// Whether hot paths may wait for it: false from an answer that was late for one until the keeper says so.
    quick: AtomicBool,
    /// Whether that was since the keeper looked.
    late: AtomicBool,
    /// Whether a hot path was answered in time since then.
    timely: AtomicBool,
    /// How many connections there were: what was acknowledged over an earlier one may be lost.
    connections: AtomicU64,
    wake: Notify,
    places: Semaphore,
    channels: Channels,
}

impl Link {
    /// A link to the Redis of this URL, which need not be there yet. To be called within the runtime whose thread is to keep it.
    ///
    /// `instance` names this instance among those that share the Redis; `chance` gives numbers in 0..1.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn open(url: &Secret, instance: &str, chance: fn() -> f64) -> Result<Self, String> {
        let client = client(url.expose())
            .map_err(|_| "it is not a Redis URL that can be used".to_owned())?;
        let shared = Arc::new(Shared {
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
        let keeper = keeper::Keeper::new(client, instance, chance, Arc::clone(&shared));
        tokio::spawn(keeper.run(dropped));
        Ok(Self {
            shared,
            _alive: Arc::new(alive),
        })
    }

    /// Whether Redis is there, as the keeper saw it last.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Whether a command would be sent now, behind the scenes at least.
    pub fn is_up(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// The number of the present connection. With another number it may be another Redis, or one that lost what it acknowledged last.
    pub fn connection(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Asks Redis, within `limit`; [`HOT`] on a path that a visitor waits for, [`BEHIND`] else.
    ///
    /// `commands` gets a connection of its own right. While Redis is away this fails at once, on hot paths also while it is slow.
    ///
    /// # Errors
    /// `Away` where Redis is not there, late, or takes no writes: whether the commands took effect is then not known. `Refused` where it
    /// answered that it cannot do this, such as for a value of another kind under the key.
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
        let asked = timeout(limit, async {
            let _place = self.shared.places.acquire().await.ok()?;
            let manager = self.shared.manager.borrow().clone()?;
            Some(commands(manager).await)
        });
        match asked.await {
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
                // Of many that waited at once the first counts.
                if hot && self.shared.quick.swap(false, Ordering::AcqRel) {
                    self.shared.late.store(true, Ordering::Release);
                }
                self.shared.suspect();
                Err(LinkError::Away)
            }
        }
    }

    /// One command.
    ///
    /// # Errors
    /// As [`Link::ask`].
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

    /// Several commands at once.
    ///
    /// # Errors
    /// As [`Link::ask`].
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

    /// A script, which Redis runs as one.
    ///
    /// # Errors
    /// As [`Link::ask`].
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

    /// Hears what is published on this channel (without [`PREFIX`]) from now on, also after Redis was away. What was published meanwhile is
    /// not heard; who falls behind is told so by the receiver.
    ///
    /// Channels are few and named in the code: each is kept until the link ends.
    pub fn hear(&self, channel: &str) -> broadcast::Receiver<Arc<[u8]>> {
        let heard = self.shared.channels.hear(channel);
        // The keeper subscribes when it looks.
        self.shared.wake.notify_one();
        heard
    }

    /// Publishes to who hears the channel (without [`PREFIX`]); nobody may.
    ///
    /// # Errors
    /// As [`Link::ask`].
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
    /// A command failed or was late: none is sent until the keeper has looked.
    fn suspect(&self) {
        self.quick.store(false, Ordering::Release);
        self.open.store(false, Ordering::Release);
        self.wake.notify_one();
    }
}

/// A client for this URL: by the third version of the protocol, in which what was published comes over the same connection.
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
        // The keeper is who tries again.
        .set_number_of_retries(0)
        .set_pipeline_buffer_size(BUFFERED)
}

#[cfg(test)]
mod tests;
