//! The link over a real Redis: that dies, stops, refuses, and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use super::super::server::Redis;
use super::*;

/// More than any step takes, unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn link_to(redis: &Redis) -> Link {
    Link::open(&Secret::new(redis.url()), "here", || 0.5).unwrap()
}

async fn is(link: &Link, wanted: impl Fn(Option<Trouble>) -> bool) -> Option<Trouble> {
    let mut health = link.health();
    let seen = timeout(PATIENCE, health.wait_for(|health| wanted(health.trouble))).await;
    seen.expect("the link does not come to be so")
        .unwrap()
        .trouble
}

async fn joined(link: &Link) {
    is(link, |trouble| trouble.is_none()).await;
}

async fn away(link: &Link) -> Trouble {
    is(link, |trouble| {
        trouble.is_some_and(|trouble| trouble != Trouble::Joining)
    })
    .await
    .unwrap()
}

async fn set(link: &Link, limit: Duration) -> Result<(), LinkError> {
    link.command(limit, ::redis::cmd("SET").arg("failsoft:a").arg("b"))
        .await
}

#[tokio::test]
async fn it_joins_a_redis_that_comes_and_comes_back() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let link = link_to(&redis);
    assert_eq!(away(&link).await, Trouble::Unreachable);
    assert_eq!(set(&link, BEHIND).await, Err(LinkError::Away));
    for _ in 0..3 {
        redis.restart();
        joined(&link).await;
        assert_eq!(set(&link, BEHIND).await, Ok(()));
        assert_eq!(redis.tell(&["EXISTS", "failsoft:here:here"]), "1");
        // The one that it has, and one that was begun when the other was lost.
        assert!(redis.connections() <= 2, "{}", redis.connections());
        redis.kill();
        assert_eq!(away(&link).await, Trouble::Unreachable);
    }
}

#[tokio::test]
async fn a_redis_that_stands_still_holds_a_hot_path_for_its_limit_once() {
    let redis = Redis::start(&[]);
    let link = link_to(&redis);
    joined(&link).await;
    redis.pause();
    let asked = Instant::now();
    assert_eq!(set(&link, HOT).await, Err(LinkError::Away));
    assert!(asked.elapsed() >= HOT);
    // From then on nobody waits at all: a thousand cost less than the limit of two.
    let asked = Instant::now();
    for _ in 0..1000 {
        assert_eq!(set(&link, HOT).await, Err(LinkError::Away));
    }
    assert!(asked.elapsed() < 2 * HOT, "{:?}", asked.elapsed());
    assert_eq!(away(&link).await, Trouble::Unreachable);
    redis.go_on();
    joined(&link).await;
    assert_eq!(set(&link, BEHIND).await, Ok(()));
}

#[tokio::test]
async fn what_keeps_it_away_is_told_without_the_secret() {
    let replica: &[&str] = &["--replicaof", "127.0.0.1 1"];
    for (more, expected) in [
        (
            ["--requirepass", "canary-of-the-server"].as_slice(),
            Trouble::Unauthorized,
        ),
        (replica, Trouble::ReadOnly),
        (&["--min-replicas-to-write", "1"], Trouble::ReadOnly),
        (&["--maxmemory", "1"], Trouble::Full),
        (&["--rename-command", "HELLO", "other"], Trouble::Unknown),
    ] {
        let redis = Redis::start(more);
        let link = link_to(&redis);
        assert_eq!(away(&link).await, expected, "{more:?}");
        assert!(!expected.sentence().contains("canary"));
    }
    let refused = Link::open(
        &Secret::new("redis://:canary@host:notaport"),
        "here",
        || 0.5,
    )
    .err()
    .unwrap();
    assert!(!refused.contains("canary"), "{refused}");
}

#[tokio::test]
async fn one_that_reads_its_data_is_gone_on_without_and_joined_when_it_has() {
    // It answers between any two keys, and takes long for each: until it is told not to.
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
    let link = link_to(&redis);
    assert_eq!(away(&link).await, Trouble::Loading);
    assert_eq!(set(&link, BEHIND).await, Err(LinkError::Away));
    assert_eq!(redis.tell(&["CONFIG", "SET", "key-load-delay", "0"]), "OK");
    joined(&link).await;
    assert_eq!(set(&link, BEHIND).await, Ok(()));
}

#[tokio::test]
async fn what_a_command_alone_cannot_do_keeps_nothing_away() {
    let redis = Redis::start(&[]);
    let link = link_to(&redis);
    joined(&link).await;
    set(&link, BEHIND).await.unwrap();
    let wrong = link
        .command::<i64>(BEHIND, ::redis::cmd("LPUSH").arg("failsoft:a").arg(1))
        .await;
    assert_eq!(wrong, Err(LinkError::Refused));
    let typed = link
        .command::<i64>(BEHIND, ::redis::cmd("GET").arg("failsoft:a"))
        .await;
    assert_eq!(typed, Err(LinkError::Refused));
    assert!(link.is_up());
}

#[tokio::test]
async fn what_is_published_is_heard_also_over_a_new_connection() {
    let mut redis = Redis::start(&[]);
    let (speaker, listener) = (link_to(&redis), link_to(&redis));
    let mut heard = listener.hear("news");
    for word in ["one", "two"] {
        joined(&speaker).await;
        joined(&listener).await;
        // Said again until it is heard: the listener subscribes only once it has looked.
        let said = timeout(PATIENCE, async {
            loop {
                let _ = speaker.publish(BEHIND, "news", word.as_bytes()).await;
                if let Ok(Ok(said)) = timeout(HOT, heard.recv()).await {
                    break said;
                }
            }
        });
        assert_eq!(&*said.await.unwrap(), word.as_bytes());
        redis.restart();
        while heard.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn the_keeper_ends_with_the_last_link() {
    let redis = Redis::start(&[]);
    let link = link_to(&redis);
    joined(&link).await;
    let mut health = link.clone().health();
    drop(link);
    timeout(PATIENCE, async { while health.changed().await.is_ok() {} })
        .await
        .unwrap();
}
