//! The client on a real Redis that dies, stops, rejects commands and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use super::super::server::RedisServer;
use super::*;

/// Longer than any step takes.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

fn client_for(redis: &RedisServer) -> RedisClient {
    RedisClient::open(&Secret::new(redis.url()), "here", || 0.5).unwrap()
}

async fn wait_for(
    client: &RedisClient,
    matches: impl Fn(Option<OutageReason>) -> bool,
) -> Option<OutageReason> {
    let mut health = client.health();
    let state = timeout(
        STEP_TIMEOUT,
        health.wait_for(|health| matches(health.outage)),
    )
    .await;
    state
        .expect("the expected state is never reached")
        .unwrap()
        .outage
}

async fn connected(client: &RedisClient) {
    wait_for(client, |trouble| trouble.is_none()).await;
}

async fn outage(client: &RedisClient) -> OutageReason {
    wait_for(client, |trouble| {
        trouble.is_some_and(|trouble| trouble != OutageReason::Joining)
    })
    .await
    .unwrap()
}

async fn set(client: &RedisClient, limit: Duration) -> Result<(), RedisCallError> {
    client
        .command(limit, ::redis::cmd("SET").arg("failsoft:a").arg("b"))
        .await
}

#[tokio::test]
async fn client_connects_to_a_redis_that_starts_late_and_reconnects() {
    let mut redis = RedisServer::start(&[]);
    redis.kill();
    let client = client_for(&redis);
    assert_eq!(outage(&client).await, OutageReason::Unreachable);
    assert_eq!(
        set(&client, BACKGROUND_TIMEOUT).await,
        Err(RedisCallError::Unavailable)
    );
    for _ in 0..3 {
        redis.restart();
        connected(&client).await;
        assert_eq!(set(&client, BACKGROUND_TIMEOUT).await, Ok(()));
        assert_eq!(redis.command(&["EXISTS", "failsoft:here:here"]), "1");
        // The current one, and one that was being made when the other was lost.
        assert!(
            redis.client_connections() <= 2,
            "{}",
            redis.client_connections()
        );
        redis.kill();
        assert_eq!(outage(&client).await, OutageReason::Unreachable);
    }
}

#[tokio::test]
async fn a_redis_that_stands_still_holds_a_hot_path_for_its_limit_once() {
    let redis = RedisServer::start(&[]);
    let client = client_for(&redis);
    connected(&client).await;
    redis.pause();
    let started = Instant::now();
    assert_eq!(
        set(&client, HOT_PATH_TIMEOUT).await,
        Err(RedisCallError::Unavailable)
    );
    assert!(started.elapsed() >= HOT_PATH_TIMEOUT);
    // After that no call waits: a thousand calls take less than two timeouts.
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(
            set(&client, HOT_PATH_TIMEOUT).await,
            Err(RedisCallError::Unavailable)
        );
    }
    assert!(
        started.elapsed() < 2 * HOT_PATH_TIMEOUT,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(outage(&client).await, OutageReason::Unreachable);
    redis.resume();
    connected(&client).await;
    assert_eq!(set(&client, BACKGROUND_TIMEOUT).await, Ok(()));
}

#[tokio::test]
async fn outage_reason_is_reported_without_secrets() {
    let replica: &[&str] = &["--replicaof", "127.0.0.1 1"];
    for (arguments, expected) in [
        (
            ["--requirepass", "canary-of-the-server"].as_slice(),
            OutageReason::Unauthorized,
        ),
        (replica, OutageReason::ReadOnly),
        (&["--min-replicas-to-write", "1"], OutageReason::ReadOnly),
        (&["--maxmemory", "1"], OutageReason::Full),
        (
            &["--rename-command", "HELLO", "other"],
            OutageReason::Unknown,
        ),
    ] {
        let redis = RedisServer::start(arguments);
        let client = client_for(&redis);
        assert_eq!(outage(&client).await, expected, "{arguments:?}");
        assert!(!expected.describe().contains("canary"));
    }
    let error = RedisClient::open(
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
    let mut redis = RedisServer::start(&[&slowly[..], &["--rdbcompression", "no"]].concat());
    let fill = "for i = 1, 2000 do redis.call('SET', 'other:' .. i, string.rep('x', 1024)) end";
    redis.command(&["EVAL", fill, "0"]);
    assert_eq!(redis.command(&["SAVE"]), "OK");
    redis.restart();
    let client = client_for(&redis);
    assert_eq!(outage(&client).await, OutageReason::Loading);
    assert_eq!(
        set(&client, BACKGROUND_TIMEOUT).await,
        Err(RedisCallError::Unavailable)
    );
    assert_eq!(
        redis.command(&["CONFIG", "SET", "key-load-delay", "0"]),
        "OK"
    );
    connected(&client).await;
    assert_eq!(set(&client, BACKGROUND_TIMEOUT).await, Ok(()));
}

#[tokio::test]
async fn rejected_command_does_not_mark_redis_as_down() {
    let redis = RedisServer::start(&[]);
    let client = client_for(&redis);
    connected(&client).await;
    set(&client, BACKGROUND_TIMEOUT).await.unwrap();
    let wrong = client
        .command::<i64>(
            BACKGROUND_TIMEOUT,
            ::redis::cmd("LPUSH").arg("failsoft:a").arg(1),
        )
        .await;
    assert_eq!(wrong, Err(RedisCallError::Rejected));
    let typed = client
        .command::<i64>(BACKGROUND_TIMEOUT, ::redis::cmd("GET").arg("failsoft:a"))
        .await;
    assert_eq!(typed, Err(RedisCallError::Rejected));
    assert!(client.is_up());
}

#[tokio::test]
async fn subscription_survives_a_reconnect() {
    let mut redis = RedisServer::start(&[]);
    let publisher = client_for(&redis);
    let subscriber = client_for(&redis);
    let mut messages = subscriber.subscribe("news");
    for word in ["one", "two"] {
        connected(&publisher).await;
        connected(&subscriber).await;
        // Repeated until it is received: the subscriber only subscribes at its next ping.
        let received = timeout(STEP_TIMEOUT, async {
            loop {
                let _ = publisher
                    .publish(BACKGROUND_TIMEOUT, "news", word.as_bytes())
                    .await;
                if let Ok(Ok(message)) = timeout(HOT_PATH_TIMEOUT, messages.recv()).await {
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
    let redis = RedisServer::start(&[]);
    let client = client_for(&redis);
    connected(&client).await;
    let mut health = client.clone().health();
    drop(client);
    timeout(STEP_TIMEOUT, async {
        while health.changed().await.is_ok() {}
    })
    .await
    .unwrap();
}
