//! The client on a real Redis that dies, stops, rejects commands and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use super::super::server::Redis;
use super::*;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn link_to(redis: &Redis) -> Link {
    Link::open(&Secret::new(redis.url()), "here", || 0.5).unwrap()
}

async fn wait_for(client: &Link, matches: impl Fn(Option<Trouble>) -> bool) -> Option<Trouble> {
    let mut health = client.health();
    let state = timeout(PATIENCE, health.wait_for(|health| matches(health.trouble))).await;
    state
        .expect("the expected state is never reached")
        .unwrap()
        .trouble
}

async fn connected(client: &Link) {
    wait_for(client, |trouble| trouble.is_none()).await;
}

async fn outage(client: &Link) -> Trouble {
    wait_for(client, |trouble| {
        trouble.is_some_and(|trouble| trouble != Trouble::Joining)
    })
    .await
    .unwrap()
}

async fn set(client: &Link, limit: Duration) -> Result<(), LinkError> {
    client
        .command(limit, ::redis::cmd("SET").arg("failsoft:a").arg("b"))
        .await
}

#[tokio::test]
async fn client_connects_to_a_redis_that_starts_late_and_reconnects() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let client = link_to(&redis);
    assert_eq!(outage(&client).await, Trouble::Unreachable);
    assert_eq!(set(&client, BEHIND).await, Err(LinkError::Away));
    for _ in 0..3 {
        redis.restart();
        connected(&client).await;
        assert_eq!(set(&client, BEHIND).await, Ok(()));
        assert_eq!(redis.tell(&["EXISTS", "failsoft:here:here"]), "1");
        // The current one, and one that was being made when the other was lost.
        assert!(redis.connections() <= 2, "{}", redis.connections());
        redis.kill();
        assert_eq!(outage(&client).await, Trouble::Unreachable);
    }
}

#[tokio::test]
async fn a_redis_that_stands_still_holds_a_hot_path_for_its_limit_once() {
    let redis = Redis::start(&[]);
    let client = link_to(&redis);
    connected(&client).await;
    redis.pause();
    let started = Instant::now();
    assert_eq!(set(&client, HOT).await, Err(LinkError::Away));
    assert!(started.elapsed() >= HOT);
    // After that no call waits: a thousand calls take less than two timeouts.
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(set(&client, HOT).await, Err(LinkError::Away));
    }
    assert!(started.elapsed() < 2 * HOT, "{:?}", started.elapsed());
    assert_eq!(outage(&client).await, Trouble::Unreachable);
    redis.go_on();
    connected(&client).await;
    assert_eq!(set(&client, BEHIND).await, Ok(()));
}

#[tokio::test]
async fn outage_reason_is_reported_without_secrets() {
    let replica: &[&str] = &["--replicaof", "127.0.0.1 1"];
    for (arguments, expected) in [
        (
            ["--requirepass", "canary-of-the-server"].as_slice(),
            Trouble::Unauthorized,
        ),
        (replica, Trouble::ReadOnly),
        (&["--min-replicas-to-write", "1"], Trouble::ReadOnly),
        (&["--maxmemory", "1"], Trouble::Full),
        (&["--rename-command", "HELLO", "other"], Trouble::Unknown),
    ] {
        let redis = Redis::start(arguments);
        let client = link_to(&redis);
        assert_eq!(outage(&client).await, expected, "{arguments:?}");
        assert!(!expected.sentence().contains("canary"));
    }
    let error = Link::open(
        &Secret::new("redis://:canary@host:notaport"),
        "here",
        || 0.5,
    )
    .err()
    .unwrap();
    assert!(!error.contains("canary"), "{error}");
}

#[tokio::test]
async fn loading_redis_is_unavailable_until_it_has_loaded() {
    // Redis answers between two keys and loads each slowly, until the delay is set to 0.
    let slowly = [
        "--key-load-delay",
        "20000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut redis = Redis::start(&[&slowly[..], &["--rdbcompression", "no"]].concat());
    let fill = "for i = 1, 2000 do redis.call('SET', 'other:' .. i, string.rep('x', 1024)) end";
    redis.tell(&["EVAL", fill, "0"]);
    assert_eq!(redis.tell(&["SAVE"]), "OK");
    redis.restart();
    let client = link_to(&redis);
    assert_eq!(outage(&client).await, Trouble::Loading);
    assert_eq!(set(&client, BEHIND).await, Err(LinkError::Away));
    assert_eq!(redis.tell(&["CONFIG", "SET", "key-load-delay", "0"]), "OK");
    connected(&client).await;
    assert_eq!(set(&client, BEHIND).await, Ok(()));
}

#[tokio::test]
async fn rejected_command_does_not_mark_redis_as_down() {
    let redis = Redis::start(&[]);
    let client = link_to(&redis);
    connected(&client).await;
    set(&client, BEHIND).await.unwrap();
    let wrong = client
        .command::<i64>(BEHIND, ::redis::cmd("LPUSH").arg("failsoft:a").arg(1))
        .await;
    assert_eq!(wrong, Err(LinkError::Refused));
    let typed = client
        .command::<i64>(BEHIND, ::redis::cmd("GET").arg("failsoft:a"))
        .await;
    assert_eq!(typed, Err(LinkError::Refused));
    assert!(client.is_up());
}

#[tokio::test]
async fn subscription_survives_a_reconnect() {
    let mut redis = Redis::start(&[]);
    let publisher = link_to(&redis);
    let subscriber = link_to(&redis);
    let mut messages = subscriber.hear("news");
    for word in ["one", "two"] {
        connected(&publisher).await;
        connected(&subscriber).await;
        // Repeated until it is received: the subscriber only subscribes at its next ping.
        let received = timeout(PATIENCE, async {
            loop {
                let _ = publisher.publish(BEHIND, "news", word.as_bytes()).await;
                if let Ok(Ok(message)) = timeout(HOT, messages.recv()).await {
                    break message;
                }
            }
        });
        assert_eq!(&*received.await.unwrap(), word.as_bytes());
        redis.restart();
        while messages.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn monitor_ends_when_the_last_client_is_dropped() {
    let redis = Redis::start(&[]);
    let client = link_to(&redis);
    connected(&client).await;
    let mut health = client.clone().health();
    drop(client);
    timeout(PATIENCE, async { while health.changed().await.is_ok() {} })
        .await
        .unwrap();
}
