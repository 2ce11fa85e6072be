//! Claims over a real Redis.

use super::*;
use crate::provider::paused::settled;
use crate::settings::Secret;
use crate::store::server::Redis;

async fn joined(redis: &Redis, name: &str) -> Claims {
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

/// What comes of asking; Redis says.
async fn alert(claims: &Claims, sinks: &str, matter: &Matter) -> Verdict {
    claims.alert(sinks, matter).await.unwrap()
}

/// It dies: nobody renews its sign of life.
async fn dies(redis: &Redis, claims: Claims, name: &str) {
    drop(claims);
    // Its link's keeper ends first.
    settled().await;
    redis.tell(&["DEL", &format!("{PREFIX}{SIGN}{name}")]);
}

#[tokio::test]
async fn one_tells_and_the_others_leave_it_to_that_one() {
    let redis = Redis::start(&[]);
    let (one, other) = (joined(&redis, "one").await, joined(&redis, "other").await);
    let down = matter(1, false);
    assert_eq!(alert(&one, "s", &down).await, Verdict::Tell);
    assert_eq!(alert(&other, "s", &down).await, Verdict::Leave);
    assert_eq!(
        alert(&one, "s", &down).await,
        Verdict::Tell,
        "told again by who told it"
    );
    // What differs is claimed apart: a worse level, a drill's doing, other sinks.
    assert_eq!(alert(&other, "s", &matter(2, false)).await, Verdict::Tell);
    assert_eq!(alert(&other, "s", &matter(1, true)).await, Verdict::Tell);
    assert_eq!(alert(&other, "t", &down).await, Verdict::Tell);
    assert_eq!(
        other.end("s", &down, &[]).await,
        Verdict::Leave,
        "its end too"
    );
    assert_eq!(one.end("s", &down, &[]).await, Verdict::Tell);
    assert_eq!(
        other.end("s", &down, &[]).await,
        Verdict::Leave,
        "who finds it out later"
    );
    let left: u64 = redis.tell(&["PTTL", &key("s", &down)]).parse().unwrap();
    assert!(left > 0 && left <= ms(OUTLASTS), "{left}");
    let interval = Duration::from_secs(300);
    assert_eq!(one.sum("s", &down, interval).await, Verdict::Tell);
    assert_eq!(other.sum("s", &down, interval).await, Verdict::Leave);
}

#[tokio::test]
async fn what_one_that_is_gone_held_is_the_others() {
    let redis = Redis::start(&[]);
    let down = matter(1, false);
    for told in [false, true] {
        for ends in [false, true] {
            let (one, other) = (joined(&redis, "one").await, joined(&redis, "other").await);
            redis.tell(&["DEL", &key("s", &down)]);
            alert(&one, "s", &down).await;
            one.renew("s", &BTreeMap::from([(down.clone(), told)]))
                .await;
            let third = joined(&redis, "third").await;
            third
                .renew("s", &BTreeMap::from([(down.clone(), false)]))
                .await;
            assert_eq!(
                alert(&third, "s", &down).await,
                Verdict::Leave,
                "no renewal takes it"
            );
            dies(&redis, one, "one").await;
            let taken = if ends {
                other.end("s", &down, &[]).await
            } else {
                alert(&other, "s", &down).await
            };
            // What reached nobody is told; what did is gone on with.
            assert_eq!(
                taken,
                if told {
                    Verdict::TakeOver
                } else {
                    Verdict::Tell
                },
                "{told}, {ends}"
            );
            let then = if ends {
                third.end("s", &down, &[]).await
            } else {
                alert(&third, "s", &down).await
            };
            assert_eq!(then, Verdict::Leave, "it is taken by one");
        }
    }
}

#[tokio::test]
async fn without_redis_each_tells_its_own_and_rubbish_is_nobodys() {
    let mut redis = Redis::start(&[]);
    let (one, other) = (joined(&redis, "one").await, joined(&redis, "other").await);
    let down = matter(1, false);
    redis.tell(&["LPUSH", &key("s", &down), "rubbish"]);
    assert_eq!(one.end("s", &down, &[]).await, Verdict::Tell);
    assert_eq!(alert(&one, "s", &down).await, Verdict::Tell);
    assert_eq!(alert(&other, "s", &down).await, Verdict::Leave);
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
