//! Counting in common, over a real Redis.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::num::NonZeroU32;

use super::*;
use crate::chat::ConversationId;
use crate::fleet::joined::{Redis, joined};

fn rates(conversation: u32) -> Rates {
    let rates = Rates::per_minute(
        NonZeroU32::new(conversation).unwrap(),
        NonZeroU32::new(1_000).unwrap(),
    );
    rates.share(true);
    rates
}

fn here() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

#[tokio::test]
async fn a_limit_holds_over_two_instances_but_for_what_one_look_lets_through() {
    let redis = Redis::start(&[]);
    let links = [joined(&redis).await, joined(&redis).await];
    for within_a_look in [1, 3, 20] {
        let (both, limit) = ([rates(20), rates(20)], 20);
        let conversation = ConversationId::from_random([within_a_look as u8; 16]);
        let mut through = 0;
        for _ in 0..50 {
            for (rates, link) in both.iter().zip(&links) {
                through += (0..within_a_look)
                    .filter(|_| rates.take(conversation, here()).is_ok())
                    .count();
                messages(link, rates).await;
            }
        }
        assert!(
            (limit..=limit + within_a_look).contains(&through),
            "{through} at {within_a_look} a look"
        );
        // What was too much is owed.
        let waits = both
            .each_ref()
            .map(|rates| rates.take(conversation, here()).unwrap_err());
        let owed = Duration::from_secs(3) * u32::try_from(through - limit).unwrap();
        assert!(
            waits
                .iter()
                .any(|wait| *wait + Duration::from_secs(3) >= owed),
            "{waits:?} of {owed:?}"
        );
    }
    let keys = redis.tell(&["KEYS", "*"]);
    assert!(
        !keys.contains("192.0.2.1") && keys.contains("fleet:rate:c"),
        "{keys}"
    );
}

#[tokio::test]
async fn who_was_told_by_nobody_counts_alone_and_joins_with_what_it_knows() {
    let mut redis = Redis::start(&[]);
    let links = [joined(&redis).await, joined(&redis).await];
    let (one, other) = (rates(10), rates(10));
    let conversation = ConversationId::from_random([1; 16]);
    redis.kill();
    let took = |rates: &Rates| {
        (0..50)
            .filter(|_| rates.take(conversation, here()).is_ok())
            .count()
    };
    messages(&links[0], &one).await;
    assert_eq!(
        (took(&one), took(&other)),
        (10, 10),
        "each its local share, and no more"
    );
    messages(&links[0], &one).await;
    assert_eq!(one.untold(9), [], "nothing is saved up for Redis");
    redis.restart();
    let link = joined(&redis).await;
    assert_eq!(took(&one), 0, "an empty Redis gives nothing back");
    messages(&link, &other).await;
    assert_eq!(took(&other), 0);
}

#[tokio::test]
async fn rubbish_under_a_key_is_written_over() {
    let redis = Redis::start(&[]);
    let link = joined(&redis).await;
    let conversation = ConversationId::from_random([1; 16]);
    let name = Untold {
        of: crate::session::limits::Shared::Conversation(conversation),
        pace: crate::session::limits::Pace::per_minute(5),
        count: 1,
    };
    let key = key("rate", &name.of.name());
    for rubbish in [
        ["SET", &*key, "rubbish"].as_slice(),
        &["SET", &*key, "nan"],
        &["SET", &*key, "inf"],
        &["SET", &*key, "-1e300"],
        &["RPUSH", &*key, "rubbish"],
    ] {
        redis.tell(&["DEL", &key]);
        redis.tell(rubbish);
        let rates = rates(5);
        rates.take(conversation, here()).unwrap();
        messages(&link, &rates).await;
        let left = (0..50)
            .filter(|_| rates.take(conversation, here()).is_ok())
            .count();
        let most = if rubbish.contains(&"inf") { 0 } else { 4 };
        assert_eq!(left, most, "{rubbish:?}");
        assert!(
            redis.tell(&["PTTL", &key]).parse::<i64>().unwrap() > 0,
            "{rubbish:?}"
        );
    }
}

#[tokio::test]
async fn shares_add_up_however_often_they_are_written() {
    let redis = Redis::start(&[]);
    let link = joined(&redis).await;
    let write = async |instance: &str, nanos: u64| {
        let mut script = SPEND.prepare_invoke();
        script
            .arg(instance)
            .arg(DAYS_MS)
            .key("failsoft:fleet:spent:1:a")
            .arg(nanos);
        script.key("failsoft:rubbish").arg(7);
        link.script::<Vec<i64>>(BEHIND, &script).await.unwrap()
    };
    redis.tell(&["SET", "failsoft:rubbish", "rubbish"]);
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
    let stands = redis
        .tell(&["PTTL", "failsoft:fleet:spent:1:a"])
        .parse::<u64>()
        .unwrap();
    assert!(stands > DAYS_MS / 2 && stands <= DAYS_MS);
}
