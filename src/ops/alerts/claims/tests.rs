//! Claims over a real Redis.

use super::*;
use crate::provider::paused::settled;
use crate::settings::Secret;
use crate::store::server::Redis;

async fn connected(redis: &Redis, name: &str) -> Claims {
    let link = Link::open(&Secret::new(redis.url()), name, || 0.5).unwrap();
    let mut health = link.health();
    let up = health.wait_for(|health| health.is_up());
    tokio::time::timeout(Duration::from_secs(20), up)
        .await
        .unwrap()
        .unwrap();
    Claims::new(link, name.into())
}

fn matter(level: Level, staged: bool) -> Matter {
    Matter {
        cause: Cause::Provider("a".into()),
        level,
        staged,
    }
}

async fn claim(claims: &Claims, sinks: &str, alert: &Matter) -> Verdict {
    claims.alert(sinks, alert).await.unwrap()
}

/// Simulates the death of an instance: nobody renews its heartbeat.
async fn kill_instance(redis: &Redis, claims: Claims, name: &str) {
    drop(claims);
    // The connection monitor must end first, or it would renew the key.
    settled().await;
    redis.tell(&["DEL", &format!("{PREFIX}{SIGN}{name}")]);
}

#[tokio::test]
async fn one_instance_sends_and_the_others_defer_to_it() {
    let redis = Redis::start(&[]);
    let one = connected(&redis, "one").await;
    let other = connected(&redis, "other").await;
    let down = matter(1, false);
    assert_eq!(claim(&one, "s", &down).await, Verdict::Tell);
    assert_eq!(claim(&other, "s", &down).await, Verdict::Leave);
    assert_eq!(
        claim(&one, "s", &down).await,
        Verdict::Tell,
        "the owner may send again"
    );
    // Separate claims: another severity, a drill, other sinks.
    assert_eq!(claim(&other, "s", &matter(2, false)).await, Verdict::Tell);
    assert_eq!(claim(&other, "s", &matter(1, true)).await, Verdict::Tell);
    assert_eq!(claim(&other, "t", &down).await, Verdict::Tell);
    assert_eq!(
        other.end("s", &down, &[]).await,
        Verdict::Leave,
        "the recovery is the owner's too"
    );
    assert_eq!(one.end("s", &down, &[]).await, Verdict::Tell);
    assert_eq!(
        other.end("s", &down, &[]).await,
        Verdict::Leave,
        "also when noticed later"
    );
    let left: u64 = redis.tell(&["PTTL", &key("s", &down)]).parse().unwrap();
    assert!(left > 0 && left <= ms(OUTLASTS), "{left}");
    let interval = Duration::from_secs(300);
    assert_eq!(one.sum("s", &down, interval).await, Verdict::Tell);
    assert_eq!(other.sum("s", &down, interval).await, Verdict::Leave);
}

#[tokio::test]
async fn alerts_of_a_dead_instance_are_taken_over_once() {
    let redis = Redis::start(&[]);
    let down = matter(1, false);
    for is_sent in [false, true] {
        for is_over in [false, true] {
            let one = connected(&redis, "one").await;
            let other = connected(&redis, "other").await;
            redis.tell(&["DEL", &key("s", &down)]);
            claim(&one, "s", &down).await;
            one.renew("s", &BTreeMap::from([(down.clone(), is_sent)]))
                .await;
            let third = connected(&redis, "third").await;
            third
                .renew("s", &BTreeMap::from([(down.clone(), false)]))
                .await;
            assert_eq!(
                claim(&third, "s", &down).await,
                Verdict::Leave,
                "a renewal takes no claim away"
            );
            kill_instance(&redis, one, "one").await;
            let taken = if is_over {
                other.end("s", &down, &[]).await
            } else {
                claim(&other, "s", &down).await
            };
            // An unsent alert is sent; a sent one is taken over.
            assert_eq!(
                taken,
                if is_sent {
                    Verdict::TakeOver
                } else {
                    Verdict::Tell
                },
                "sent {is_sent}, over {is_over}"
            );
            let then = if is_over {
                third.end("s", &down, &[]).await
            } else {
                claim(&third, "s", &down).await
            };
            assert_eq!(then, Verdict::Leave, "only one instance takes over");
        }
    }
}

#[tokio::test]
async fn without_redis_every_instance_sends_and_invalid_values_are_overwritten() {
    let mut redis = Redis::start(&[]);
    let one = connected(&redis, "one").await;
    let other = connected(&redis, "other").await;
    let down = matter(1, false);
    redis.tell(&["LPUSH", &key("s", &down), "rubbish"]);
    assert_eq!(one.end("s", &down, &[]).await, Verdict::Tell);
    assert_eq!(claim(&one, "s", &down).await, Verdict::Tell);
    assert_eq!(claim(&other, "s", &down).await, Verdict::Leave);
    redis.kill();
    for claims in [&one, &other] {
        assert_eq!(claims.alert("s", &down).await, None);
        assert_eq!(
            claims.sum("s", &down, Duration::from_secs(1)).await,
            Verdict::Tell
        );
        assert_eq!(claims.end("s", &down, &[]).await, Verdict::Tell);
    }
}
