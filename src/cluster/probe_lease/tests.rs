//! Probe leases over a real Redis.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::cluster::test_cluster::{RedisServer, connect};

const LIMIT: Duration = Duration::from_secs(5);

fn leases(link: &RedisClient) -> ProbeLeases {
    ProbeLeases::new(link.clone(), "0123456789abcdef", || {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(1);
        COUNT.fetch_add(1, Ordering::Relaxed)
    })
}

async fn acquire(leases: &ProbeLeases) -> Option<Box<dyn ProbeLease>> {
    match leases.request_lease(LIMIT).await {
        ProbeLeaseResult::Granted(held) => Some(held),
        ProbeLeaseResult::HeldElsewhere(_) => None,
    }
}

async fn wait(leases: &ProbeLeases) -> Duration {
    match leases.request_lease(LIMIT).await {
        ProbeLeaseResult::Granted(_) => Duration::ZERO,
        ProbeLeaseResult::HeldElsewhere(rest) => rest,
    }
}

fn left(redis: &RedisServer) -> i64 {
    redis
        .command(&["PTTL", "failsoft:fleet:probe:0123456789abcdef"])
        .parse()
        .unwrap()
}

/// Waits until a release has reached Redis.
async fn wait_until(condition: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_instance_probes_and_the_others_wait_for_the_release() {
    let redis = RedisServer::start(&[]);
    let links = [connect(&redis).await, connect(&redis).await];
    let [one, other] = [leases(&links[0]), leases(&links[1])];
    let held = acquire(&one).await.unwrap();
    let rest = wait(&other).await;
    assert!(
        rest > LIMIT - LEASE_MARGIN && rest <= LIMIT + LEASE_MARGIN,
        "{rest:?}"
    );
    assert!(
        wait(&one).await > Duration::ZERO,
        "the same instance does not probe twice"
    );
    // The probe failed: the next one is due in twenty seconds.
    held.release(Duration::from_secs(20));
    wait_until(|| left(&redis) > 15_000).await;
    assert!(wait(&other).await > Duration::from_secs(15));
    redis.command(&["DEL", "failsoft:fleet:probe:0123456789abcdef"]);
    let held = acquire(&other).await.unwrap();
    held.release(Duration::ZERO);
    wait_until(|| left(&redis) == -2).await;
    assert!(acquire(&one).await.is_some());
}

#[tokio::test]
async fn a_lease_expires_if_its_holder_dies() {
    let redis = RedisServer::start(&[]);
    let link = connect(&redis).await;
    let one = leases(&link);
    drop(acquire(&one).await);
    let ends = left(&redis);
    assert!(ends > 0 && ends <= 6_000, "{ends}");
    // As if the TTL had passed. The old holder must not release the new lease.
    let late = RedisProbeLease {
        redis: link.clone(),
        key: one.key.clone(),
        token: "of before".into(),
    };
    redis.command(&["DEL", &one.key]);
    let _held = acquire(&one).await.unwrap();
    let mut script = RELEASE_SCRIPT.key(&late.key);
    script.arg(&late.token).arg(0);
    assert_eq!(link.script::<i64>(BACKGROUND_TIMEOUT, &script).await, Ok(0));
    assert!(wait(&one).await > Duration::ZERO);
}

#[tokio::test]
async fn an_invalid_key_does_not_block_probes_for_ever() {
    let redis = RedisServer::start(&[]);
    let link = connect(&redis).await;
    let one = leases(&link);
    for command in [
        ["SET", &*one.key, "rubbish"].as_slice(),
        &["RPUSH", &*one.key, "rubbish"],
    ] {
        redis.command(&["DEL", &one.key]);
        redis.command(command);
        assert!(acquire(&one).await.is_some());
    }
    redis.command(&["PEXPIRE", &one.key, "99999999999"]);
    assert_eq!(wait(&one).await, MAX_WAIT);
}

#[tokio::test]
async fn without_redis_each_instance_probes_at_once() {
    let mut redis = RedisServer::start(&[]);
    let links = [connect(&redis).await, connect(&redis).await];
    redis.pause();
    let started = std::time::Instant::now();
    let one = leases(&links[0]);
    let other = leases(&links[1]);
    assert!(acquire(&one).await.is_some() && acquire(&other).await.is_some());
    assert!(
        started.elapsed() < 10 * HOT_PATH_TIMEOUT,
        "{:?}",
        started.elapsed()
    );
    redis.resume();
    redis.kill();
    assert!(acquire(&one).await.is_some() && acquire(&other).await.is_some());
}
