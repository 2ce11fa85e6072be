//! Publishes events of this instance's providers to its peers, and receives theirs.
//!
//! One task per provider publishes, all over one connection. An event is also stored under a key
//! for as long as it matters. Instances that join read the keys, and all read them again from time
//! to time in case a message was lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{RedisResult, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Cluster;
use super::event_keys::{EventKind, store_current};
use super::message::ClusterMessage;
use super::peer_state::{MessageDedup, PeerState, StaggeredRecovery};
use crate::provider::actor::ApplyPeerEvent;
use crate::provider::event::ProviderEvent;
use crate::provider::handle::Provider;
use crate::store::redis::client::{BACKGROUND_TIMEOUT, PREFIX, RedisHealth};
use crate::turn::service::TurnService;

const CHANNEL: &str = "fleet:news";

/// The interval at which the keys are read again, ±20 %.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);

/// Upper bound of the random delay before the keys are read after a reconnect.
const JOIN_JITTER: Duration = Duration::from_secs(1);

/// Upper bound of the random delay, after `JOIN_JITTER`, before events are published again after a
/// reconnect. The first instance to do so spares the others.
const PUBLISH_JITTER: Duration = Duration::from_secs(1);

pub struct EventBus {
    cluster: Cluster,
    service: Arc<TurnService>,
    peer_state: Mutex<PeerState>,
    next_number: AtomicU64,
}

impl EventBus {
    pub fn start(cluster: Cluster, service: Arc<TurnService>) {
        let bus = Arc::new(Self {
            cluster,
            service,
            peer_state: Mutex::default(),
            next_number: AtomicU64::new(1),
        });
        actix::spawn(Arc::clone(&bus).receive());
        actix::spawn(bus.publish_all());
    }

    fn providers(&self) -> Arc<[Arc<Provider>]> {
        Arc::clone(&self.service.config_watch.borrow().providers)
    }

