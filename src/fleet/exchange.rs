//! Publishes events of this instance's providers to its peers, and receives theirs.
//!
//! One task per provider publishes, all over one connection. An event is also stored under a key
//! for as long as it matters. Instances that join read the keys, and all read them again from time
//! to time in case a message was lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::{Pipeline, RedisResult, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::known::{Heard, Known, Reliefs};
use super::message::Message;
use super::{Fleet, key};
use crate::provider::actor::Hear;
use crate::provider::backend::Backend;
use crate::provider::news::News;
use crate::store::link::{BEHIND, Health, PREFIX};
use crate::turn::desk::Desk;

const CHANNEL: &str = "fleet:news";

/// The extra TTL of an "opened" key, so that an instance that joins during a probe waits for its
/// result.
const TRIED: Duration = Duration::from_secs(30);

/// The interval at which the keys are read again, ±20 %.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// Upper bound of the random delay before the keys are read after a reconnect.
const JOIN_WITHIN: Duration = Duration::from_secs(1);

/// Upper bound of the random delay, after `JOIN_JITTER`, before events are published again after a
/// reconnect. The first instance to do so spares the others.
const TELL_WITHIN: Duration = Duration::from_secs(1);

pub struct Exchange {
    fleet: Fleet,
    desk: Arc<Desk>,
    known: Mutex<Known>,
    number: AtomicU64,
}

impl Exchange {
    pub fn start(fleet: Fleet, service: Arc<Desk>) {
        let bus = Self {
            fleet,
            desk: service,
            known: Mutex::default(),
            number: AtomicU64::new(1),
        };
        let bus = Arc::new(bus);
        actix::spawn(Arc::clone(&bus).hear());
        actix::spawn(bus.tell());
    }

    fn backends(&self) -> Arc<[Arc<Backend>]> {
        Arc::clone(&self.desk.published.borrow().backends)
    }

