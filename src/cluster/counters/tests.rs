//! Shared counters over a real Redis.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::num::NonZeroU32;

use super::*;
use crate::cluster::test_cluster::{RedisServer, connect};
use crate::domain::ConversationId;

fn rates(conversation: u32) -> RateLimiter {
    let rates = RateLimiter::per_minute(
        NonZeroU32::new(conversation).unwrap(),
        NonZeroU32::new(1_000).unwrap(),
    );
    rates.set_sync(true);
    rates
}

fn here() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

#[tokio::test]
async fn a_limit_holds_across_two_instances_within_one_sync() {
    let redis = RedisServer::start(&[]);
    let links = [connect(&redis).await, connect(&redis).await];
    for per_sync in [1, 3, 20] {
        let both = [rates(20), rates(20)];
        let limit = 20;
        let conversation = ConversationId::from_random([per_sync as u8; 16]);
        let mut accepted = 0;
        for _ in 0..50 {
            for (rates, link) in both.iter().zip(&links) {
                accepted += (0..per_sync)
                    .filter(|_| rates.check_message(conversation, here()).is_ok())
                    .count();
                sync_rate_limits(link, rates).await;
            }
        }
        assert!(
            (limit..=limit + per_sync).contains(&accepted),
            "{accepted} with {per_sync} per sync"
        );
        // The excess is owed.
        let waits = both
            .each_ref()
            .map(|rates| rates.check_message(conversation, here()).unwrap_err());
        let owed = Duration::from_secs(3) * u32::try_from(accepted - limit).unwrap();
        assert!(
            waits
                .iter()
                .any(|wait| *wait + Duration::from_secs(3) >= owed),
            "{waits:?} of {owed:?}"
        );
    }
    let keys = redis.command(&["KEYS", "*"]);
    assert!(
        !keys.contains("192.0.2.1") && keys.contains("fleet:rate:c"),
        "{keys}"
    );
}

#[tokio::test]
async fn without_redis_each_instance_counts_alone_and_joins_with_its_debt() {
    let mut redis = RedisServer::start(&[]);
    let links = [connect(&redis).await, connect(&redis).await];
    let one = rates(10);
    let other = rates(10);
    let conversation = ConversationId::from_random([1; 16]);
    redis.kill();
    let accepted = |rates: &RateLimiter| {
        (0..50)
            .filter(|_| rates.check_message(conversation, here()).is_ok())
            .count()
    };
    sync_rate_limits(&links[0], &one).await;
    assert_eq!(
        (accepted(&one), accepted(&other)),
        (10, 10),
        "each the local limit, and no more"
    );
    sync_rate_limits(&links[0], &one).await;
    assert_eq!(one.drain_unsynced(9), [], "nothing is buffered for Redis");
    redis.restart();
    let link = connect(&redis).await;
    assert_eq!(accepted(&one), 0, "an empty Redis gives nothing back");
    sync_rate_limits(&link, &other).await;
    assert_eq!(accepted(&other), 0);
}

#[tokio::test]
async fn invalid_values_are_overwritten() {
    let redis = RedisServer::start(&[]);
    let link = connect(&redis).await;
    let conversation = ConversationId::from_random([1; 16]);
    let name = UnsyncedUsage {
        key: crate::session::rate_limit::SharedKey::Conversation(conversation),
        quota: crate::session::rate_limit::Quota::per_minute(5),
        count: 1,
    };
    let key = redis_key("rate", &name.key.hashed_name());
    for rubbish in [
        ["SET", &*key, "rubbish"].as_slice(),
        &["SET", &*key, "nan"],
        &["SET", &*key, "inf"],
        &["SET", &*key, "-1e300"],
        &["RPUSH", &*key, "rubbish"],
    ] {
        redis.command(&["DEL", &key]);
        redis.command(rubbish);
        let rates = rates(5);
        rates.check_message(conversation, here()).unwrap();
        sync_rate_limits(&link, &rates).await;
        let left = (0..50)
            .filter(|_| rates.check_message(conversation, here()).is_ok())
            .count();
        let expected = if rubbish.contains(&"inf") { 0 } else { 4 };
        assert_eq!(left, expected, "{rubbish:?}");
        assert!(
            redis.command(&["PTTL", &key]).parse::<i64>().unwrap() > 0,
            "{rubbish:?}"
        );
    }
}

#[tokio::test]
async fn repeated_writes_of_a_share_count_once() {
    let redis = RedisServer::start(&[]);
    let link = connect(&redis).await;
    let write = async |instance: &str, nanos: u64| {
        let mut script = SPEND_SCRIPT.prepare_invoke();
        script
            .arg(instance)
            .arg(SPEND_TTL_MS)
            .key("failsoft:fleet:spent:1:a")
            .arg(nanos);
        script.key("failsoft:rubbish").arg(7);
        link.script::<Vec<i64>>(BACKGROUND_TIMEOUT, &script)
            .await
            .unwrap()
    };
    redis.command(&["SET", "failsoft:rubbish", "rubbish"]);
    for (instance, nanos, sum) in [
        ("a", 5, 5),
        ("a", 5, 5),
        ("b", 7, 12),
        ("a", 1_000_000_000_000, 1_000_000_000_007),
        ("a", 6, 13),
        ("b", 0, 6),
    ] {
        assert_eq!(
            write(instance, nanos).await,
            [sum, -1],
            "{instance} {nanos}"
        );
    }
    let ttl_ms = redis
        .command(&["PTTL", "failsoft:fleet:spent:1:a"])
        .parse::<u64>()
        .unwrap();
    assert!(ttl_ms > SPEND_TTL_MS / 2 && ttl_ms <= SPEND_TTL_MS);
}
