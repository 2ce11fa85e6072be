//! Two instances over a real Redis, each with its own eyes: what one of them tells, the other does not.

use super::*;
use crate::provider::paused::settled;
use crate::store::link::{Link, PREFIX, SIGN};
use crate::store::server::Redis;

/// Longer than anything takes, unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// While so long nothing is told that is not to be: what was left to another is looked at again several times in it.
const QUIET: Duration = Duration::from_millis(500);

async fn joined(redis: &Redis, name: &str) -> Watched {
    let link = Link::open(&Secret::new(redis.url()), name, || 0.5).unwrap();
    let mut health = link.health();
    tokio::time::timeout(PATIENCE, health.wait_for(|health| health.is_up()))
        .await
        .unwrap()
        .unwrap();
    among(Some(Claims::new(link, name.into())), &[]).await
}

impl Watched {
    /// Looks for a while, and gives what was told.
    async fn tells(&mut self) -> Vec<&'static str> {
        let until = std::time::Instant::now() + QUIET;
        let mut told = Vec::new();
        while std::time::Instant::now() < until {
            self.watcher.look().await;
            let sink = &self.watcher.served[0].sink;
            told.extend(std::iter::from_fn(|| sink.drawn()).map(|alert| alert.event));
            tokio::task::yield_now().await;
        }
        told
    }

    fn outage(&self, runs: bool) {
        let (mode, incident) = if runs {
            (Mode::Outage, Some("inc-1"))
        } else {
            (Mode::Normal, None)
        };
        self.mode(mode, incident);
    }
}

const NOTHING: [&str; 0] = [];

/// Two of which the first told of an outage that both see.
async fn told_by_the_first(redis: &Redis) -> (Watched, Watched) {
    let (mut one, mut other) = (joined(redis, "one").await, joined(redis, "other").await);
    one.outage(true);
    assert_eq!(one.tells().await, ["mode_changed"]);
    other.outage(true);
    assert_eq!(other.tells().await, NOTHING);
    (one, other)
}

#[actix_rt::test]
async fn one_alert_and_one_recovery_for_all() {
    let redis = Redis::start(&[]);
    let (mut one, mut other) = told_by_the_first(&redis).await;
    // Who did not tell it finds its end first.
    other.outage(false);
    assert_eq!(other.tells().await, NOTHING);
    one.outage(false);
    assert_eq!(one.tells().await, ["mode_changed"]);
    assert_eq!(other.tells().await, NOTHING);
}

#[actix_rt::test]
async fn who_outlives_the_one_that_told_tells_the_end_and_no_second_alert() {
    let redis = Redis::start(&[]);
    let (one, mut other) = told_by_the_first(&redis).await;
    drop(one);
    // Its link's keeper ends first: then nobody renews its sign.
    settled().await;
    redis.tell(&["DEL", &format!("{PREFIX}{SIGN}one")]);
    assert_eq!(other.tells().await, NOTHING);
    other.outage(false);
    assert_eq!(other.tells().await, ["mode_changed"]);
}

#[actix_rt::test]
async fn what_goes_on_here_is_told_when_the_one_that_told_it_is_well() {
    let redis = Redis::start(&[]);
    let (mut one, mut other) = told_by_the_first(&redis).await;
    one.outage(false);
    assert_eq!(one.tells().await, ["mode_changed"]);
    let told = async {
        loop {
            let told = other.tells().await;
            if !told.is_empty() {
                return told;
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(PATIENCE, told).await.unwrap(),
        ["mode_changed"]
    );
    other.outage(false);
    assert_eq!(other.tells().await, ["mode_changed"]);
    assert_eq!(one.tells().await, NOTHING);
}

#[actix_rt::test]
async fn the_store_is_each_ones_own_and_without_redis_all_is() {
    let mut redis = Redis::start(&[]);
    let (mut one, mut other) = (joined(&redis, "one").await, joined(&redis, "other").await);
    for watched in [&mut one, &mut other] {
        watched.store.set(Trouble::Fails);
        assert_eq!(watched.tells().await, ["store_failed"]);
        watched.store.set(Trouble::None);
        assert_eq!(watched.tells().await, ["store_recovered"]);
    }
    redis.kill();
    for watched in [&mut one, &mut other] {
        watched.outage(true);
        assert_eq!(watched.tells().await, ["mode_changed"]);
    }
    redis.restart();
    // They agree on who holds it, and one of them tells that it is over.
    let mut health = Vec::new();
    for watched in [&mut one, &mut other] {
        for _ in 0..10 {
            health.extend(watched.tells().await);
        }
    }
    assert_eq!(health, NOTHING);
    let mut over = Vec::new();
    for watched in [&mut one, &mut other] {
        watched.outage(false);
        over.extend(watched.tells().await);
    }
    assert_eq!(over, ["mode_changed"]);
}
