//! Telling the other instances what this one learnt of its providers, and hearing what they did.
//!
//! Each backend's voice is listened to by a task of its own, all of them tell over the one link. What is told is also left under a key, for as long
//! as it matters, for those who join later; they read it once, and again now and then, in case a message was lost.

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

/// The channel of the news.
const CHANNEL: &str = "fleet:news";

/// What was told stands for so much longer than it lasts: who joins while the provider is being tried waits for what comes of it.
const TRIED: Duration = Duration::from_secs(30);

/// How often it is read again.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// Everyone joins again within this time, by chance.
const JOIN_WITHIN: Duration = Duration::from_secs(1);

/// Whoever reads first covers for the others: this much later one's own is told, by chance.
const TELL_WITHIN: Duration = Duration::from_secs(1);

/// What tells and hears.
pub struct Exchange {
    fleet: Fleet,
    desk: Arc<Desk>,
    known: Mutex<Known>,
    number: AtomicU64,
}

impl Exchange {
    /// Begins to tell and to hear.
    pub fn start(fleet: Fleet, desk: Arc<Desk>) {
        let exchange = Self {
            fleet,
            desk,
            known: Mutex::default(),
            number: AtomicU64::new(1),
        };
        let exchange = Arc::new(exchange);
        actix::spawn(Arc::clone(&exchange).hear());
        actix::spawn(exchange.tell());
    }

    fn backends(&self) -> Arc<[Arc<Backend>]> {
        Arc::clone(&self.desk.published.borrow().backends)
    }

