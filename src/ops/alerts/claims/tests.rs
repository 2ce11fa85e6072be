//! Claims over a real Redis.

use super::*;
use crate::config::Secret;
use crate::provider::paused_system::run_until_idle;
use crate::store::server::RedisServer;

async fn connected(redis: &RedisServer, name: &str) -> AlertClaims {
    let link = RedisClient::open(&Secret::new(redis.url()), name, || 0.5).unwrap();
    let mut health = link.health();
    let up = health.wait_for(|health| health.is_up());
    tokio::time::timeout(Duration::from_secs(20), up)
        .await
        .unwrap()
        .unwrap();
    AlertClaims::new(link, name.into())
}

fn matter(level: AlertSeverity, staged: bool) -> AlertKey {
    AlertKey {
        subject: AlertSubject::Provider("a".into()),
        severity: level,
        is_drill: staged,
    }
}

async fn claim(claims: &AlertClaims, sinks: &str, alert: &AlertKey) -> AlertOwnership {
    claims.claim(sinks, alert).await.unwrap()
}

/// Simulates the death of an instance: nobody renews its heartbeat.
async fn kill_instance(redis: &RedisServer, claims: AlertClaims, name: &str) {
    drop(claims);
    // The connection monitor must end first, or it would renew the key.
    run_until_idle().await;
    redis.command(&["DEL", &format!("{PREFIX}{HEARTBEAT_KEY}{name}")]);
}

#[tokio::test]
async fn one_instance_sends_and_the_others_defer_to_it() {
    let redis = RedisServer::start(&[]);
    let one = connected(&redis, "one").await;
    let other = connected(&redis, "other").await;
    let down = matter(1, false);
    assert_eq!(claim(&one, "s", &down).await, AlertOwnership::Send);
    assert_eq!(
        claim(&other, "s", &down).await,
        AlertOwnership::OwnedElsewhere
    );
    assert_eq!(
        claim(&one, "s", &down).await,
        AlertOwnership::Send,
        "the owner may send again"
    );
    // Separate claims: another severity, a drill, other sinks.
    assert_eq!(
        claim(&other, "s", &matter(2, false)).await,
        AlertOwnership::Send
    );
    assert_eq!(
        claim(&other, "s", &matter(1, true)).await,
        AlertOwnership::Send
    );
    assert_eq!(claim(&other, "t", &down).await, AlertOwnership::Send);
    assert_eq!(
        other.release("s", &down, &[]).await,
        AlertOwnership::OwnedElsewhere,
        "the recovery is the owner's too"
    );
    assert_eq!(one.release("s", &down, &[]).await, AlertOwnership::Send);
    assert_eq!(
        other.release("s", &down, &[]).await,
        AlertOwnership::OwnedElsewhere,
        "also when noticed later"
    );
    let left: u64 = redis
        .command(&["PTTL", &redis_key("s", &down)])
        .parse()
        .unwrap();
    assert!(left > 0 && left <= millis(RECOVERY_CLAIM_TTL), "{left}");
    let interval = Duration::from_secs(300);
    assert_eq!(
        one.claim_summary("s", &down, interval).await,
        AlertOwnership::Send
    );
    assert_eq!(
        other.claim_summary("s", &down, interval).await,
        AlertOwnership::OwnedElsewhere
    );
}

#[tokio::test]
async fn alerts_of_a_dead_instance_are_taken_over_once() {
    let redis = RedisServer::start(&[]);
    let down = matter(1, false);
    for is_sent in [false, true] {
        for is_over in [false, true] {
            let one = connected(&redis, "one").await;
            let other = connected(&redis, "other").await;
            redis.command(&["DEL", &redis_key("s", &down)]);
            claim(&one, "s", &down).await;
            one.renew("s", &BTreeMap::from([(down.clone(), is_sent)]))
                .await;
            let third = connected(&redis, "third").await;
            third
                .renew("s", &BTreeMap::from([(down.clone(), false)]))
                .await;
            assert_eq!(
                claim(&third, "s", &down).await,
                AlertOwnership::OwnedElsewhere,
                "a renewal takes no claim away"
            );
            kill_instance(&redis, one, "one").await;
            let taken = if is_over {
                other.release("s", &down, &[]).await
            } else {
                claim(&other, "s", &down).await
            };
            // An unsent alert is sent; a sent one is taken over.
            assert_eq!(
                taken,
                if is_sent {
                    AlertOwnership::TakeOver
                } else {
                    AlertOwnership::Send
                },
                "sent {is_sent}, over {is_over}"
            );
            let then = if is_over {
                third.release("s", &down, &[]).await
            } else {
                claim(&third, "s", &down).await
            };
            assert_eq!(
                then,
                AlertOwnership::OwnedElsewhere,
                "only one instance takes over"
            );
        }
    }
}

#[tokio::test]
async fn without_redis_every_instance_sends_and_invalid_values_are_overwritten() {
    let mut redis = RedisServer::start(&[]);
    let one = connected(&redis, "one").await;
    let other = connected(&redis, "other").await;
    let down = matter(1, false);
    redis.command(&["LPUSH", &redis_key("s", &down), "rubbish"]);
    assert_eq!(one.release("s", &down, &[]).await, AlertOwnership::Send);
    assert_eq!(claim(&one, "s", &down).await, AlertOwnership::Send);
    assert_eq!(
        claim(&other, "s", &down).await,
        AlertOwnership::OwnedElsewhere
    );
    redis.kill();
    for claims in [&one, &other] {
        assert_eq!(claims.claim("s", &down).await, None);
        assert_eq!(
            claims
                .claim_summary("s", &down, Duration::from_secs(1))
                .await,
            AlertOwnership::Send
        );
        assert_eq!(claims.release("s", &down, &[]).await, AlertOwnership::Send);
    }
}
