//! Two instances over a real Redis, each with its own view of the state: one of them sends.

use super::*;
use crate::provider::paused_system::run_until_idle;
use crate::store::redis::client::{HEARTBEAT_KEY, PREFIX, RedisClient};
use crate::store::server::RedisServer;

/// Longer than anything takes unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long an instance is polled for its alerts. Deferred alerts are checked several times in it.
const QUIET: Duration = Duration::from_millis(500);

async fn connected(redis: &RedisServer, name: &str) -> Watched {
    let link = RedisClient::open(&Secret::new(redis.url()), name, || 0.5).unwrap();
    let mut health = link.health();
    tokio::time::timeout(PATIENCE, health.wait_for(|health| health.is_up()))
        .await
        .unwrap()
        .unwrap();
    let mut claims = AlertClaims::new(link, name.into());
    claims.recovery_ttl = Duration::from_secs(3);
    let mut watched = among(Some(claims), &[]).await;
    watched.watcher.dedup.recheck_interval = Duration::from_millis(50);
    watched
}

impl Watched {
    async fn sent_events(&mut self) -> Vec<&'static str> {
        let until = std::time::Instant::now() + QUIET;
        let mut events = Vec::new();
        while std::time::Instant::now() < until {
            self.watcher.poll().await;
            let sink = &self.watcher.running[0].sink;
            events.extend(std::iter::from_fn(|| sink.pop_delivered()).map(|alert| alert.event));
            tokio::task::yield_now().await;
        }
        events
    }

    fn outage(&self, is_active: bool) {
        let (mode, incident) = if is_active {
            (ServiceMode::Outage, Some("inc-1"))
        } else {
            (ServiceMode::Normal, None)
        };
        self.mode(mode, incident);
    }
}

const NOTHING: [&str; 0] = [];

/// Two instances that both see an outage, which the first one sent.
async fn sent_by_the_first(redis: &RedisServer) -> (Watched, Watched) {
    let mut one = connected(redis, "one").await;
    let mut other = connected(redis, "other").await;
    one.outage(true);
    assert_eq!(one.sent_events().await, ["mode_changed"]);
    other.outage(true);
    assert_eq!(other.sent_events().await, NOTHING);
    (one, other)
}

#[actix_rt::test]
async fn an_outage_yields_one_alert_and_one_recovery() {
    let redis = RedisServer::start(&[]);
    let (mut one, mut other) = sent_by_the_first(&redis).await;
    // The instance that did not send the alert sees the recovery first.
    other.outage(false);
    assert_eq!(other.sent_events().await, NOTHING);
    one.outage(false);
    assert_eq!(one.sent_events().await, ["mode_changed"]);
    assert_eq!(other.sent_events().await, NOTHING);
}

#[actix_rt::test]
async fn a_survivor_sends_the_recovery_and_no_second_alert() {
    let redis = RedisServer::start(&[]);
    let (one, mut other) = sent_by_the_first(&redis).await;
    drop(one);
    // The connection monitor must end first, or it would renew the heartbeat.
    run_until_idle().await;
    redis.command(&["DEL", &format!("{PREFIX}{HEARTBEAT_KEY}one")]);
    assert_eq!(other.sent_events().await, NOTHING);
    other.outage(false);
    assert_eq!(other.sent_events().await, ["mode_changed"]);
}

#[actix_rt::test]
async fn an_outage_that_lasts_at_one_instance_is_sent_when_the_owner_recovers() {
    let redis = RedisServer::start(&[]);
    let (mut one, mut other) = sent_by_the_first(&redis).await;
    one.outage(false);
    assert_eq!(one.sent_events().await, ["mode_changed"]);
    let events = async {
        loop {
            let events = other.sent_events().await;
            if !events.is_empty() {
                return events;
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(PATIENCE, events).await.unwrap(),
        ["mode_changed"]
    );
    other.outage(false);
    assert_eq!(other.sent_events().await, ["mode_changed"]);
    assert_eq!(one.sent_events().await, NOTHING);
}

#[actix_rt::test]
async fn store_failures_and_everything_without_redis_are_sent_by_each_instance() {
    let mut redis = RedisServer::start(&[]);
    let mut one = connected(&redis, "one").await;
    let mut other = connected(&redis, "other").await;
    for watched in [&mut one, &mut other] {
        watched.store.set_fault(StoreFault::Failing);
        assert_eq!(watched.sent_events().await, ["store_failed"]);
        watched.store.set_fault(StoreFault::None);
        assert_eq!(watched.sent_events().await, ["store_recovered"]);
    }
    redis.kill();
    for watched in [&mut one, &mut other] {
        watched.outage(true);
        assert_eq!(watched.sent_events().await, ["mode_changed"]);
    }
    redis.restart();
    // They agree on the owner again, and one of them sends the recovery.
    let mut repeated = Vec::new();
    for watched in [&mut one, &mut other] {
        for _ in 0..10 {
            repeated.extend(watched.sent_events().await);
        }
    }
    assert_eq!(repeated, NOTHING);
    let mut recoveries = Vec::new();
    for watched in [&mut one, &mut other] {
        watched.outage(false);
        recoveries.extend(watched.sent_events().await);
    }
    assert_eq!(recoveries, ["mode_changed"]);
}
