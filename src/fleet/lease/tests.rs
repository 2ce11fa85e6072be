//! Leases over a real Redis.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::fleet::joined::{Redis, joined};

const LIMIT: Duration = Duration::from_secs(5);

fn leases(link: &Link) -> Leases {
    Leases::new(link.clone(), "0123456789abcdef", || {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(1);
        COUNT.fetch_add(1, Ordering::Relaxed)
    })
}

async fn go(leases: &Leases) -> Option<Box<dyn Held>> {
    match leases.ask(LIMIT).await {
        Leave::Go(held) => Some(held),
        Leave::Wait(_) => None,
    }
}

async fn wait(leases: &Leases) -> Duration {
    match leases.ask(LIMIT).await {
        Leave::Go(_) => Duration::ZERO,
        Leave::Wait(rest) => rest,
    }
}

fn left(redis: &Redis) -> i64 {
    redis
        .tell(&["PTTL", "failsoft:fleet:probe:0123456789abcdef"])
        .parse()
        .unwrap()
}

/// Until what was given back has arrived.
async fn until(what: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_probes_and_the_others_wait_until_it_is_given_back() {
    let redis = Redis::start(&[]);
    let links = [joined(&redis).await, joined(&redis).await];
    let [one, other] = [leases(&links[0]), leases(&links[1])];
    let held = go(&one).await.unwrap();
    let rest = wait(&other).await;
    assert!(rest > LIMIT - MARGIN && rest <= LIMIT + MARGIN, "{rest:?}");
    assert!(
        wait(&one).await > Duration::ZERO,
        "nor does the same instance twice"
    );
    // It failed: nobody need try for twenty seconds.
    held.give_back(Duration::from_secs(20));
    until(|| left(&redis) > 15_000).await;
    assert!(wait(&other).await > Duration::from_secs(15));
    redis.tell(&["DEL", "failsoft:fleet:probe:0123456789abcdef"]);
    let held = go(&other).await.unwrap();
    held.give_back(Duration::ZERO);
    until(|| left(&redis) == -2).await;
    assert!(go(&one).await.is_some());
}

#[tokio::test]
async fn a_holder_that_dies_frees_it_by_the_end_of_its_time() {
    let redis = Redis::start(&[]);
    let link = joined(&redis).await;
    let one = leases(&link);
    drop(go(&one).await);
    let ends = left(&redis);
    assert!(ends > 0 && ends <= 6_000, "{ends}");
    // As if that time had passed; and who held it gives back no lease of another's.
    let late = Lease {
        link: link.clone(),
        key: one.key.clone(),
        token: "of before".into(),
    };
    redis.tell(&["DEL", &one.key]);
    let _held = go(&one).await.unwrap();
    let mut script = GIVE_BACK.key(&late.key);
    script.arg(&late.token).arg(0);
    assert_eq!(link.script::<i64>(BEHIND, &script).await, Ok(0));
    assert!(wait(&one).await > Duration::ZERO);
}

#[tokio::test]
async fn rubbish_under_the_key_holds_up_nobody_for_ever() {
    let redis = Redis::start(&[]);
    let link = joined(&redis).await;
    let one = leases(&link);
    for command in [
        ["SET", &*one.key, "rubbish"].as_slice(),
        &["RPUSH", &*one.key, "rubbish"],
    ] {
        redis.tell(&["DEL", &one.key]);
        redis.tell(command);
        assert!(go(&one).await.is_some());
    }
    redis.tell(&["PEXPIRE", &one.key, "99999999999"]);
    assert_eq!(wait(&one).await, LONGEST_WAIT);
}

#[tokio::test]
async fn with_redis_gone_each_probes_alone_at_once() {
    let mut redis = Redis::start(&[]);
    let links = [joined(&redis).await, joined(&redis).await];
    redis.pause();
    let asked = std::time::Instant::now();
    let (one, other) = (leases(&links[0]), leases(&links[1]));
    assert!(go(&one).await.is_some() && go(&other).await.is_some());
    assert!(asked.elapsed() < 10 * HOT, "{:?}", asked.elapsed());
    redis.go_on();
    redis.kill();
    assert!(go(&one).await.is_some() && go(&other).await.is_some());
}