    /// Starts a publishing task per provider, also for those added by a reload.
    async fn tell(self: Arc<Self>) {
        let mut published = self.desk.published.clone();
        let mut started: Vec<Weak<Backend>> = Vec::new();
        loop {
            let backends = Arc::clone(&published.borrow_and_update().backends);
            started.retain(|provider| provider.strong_count() > 0);
            for backend in backends.iter() {
                if started
                    .iter()
                    .all(|started| started.as_ptr() != Arc::as_ptr(backend))
                {
                    started.push(Arc::downgrade(backend));
                    let account = Arc::clone(&backend.account);
                    let voice = backend.voice.clone();
                    actix::spawn(Arc::clone(&self).tell_of(account, voice));
                }
            }
            drop(backends);
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the events of one account as they occur, and the last one again after a reconnect
    /// if it still matters.
    async fn tell_of(self: Arc<Self>, account: Arc<str>, mut voice: watch::Receiver<Option<News>>) {
        let mut health = self.fleet.link.health();
        let mut up = is_up(&health);
        let mut last: Option<(News, Instant)> = None;
        loop {
            tokio::select! {
                changed = voice.changed() => {
                    if changed.is_err() {
                        // The provider was removed.
                        return;
                    }
                    let event = *voice.borrow_and_update();
                    last = event.map(|event| (event, Instant::now()));
                    if let Some(event) = event {
                        self.publish(&account, event).await;
                    }
                }
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let has_reconnected = comes_back(&mut up, &mut health);
                    if let Some((event, at)) = last.filter(|_| has_reconnected) {
                        sleep(JOIN_WITHIN + TELL_WITHIN.mul_f64((self.fleet.chance)())).await;
                        if let Some(event) = event.left_after(at.elapsed()) {
                            self.publish(&account, event).await;
                        }
                    }
                }
            }
        }
    }

    async fn publish(&self, account: &str, event: News) {
        let now = self.fleet.clock.now();
        if self.known().covers(account, event, now) {
            return;
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let from = self.fleet.instance.to_string();
        let message = Message {
            from,
            number,
            account: account.to_owned(),
            news: event,
        }
        .encode();
        // Store before publishing: a peer that misses the message finds the key.
        let mut commands = redis::pipe();
        leave(&mut commands, account, event, &message);
        commands
            .cmd("PUBLISH")
            .arg(format!("{PREFIX}{CHANNEL}"))
            .arg(&message)
            .ignore();
        match self.fleet.link.pipeline::<()>(BEHIND, &commands).await {
            Ok(()) => self.known().note(account, event, now),
            // Peers find out by their own calls; what still matters is repeated after a reconnect.
            Err(error) => {
                tracing::debug!(%error, "failed to publish provider event")
            }
        }
    }

    /// Receives events of peers, and loads the stored ones after each reconnect.
    async fn hear(self: Arc<Self>) {
        let mut messages = self.fleet.link.hear(CHANNEL);
        let mut health = self.fleet.link.health();
        let mut dedup = Heard::new(&self.fleet.instance);
        let mut up = is_up(&health);
        let mut recovery = Reliefs::default();
        let mut reload_at = Instant::now();
        let mut has_joined = false;
        loop {
            let recovery_in = recovery
                .next()
                .map(|at| at.saturating_sub(self.fleet.clock.now()));
            let wake = recovery_in.map_or(reload_at, |wait| reload_at.min(Instant::now() + wait));
            tokio::select! {
                message = messages.recv() => match message {
                    Ok(bytes) => {
                        if let Some(Message { account, news, .. }) =
                            Message::decode(&bytes).filter(|message| dedup.is_news(&message.from, message.number))
                        {
                            self.heard(&account, news, &mut recovery).await;
                        }
                    }
                    // Messages were dropped: the keys have what matters of them.
                    Err(RecvError::Lagged(_)) => reload_at = Instant::now(),
                    Err(RecvError::Closed) => return,
                },
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if comes_back(&mut up, &mut health) {
                        // The first connect needs no jitter: no peer was connected with it.
                        let wait = if has_joined { JOIN_WITHIN.mul_f64((self.fleet.chance)()) } else { Duration::ZERO };
                        reload_at = Instant::now() + wait;
                    }
                }
                // Due recoveries are applied, and the keys are read when their time has come.
                () = sleep_until(wake) => {
                    for account in recovery.take_due(self.fleet.clock.now()) {
                        self.pass_on(&account, News::Well);
                    }
                    if reload_at <= Instant::now() {
                        has_joined |= is_up(&health) && self.read().await;
                        reload_at = Instant::now() + READ_AGAIN.mul_f64(0.8 + 0.4 * (self.fleet.chance)());
                    }
                }
            }
        }
    }

    async fn heard(&self, account: &str, event: News, recovery: &mut Reliefs) {
        let now = self.fleet.clock.now();
        self.known().note(account, event, now);
        match event {
            News::Well => {
                recovery.well(account, self.instances().await, now, (self.fleet.chance)())
            }
            News::Tripped { .. } | News::Limited { .. } | News::Reset => {
                recovery.cancel(account);
                self.pass_on(account, event);
            }
        }
    }

    /// Loads the stored events. Returns `false` if Redis is unavailable.
    async fn read(&self) -> bool {
        let providers = self.backends();
        let mut commands = redis::pipe();
        for provider in providers.iter() {
            for kind in Kind::ALL {
                let key = key(kind.name(), &provider.account);
                commands.cmd("GET").arg(&key).cmd("PTTL").arg(&key);
            }
        }
        // A key of another type must not fail the whole pipeline.
        commands.ignore_errors();
        let Ok(replies) = self
            .fleet
            .link
            .pipeline::<Vec<RedisResult<Value>>>(BEHIND, &commands)
            .await
        else {
            return false;
        };
        let keys = providers
            .iter()
            .flat_map(|provider| Kind::ALL.map(|kind| (provider, kind)));
        let mut replies = replies.into_iter();
        for (provider, kind) in keys {
            let (Some(Ok(text)), Some(Ok(Value::Int(left)))) = (replies.next(), replies.next())
            else {
                continue;
            };
            let message = redis::from_redis_value::<Vec<u8>>(text)
                .ok()
                .and_then(|text| Message::decode(&text));
            let is_own = |message: &Message| *message.from == *self.fleet.instance;
            if let Some(message) =
                message.filter(|message| message.account == *provider.account && !is_own(message))
            {
                // The message has the original duration; the key's TTL has what is left of it.
                let left =
                    Duration::from_millis(left.max(0).unsigned_abs()).saturating_sub(kind.more());
                let event = message.news.shortened_to(left);
                let now = self.fleet.clock.now();
                if !self.known().covers(&provider.account, event, now) {
                    self.known().note(&provider.account, event, now);
                    self.pass_on(&provider.account, event);
                }
            }
        }
        true
    }

    /// The number of instances. 1 if Redis is unavailable.
    async fn instances(&self) -> u32 {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(format!("{PREFIX}{CHANNEL}"));
        let reply = self
            .fleet
            .link
            .command::<Vec<(String, i64)>>(BEHIND, &command);
        let reply = timeout(Duration::from_millis(200), reply).await;
        let count = reply
            .ok()
            .and_then(Result::ok)
            .and_then(|counts| counts.first().map(|(_, count)| *count));
        count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1)
            .max(1)
    }

