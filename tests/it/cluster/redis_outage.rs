//! Redis in every kind of trouble: each instance goes on alone, says so, and hands over when it is well again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::slow_proxy::{Line, State};
use super::{Instance, history};
use crate::binary::alone;
use crate::binary::provider::{Manner, Provider, whole};
use crate::binary::service::ms;
use crate::binary::within;
use crate::binary::ws_client::Visitor;
use crate::harness::Redis;

/// What an answer may take while Redis is in trouble, on a machine that runs much else: far less than the two seconds of the slowest Redis.
const SOON: Duration = Duration::from_millis(1500);

/// The longest that a whole turn may wait for Redis, and what a busy machine may add: less than a second wait would.
const HOT: Duration = Duration::from_millis(50);
const MARGIN: Duration = Duration::from_millis(35);

/// How slow a line is on which each answer is late for who waits: each way.
const SLOW: Duration = Duration::from_millis(60);

/// Breaks Redis and mends it again.
struct Trouble {
    name: &'static str,
    breaks: fn(&mut Redis, &Line),
    mends: fn(&mut Redis, &Line),
    /// Whether it is one that an instance notices without asking.
    told: bool,
}

const TROUBLES: [Trouble; 6] = [
    Trouble {
        name: "killed",
        breaks: |redis, _| redis.kill(),
        mends: |redis, _| redis.restart(),
        told: true,
    },
    Trouble {
        name: "paused",
        breaks: |redis, _| redis.pause(),
        mends: |redis, _| redis.go_on(),
        told: true,
    },
    Trouble {
        name: "cut off",
        breaks: |_, line| line.now(State::Cut),
        mends: |_, line| line.now(State::Whole),
        told: true,
    },
    Trouble {
        name: "two seconds slow",
        breaks: |_, line| line.now(State::Slow(Duration::from_secs(2))),
        mends: |_, line| line.now(State::Whole),
        told: true,
    },
    Trouble {
        name: "read-only",
        breaks: |redis, _| drop(redis.tell(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
        mends: |redis, _| drop(redis.tell(&["CONFIG", "SET", "min-replicas-to-write", "0"])),
        told: true,
    },
    Trouble {
        name: "full of rubbish",
        breaks: |redis, _| {
            let script = "for _, key in ipairs(redis.call('KEYS', 'failsoft:*')) do redis.call('DEL', key) redis.call('LPUSH', key, 'rubbish') end";
            redis.tell(&["EVAL", script, "0"]);
        },
        mends: |redis, _| drop(redis.tell(&["FLUSHALL"])),
        told: false,
    },
];

#[tokio::test]
async fn in_every_trouble_the_chat_goes_on_alone_and_is_shared_again_after() {
    let mut redis = Redis::start(&[]);
    let (one_line, line) = (
        Line::to(redis.socket()).await,
        Line::to(redis.socket()).await,
    );
    let provider = Provider::start(Manner::Answer).await;
    let one = Instance::start(&provider, &one_line.url()).await;
    let other = Instance::start(&provider, &line.url()).await;
    for trouble in &TROUBLES {
        one.shares(true).await;
        other.shares(true).await;
        let mut visitor = Visitor::new(one.port()).await;
        visitor.ask("Before?").await;
        (trouble.breaks)(&mut redis, &one_line);
        let (mut slowest, mut durable) = (Duration::ZERO, false);
        for question in ["At once?", "Then?", "Later?"] {
            let asked = Instant::now();
            let shown = visitor.ask(question).await;
            slowest = slowest.max(asked.elapsed());
            assert_eq!(*shown.end("source"), "ai", "{}", trouble.name);
            durable |= shown.accepted.as_ref().unwrap()["durable"] == true;
        }
        println!(
            "Redis {}: the slowest of three answers took {}",
            trouble.name,
            ms(slowest)
        );
        // Its own disk has them, though a busy one may confirm one of them too late.
        assert!(durable, "{}", trouble.name);
        assert!(slowest < SOON, "{}: {slowest:?}", trouble.name);
        if trouble.told {
            one.shares(false).await;
        }
        (trouble.mends)(&mut redis, &one_line);
        one.shares(true).await;
        other.shares(true).await;
        if trouble.told {
            let whole_turns = |turns: &[Value]| {
                turns.len() == 4 && turns.iter().all(|turn| turn["state"] == "done")
            };
            let turns = history(other.port(), visitor.conversation(), whole_turns).await;
            assert_eq!(turns[3]["text"], whole("Later?"), "{}", trouble.name);
        }
    }
}

/// What one question takes, from the message to the end of its answer.
async fn asked(visitor: &mut Visitor) -> Duration {
    let begun = Instant::now();
    assert_eq!(*visitor.ask("How soon?").await.end("source"), "ai");
    begun.elapsed()
}

/// The middle of these.
fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

#[tokio::test]
async fn of_a_turns_steps_one_waits_for_redis_and_for_50_ms_at_most() {
    let _alone = alone().await;
    let redis = Redis::start(&[]);
    let line = Line::to(redis.socket()).await;
    let provider = Provider::start(Manner::Answer).await;
    let one = Instance::start(&provider, &line.url()).await;
    let mut visitor = Visitor::new(one.port()).await;
    // A Redis that stands still, and one that answers all, but later than anybody is made to wait.
    for stands_still in [true, false] {
        let (mut usual, mut first, mut then) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..8 {
            one.shares(true).await;
            usual.push(asked(&mut visitor).await);
            if stands_still {
                redis.pause()
            } else {
                line.now(State::Slow(SLOW))
            }
            first.push(asked(&mut visitor).await);
            if stands_still {
                one.shares(false).await;
            }
            for _ in 0..5 {
                then.push(asked(&mut visitor).await);
            }
            redis.go_on();
            line.now(State::Whole);
        }
        let (usual, then) = (median(usual), median(then));
        // Where the instance had just looked for itself, nobody had to wait. Of the others the quickest is the one that the machine held up least.
        first.retain(|took| *took >= HOT);
        let waited = first.into_iter().min().unwrap_or(HOT);
        // Where answers take long anyway, a wait more or less is not seen, and none is told from the machine's own.
        let margin = MARGIN.max(2 * usual);
        println!(
            "usually {}, the first {}, those after it {}",
            ms(usual),
            ms(waited),
            ms(then)
        );
        assert!(
            waited < usual + HOT + margin,
            "{waited:?}, usually {usual:?}"
        );
        assert!(then < usual + margin, "{then:?}, usually {usual:?}");
    }
}

#[tokio::test]
async fn a_redis_that_is_slow_all_the_time_is_told_as_slow_all_the_time() {
    let _alone = alone().await;
    let redis = Redis::start(&[]);
    let line = Line::to(redis.socket()).await;
    let provider = Provider::start(Manner::Answer).await;
    let one = Instance::start(&provider, &line.url()).await;
    one.shares(true).await;
    let mut visitor = Visitor::new(one.port()).await;
    line.now(State::Slow(SLOW));
    let slow = |status: &Value| {
        status["problems"]
            .to_string()
            .contains("Redis takes longer than 50 ms")
    };
    let told = async {
        while !slow(&one.service.status().await) {
            asked(&mut visitor).await;
        }
    };
    within("the status to tell that Redis is slow", told).await;
    // Each second it is tried again: this is long enough for some of those, and for it to be taken for well again if nobody tried it.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        asked(&mut visitor).await;
        let status = one.service.status().await;
        assert!(slow(&status), "{}", status["problems"]);
    }
    line.now(State::Whole);
    one.shares(true).await;
}

#[tokio::test]
async fn without_redis_at_the_start_an_instance_starts_alone_and_joins_later() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let provider = Provider::start(Manner::Answer).await;
    let one = Instance::start(&provider, &redis.url()).await;
    let mut visitor = Visitor::new(one.port()).await;
    assert_eq!(visitor.ask("Alone?").await.text, whole("Alone?"));
    one.shares(false).await;
    redis.restart();
    one.shares(true).await;
    let other = Instance::start(&provider, &redis.url()).await;
    let turns = history(other.port(), visitor.conversation(), |turns| {
        turns.len() == 1
    })
    .await;
    assert_eq!(turns[0]["text"], whole("Alone?"));
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let redis = Redis::start(&["--requirepass", "canary-server"]);
    let provider = Provider::start(Manner::Answer).await;
    let one = Instance::start(&provider, &format!("{}?pass=canary-mine", redis.url())).await;
    let status = one
        .service
        .status_when("the refusal", |status| {
            status["problems"].to_string().contains("password")
        })
        .await;
    assert!(!status.to_string().contains("canary"));
    assert!(
        Visitor::new(one.port())
            .await
            .ask("Still?")
            .await
            .end("source")
            == &json!("ai")
    );
    let logged = one.service.kill().await;
    assert!(
        logged.contains("Unauthorized") && !logged.contains("canary"),
        "{logged}"
    );
}