    /// Starts a publishing task per provider, also for those added by a reload.
    async fn publish_all(self: Arc<Self>) {
        let mut published = self.service.config_watch.clone();
        let mut started: Vec<Weak<Provider>> = Vec::new();
        loop {
            let providers = Arc::clone(&published.borrow_and_update().providers);
            started.retain(|provider| provider.strong_count() > 0);
            for provider in providers.iter() {
                let provider_ptr = Arc::as_ptr(provider);
                if started.iter().all(|other| other.as_ptr() != provider_ptr) {
                    started.push(Arc::downgrade(provider));
                    let account = Arc::clone(&provider.account_id);
                    let events = provider.events.clone();
                    actix::spawn(Arc::clone(&self).publish_account(account, events));
                }
            }
            drop(providers);
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    /// Publishes the events of one account as they occur, and the last one again after a reconnect
    /// if it still matters.
    async fn publish_account(
        self: Arc<Self>,
        account: Arc<str>,
        mut events: watch::Receiver<Option<ProviderEvent>>,
    ) {
        let mut health = self.cluster.redis.health();
        let mut up = is_up(&health);
        let mut last: Option<(ProviderEvent, Instant)> = None;
        loop {
            tokio::select! {
                changed = events.changed() => {
                    if changed.is_err() {
                        // The provider was removed.
                        return;
                    }
                    let event = *events.borrow_and_update();
                    last = event.map(|event| (event, Instant::now()));
                    if let Some(event) = event {
                        self.publish(&account, event).await;
                    }
                }
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let has_reconnected = reconnected(&mut up, &mut health);
                    if let Some((event, at)) = last.filter(|_| has_reconnected) {
                        sleep(JOIN_JITTER + PUBLISH_JITTER.mul_f64((self.cluster.random_unit)())).await;
                        if let Some(event) = event.remaining_after(at.elapsed()) {
                            self.publish(&account, event).await;
                        }
                    }
                }
            }
        }
    }

    async fn publish(&self, account: &str, event: ProviderEvent) {
        let now = self.cluster.clock.now();
        if self.peer_state.lock().already_known(account, event, now) {
            return;
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let message = ClusterMessage {
            sender: self.cluster.instance_id.to_string(),
            number,
            account: account.to_owned(),
            event,
        }
        .encode();
        // Store before publishing: a peer that misses the message finds the key.
        let mut commands = redis::pipe();
        store_current(&mut commands, account, event, &message);
        commands
            .cmd("PUBLISH")
            .arg(format!("{PREFIX}{CHANNEL}"))
            .arg(&message)
            .ignore();
        let redis = &self.cluster.redis;
        match redis.pipeline::<()>(BACKGROUND_TIMEOUT, &commands).await {
            Ok(()) => self.peer_state.lock().record(account, event, now),
            // Peers find out by their own calls; what still matters is repeated after a reconnect.
            Err(error) => tracing::debug!(%error, "failed to publish provider event"),
        }
    }

    /// Receives events of peers, and loads the stored ones after each reconnect.
    async fn receive(self: Arc<Self>) {
        let mut messages = self.cluster.redis.subscribe(CHANNEL);
        let mut health = self.cluster.redis.health();
        let mut dedup = MessageDedup::new(&self.cluster.instance_id);
        let mut up = is_up(&health);
        let mut recovery = StaggeredRecovery::default();
        let mut reload_at = Instant::now();
        let mut has_joined = false;
        loop {
            let recovery_in = recovery
                .next_due()
                .map(|at| at.saturating_sub(self.cluster.clock.now()));
            let wake = recovery_in.map_or(reload_at, |wait| reload_at.min(Instant::now() + wait));
            tokio::select! {
                message = messages.recv() => match message {
                    Ok(bytes) => {
                        if let Some(ClusterMessage { account, event: news, .. }) =
                            ClusterMessage::decode(&bytes).filter(|message| dedup.is_new(&message.sender, message.number))
                        {
                            self.on_event(&account, news, &mut recovery).await;
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
                    if reconnected(&mut up, &mut health) {
                        // The first connect needs no jitter: no peer was connected with it.
                        let wait = if has_joined { JOIN_JITTER.mul_f64((self.cluster.random_unit)()) } else { Duration::ZERO };
                        reload_at = Instant::now() + wait;
                    }
                }
                // Due recoveries are applied, and the keys are read when their time has come.
                () = sleep_until(wake) => {
                    for account in recovery.drain_due(self.cluster.clock.now()) {
                        self.dispatch(&account, ProviderEvent::Recovered);
                    }
                    if reload_at <= Instant::now() {
                        has_joined |= is_up(&health) && self.load_current().await;
                        reload_at = Instant::now() + RELOAD_INTERVAL.mul_f64(0.8 + 0.4 * (self.cluster.random_unit)());
                    }
                }
            }
        }
    }

    async fn on_event(
        &self,
        account: &str,
        event: ProviderEvent,
        recovery: &mut StaggeredRecovery,
    ) {
        let now = self.cluster.clock.now();
        self.peer_state.lock().record(account, event, now);
        match event {
            ProviderEvent::Recovered => recovery.schedule(
                account,
                self.count_instances().await,
                now,
                (self.cluster.random_unit)(),
            ),
            ProviderEvent::Opened { .. }
            | ProviderEvent::RateLimited { .. }
            | ProviderEvent::Reset => {
                recovery.cancel(account);
                self.dispatch(account, event);
            }
        }
    }

    /// Loads the stored events. Returns `false` if Redis is unavailable.
    async fn load_current(&self) -> bool {
        let providers = self.providers();
        let mut commands = redis::pipe();
        for provider in providers.iter() {
            for kind in EventKind::ALL {
                let key = kind.key(&provider.account_id);
                commands.cmd("GET").arg(&key).cmd("PTTL").arg(&key);
            }
        }
        // A key of another type must not fail the whole pipeline.
        commands.ignore_errors();
        let Ok(replies) = self
            .cluster
            .redis
            .pipeline::<Vec<RedisResult<Value>>>(BACKGROUND_TIMEOUT, &commands)
            .await
        else {
            return false;
        };
        let keys = providers
            .iter()
            .flat_map(|provider| EventKind::ALL.map(|kind| (provider, kind)));
        let mut replies = replies.into_iter();
        for (provider, kind) in keys {
            let (Some(Ok(text)), Some(Ok(Value::Int(left)))) = (replies.next(), replies.next())
            else {
                continue;
            };
            let message = redis::from_redis_value::<Vec<u8>>(text)
                .ok()
                .and_then(|text| ClusterMessage::decode(&text));
            let is_own = |message: &ClusterMessage| *message.sender == *self.cluster.instance_id;
            let account = &*provider.account_id;
            let Some(message) =
                message.filter(|message| message.account == *account && !is_own(message))
            else {
                continue;
            };
            // The message has the original duration; the key's TTL has what is left of it.
            let left = Duration::from_millis(left.max(0).unsigned_abs());
            let event = message
                .event
                .truncated_to(left.saturating_sub(kind.extra_ttl()));
            let now = self.cluster.clock.now();
            let mut peer_state = self.peer_state.lock();
            if !peer_state.already_known(account, event, now) {
                peer_state.record(account, event, now);
                self.dispatch(account, event);
            }
        }
        true
    }

    /// The number of instances. 1 if Redis is unavailable.
    async fn count_instances(&self) -> u32 {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(format!("{PREFIX}{CHANNEL}"));
        let redis = &self.cluster.redis;
        let reply = redis.command::<Vec<(String, u32)>>(BACKGROUND_TIMEOUT, &command);
        match timeout(Duration::from_millis(200), reply).await {
            Ok(Ok(counts)) => counts.first().map_or(1, |(_, count)| (*count).max(1)),
            _ => 1,
        }
    }

    /// Sends an event to the actors of all providers of this account. An actor that is restarting
    /// or overloaded misses it and finds out by its own calls.
    fn dispatch(&self, account: &str, event: ProviderEvent) {
        for provider in self.providers().iter() {
            if *provider.account_id == *account
                && let Some(actor) = &*provider.actor.borrow()
            {
                let _ = actor.try_send(ApplyPeerEvent(event));
            }
        }
    }
}

fn is_up(health: &watch::Receiver<RedisHealth>) -> bool {
    health.borrow().is_up()
}

/// Returns `true` if Redis has become available again. Slow does not count as unavailable, nor
/// becoming fast again as a reconnect.
fn reconnected(up: &mut bool, health: &mut watch::Receiver<RedisHealth>) -> bool {
    let is_up_now = health.borrow_and_update().is_up();
    !std::mem::replace(up, is_up_now) && is_up_now
}

#[cfg(test)]
mod tests;