    /// Sends an event to the actors of all providers of this account. An actor that is restarting
    /// or overloaded misses it and finds out by its own calls.
    fn pass_on(&self, account: &str, event: News) {
        for provider in self
            .backends()
            .iter()
            .filter(|provider| *provider.account == *account)
        {
            if let Some(actor) = provider.actor.borrow().as_ref() {
                let _ = actor.try_send(Hear(event));
            }
        }
    }
}

fn is_up(health: &watch::Receiver<Health>) -> bool {
    health.borrow().is_up()
}

/// Returns `true` if Redis has become available again. Slow does not count as unavailable, nor
/// becoming fast again as a reconnect.
fn comes_back(up: &mut bool, health: &mut watch::Receiver<Health>) -> bool {
    let is_up_now = health.borrow_and_update().is_up();
    !std::mem::replace(up, is_up_now) && is_up_now
}

#[derive(Clone, Copy)]
enum Kind {
    Trip,
    Hold,
    Hint,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Trip, Self::Hold, Self::Hint];

    fn name(self) -> &'static str {
        match self {
            Self::Trip => "trip",
            Self::Hold => "hold",
            Self::Hint => "hint",
        }
    }

    /// The extra TTL of the key, beyond the duration of the event.
    fn more(self) -> Duration {
        match self {
            Self::Trip => TRIED,
            Self::Hold | Self::Hint => Duration::ZERO,
        }
    }
}

/// Stores an event under its key, and deletes the keys of the events that it ends.
fn leave(commands: &mut Pipeline, account: &str, event: News, message: &[u8]) {
    let (kind, ended): (_, &[Kind]) = match event {
        News::Tripped { .. } if event.is_shared() => (Some(Kind::Trip), &[]),
        News::Tripped { .. } => (Some(Kind::Hint), &[]),
        News::Limited { .. } => (Some(Kind::Hold), &[]),
        News::Well => (None, &[Kind::Trip, Kind::Hint]),
        News::Reset => (None, &Kind::ALL),
    };
    if let Some(kind) = kind {
        let ttl_ms = (event.lasts() + kind.more()).as_millis().max(1);
        let ttl_ms = u64::try_from(ttl_ms).unwrap_or(u64::MAX);
        commands
            .cmd("SET")
            .arg(key(kind.name(), account))
            .arg(message)
            .arg("PX")
            .arg(ttl_ms)
            .ignore();
    }
    for kind in ended {
        commands.cmd("DEL").arg(key(kind.name(), account)).ignore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::At;
    use crate::store::link::Trouble;

    #[test]
    fn becoming_slow_or_fast_again_is_no_reconnect() {
        let now = |trouble| Health {
            trouble,
            since: At(0),
        };
        let (sender, mut health) = watch::channel(now(Some(Trouble::Joining)));
        let mut up = is_up(&health);
        let steps = [
            (None, true),
            (Some(Trouble::Slow), false),
            (None, false),
            (Some(Trouble::Slow), false),
            (Some(Trouble::Unreachable), false),
            (Some(Trouble::Slow), true),
            (None, false),
            (Some(Trouble::ReadOnly), false),
            (None, true),
        ];
        for (trouble, back) in steps {
            sender.send_replace(now(trouble));
            assert_eq!(comes_back(&mut up, &mut health), back, "{trouble:?}");
        }
    }
}