    /// Begins to tell of each backend, also of those that come with a reload.
    async fn tell(self: Arc<Self>) {
        let mut published = self.desk.published.clone();
        let mut known: Vec<Weak<Backend>> = Vec::new();
        loop {
            let backends = Arc::clone(&published.borrow_and_update().backends);
            known.retain(|one| one.strong_count() > 0);
            for backend in backends.iter() {
                if known.iter().all(|one| one.as_ptr() != Arc::as_ptr(backend)) {
                    known.push(Arc::downgrade(backend));
                    let (account, voice) = (Arc::clone(&backend.account), backend.voice.clone());
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

    /// Tells what an actor has to say of this account, at once; and again, where it still matters, when Redis is back.
    async fn tell_of(self: Arc<Self>, account: Arc<str>, mut voice: watch::Receiver<Option<News>>) {
        let mut health = self.fleet.link.health();
        let mut up = is_up(&health);
        let mut last: Option<(News, Instant)> = None;
        loop {
            tokio::select! {
                spoken = voice.changed() => {
                    if spoken.is_err() {
                        // The actor and all that could make it again are gone.
                        return;
                    }
                    let news = *voice.borrow_and_update();
                    last = news.map(|news| (news, Instant::now()));
                    if let Some(news) = news {
                        self.publish(&account, news).await;
                    }
                }
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let back = comes_back(&mut up, &mut health);
                    if let Some((news, at)) = last.filter(|_| back) {
                        sleep(JOIN_WITHIN + TELL_WITHIN.mul_f64((self.fleet.chance)())).await;
                        if let Some(news) = news.left_after(at.elapsed()) {
                            self.publish(&account, news).await;
                        }
                    }
                }
            }
        }
    }

    async fn publish(&self, account: &str, news: News) {
        let now = self.fleet.clock.now();
        if self.known().covers(account, news, now) {
            return;
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let from = self.fleet.instance.to_string();
        let message = Message {
            from,
            number,
            account: account.to_owned(),
            news,
        }
        .encode();
        let mut commands = redis::pipe();
        leave(&mut commands, account, news, &message);
        commands
            .cmd("PUBLISH")
            .arg(format!("{PREFIX}{CHANNEL}"))
            .arg(&message)
            .ignore();
        match self.fleet.link.pipeline::<()>(BEHIND, &commands).await {
            Ok(()) => self.known().note(account, news, now),
            // Each finds out for itself what it is not told; what still matters is told when Redis is back.
            Err(error) => {
                tracing::debug!(%error, "a provider's trouble was not told to other instances")
            }
        }
    }

    /// Hears the others, and joins them whenever Redis is back.
    async fn hear(self: Arc<Self>) {
        let mut news = self.fleet.link.hear(CHANNEL);
        let mut health = self.fleet.link.health();
        let mut heard = Heard::new(&self.fleet.instance);
        let mut up = is_up(&health);
        let mut reliefs = Reliefs::default();
        let mut read_at = Instant::now();
        let mut joined = false;
        loop {
            let relief = reliefs
                .next()
                .map(|at| at.saturating_sub(self.fleet.clock.now()));
            let wake = relief.map_or(read_at, |wait| read_at.min(Instant::now() + wait));
            tokio::select! {
                message = news.recv() => match message {
                    Ok(bytes) => {
                        if let Some(Message { account, news, .. }) =
                            Message::decode(&bytes).filter(|message| heard.is_news(&message.from, message.number))
                        {
                            self.heard(&account, news, &mut reliefs).await;
                        }
                    }
                    // Too many at once: what matters of them stands under the keys.
                    Err(RecvError::Lagged(_)) => read_at = Instant::now(),
                    Err(RecvError::Closed) => return,
                },
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if comes_back(&mut up, &mut health) {
                        // The first time it joins at once: nobody was with it before.
                        let wait = if joined { JOIN_WITHIN.mul_f64((self.fleet.chance)()) } else { Duration::ZERO };
                        read_at = Instant::now() + wait;
                    }
                }
                () = sleep_until(wake) => {
                    for account in reliefs.take_due(self.fleet.clock.now()) {
                        self.pass_on(&account, News::Well);
                    }
                    if read_at <= Instant::now() {
                        joined |= is_up(&health) && self.read().await;
                        read_at = Instant::now() + READ_AGAIN.mul_f64(0.8 + 0.4 * (self.fleet.chance)());
                    }
                }
            }
        }
    }

    async fn heard(&self, account: &str, news: News, reliefs: &mut Reliefs) {
        let now = self.fleet.clock.now();
        self.known().note(account, news, now);
        match news {
            News::Well => reliefs.well(account, self.instances().await, now, (self.fleet.chance)()),
            News::Tripped { .. } | News::Limited { .. } | News::Reset => {
                reliefs.cancel(account);
                self.pass_on(account, news);
            }
        }
    }

    /// Reads what stands under the keys. Says whether it could.
    async fn read(&self) -> bool {
        let backends = self.backends();
        let mut commands = redis::pipe();
        for backend in backends.iter() {
            for kind in Kind::ALL {
                let key = key(kind.name(), &backend.account);
                commands.cmd("GET").arg(&key).cmd("PTTL").arg(&key);
            }
        }
        // A key that holds something else spoils no other.
        commands.ignore_errors();
        let Ok(answers) = self
            .fleet
            .link
            .pipeline::<Vec<RedisResult<Value>>>(BEHIND, &commands)
            .await
        else {
            return false;
        };
        let places = backends
            .iter()
            .flat_map(|backend| Kind::ALL.map(|kind| (backend, kind)));
        let mut answers = answers.into_iter();
        for (backend, kind) in places {
            let (Some(Ok(text)), Some(Ok(Value::Int(left)))) = (answers.next(), answers.next())
            else {
                continue;
            };
            let message = redis::from_redis_value::<Vec<u8>>(text)
                .ok()
                .and_then(|text| Message::decode(&text));
            let own = |message: &Message| *message.from == *self.fleet.instance;
            if let Some(message) =
                message.filter(|message| message.account == *backend.account && !own(message))
            {
                // What it lasted when it was told says the machine that told it; what is left of that says Redis.
                let left =
                    Duration::from_millis(left.max(0).unsigned_abs()).saturating_sub(kind.more());
                let news = message.news.shortened_to(left);
                let now = self.fleet.clock.now();
                if !self.known().covers(&backend.account, news, now) {
                    self.known().note(&backend.account, news, now);
                    self.pass_on(&backend.account, news);
                }
            }
        }
        true
    }

    /// How many instances there are; 1 where Redis does not say.
    async fn instances(&self) -> u32 {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(format!("{PREFIX}{CHANNEL}"));
        let told = self
            .fleet
            .link
            .command::<Vec<(String, i64)>>(BEHIND, &command);
        let told = timeout(Duration::from_millis(200), told).await;
        let count = told
            .ok()
            .and_then(Result::ok)
            .and_then(|counts| counts.first().map(|(_, count)| *count));
        count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1)
            .max(1)
    }

    /// Tells the actors of all providers of this account. One that is being rebuilt, or is far behind, finds out by its own calls.
    fn pass_on(&self, account: &str, news: News) {
        for backend in self
            .backends()
            .iter()
            .filter(|backend| *backend.account == *account)
        {
            if let Some(actor) = backend.actor.borrow().as_ref() {
                let _ = actor.try_send(Hear(news));
            }
        }
    }
}

fn is_up(health: &watch::Receiver<Health>) -> bool {
    health.borrow().is_up()
}

/// Whether Redis is back: it is up, and was not. What is slow was not gone, nor is it back when it is quick.
fn comes_back(up: &mut bool, health: &mut watch::Receiver<Health>) -> bool {
    let now = health.borrow_and_update().is_up();
    !std::mem::replace(up, now) && now
}

/// What stands under a key for those who join.
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

    /// For how much longer than it lasts it stands.
    fn more(self) -> Duration {
        match self {
            Self::Trip => TRIED,
            Self::Hold | Self::Hint => Duration::ZERO,
        }
    }
}

/// Leaves the news under its key, or takes away what it ends.
fn leave(commands: &mut Pipeline, account: &str, news: News, message: &[u8]) {
    let (kind, over): (_, &[Kind]) = match news {
        News::Tripped { .. } if news.is_shared() => (Some(Kind::Trip), &[]),
        News::Tripped { .. } => (Some(Kind::Hint), &[]),
        News::Limited { .. } => (Some(Kind::Hold), &[]),
        News::Well => (None, &[Kind::Trip, Kind::Hint]),
        News::Reset => (None, &Kind::ALL),
    };
    if let Some(kind) = kind {
        let stands = (news.lasts() + kind.more()).as_millis().max(1);
        let stands = u64::try_from(stands).unwrap_or(u64::MAX);
        commands
            .cmd("SET")
            .arg(key(kind.name(), account))
            .arg(message)
            .arg("PX")
            .arg(stands)
            .ignore();
    }
    for kind in over {
        commands.cmd("DEL").arg(key(kind.name(), account)).ignore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::At;
    use crate::store::link::Trouble;

    #[test]
    fn what_is_slow_was_not_gone_and_does_not_come_back() {
        let now = |trouble| Health {
            trouble,
            since: At(0),
        };
        let (says, mut health) = watch::channel(now(Some(Trouble::Joining)));
        let mut up = is_up(&health);
        let told = [
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
        for (trouble, back) in told {
            says.send_replace(now(trouble));
            assert_eq!(comes_back(&mut up, &mut health), back, "{trouble:?}");
        }
    }
}
