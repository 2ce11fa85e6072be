//! Redis faults of every kind: each instance continues standalone, reports it, and hands its turns
//! over after the recovery.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::slow_proxy::{ProxyState, RedisProxy};
use super::{Instance, wait_for_history};
use crate::binary::exclusive;
use crate::binary::provider::{Behavior, Provider, full_answer};
use crate::binary::service::ms;
use crate::binary::wait_for;
use crate::binary::ws_client::Visitor;
use crate::harness::RedisServer;

/// The longest answer during a fault, on a busy machine: less than the two seconds of the slowest
/// Redis.
const MAX_ANSWER_TIME: Duration = Duration::from_millis(1500);

/// The longest that a whole turn may wait for Redis, and the tolerance for a busy machine. Both
/// together are less than two waits.
const MAX_WAIT: Duration = Duration::from_millis(50);
const MARGIN: Duration = Duration::from_millis(35);

/// The delay, in each direction, at which every reply of Redis comes too late.
const SLOW_DELAY: Duration = Duration::from_millis(60);

struct Fault {
    name: &'static str,
    breaks: fn(&mut RedisServer, &RedisProxy),
    mends: fn(&mut RedisServer, &RedisProxy),
    /// The instances notice the fault without a request to Redis.
    is_noticed: bool,
}

const FAULTS: [Fault; 6] = [
    Fault {
        name: "killed",
        breaks: |redis, _| redis.kill(),
        mends: |redis, _| redis.restart(),
        is_noticed: true,
    },
    Fault {
        name: "paused",
        breaks: |redis, _| redis.pause(),
        mends: |redis, _| redis.resume(),
        is_noticed: true,
    },
    Fault {
        name: "cut off",
        breaks: |_, proxy| proxy.set_state(ProxyState::Cut),
        mends: |_, proxy| proxy.set_state(ProxyState::Open),
        is_noticed: true,
    },
    Fault {
        name: "two seconds slow",
        breaks: |_, proxy| proxy.set_state(ProxyState::Slow(Duration::from_secs(2))),
        mends: |_, proxy| proxy.set_state(ProxyState::Open),
        is_noticed: true,
    },
    Fault {
        name: "read-only",
        breaks: |redis, _| drop(redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
        mends: |redis, _| drop(redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"])),
        is_noticed: true,
    },
    Fault {
        name: "full of rubbish",
        breaks: |redis, _| {
            let script = "for _, key in ipairs(redis.call('KEYS', 'failsoft:*')) do redis.call('DEL', key) redis.call('LPUSH', key, 'rubbish') end";
            redis.command(&["EVAL", script, "0"]);
        },
        mends: |redis, _| drop(redis.command(&["FLUSHALL"])),
        is_noticed: false,
    },
];

#[tokio::test]
async fn during_every_redis_fault_the_chat_continues_and_is_shared_again_afterwards() {
    let mut redis = RedisServer::start(&[]);
    let proxy = RedisProxy::start(redis.socket()).await;
    let other_proxy = RedisProxy::start(redis.socket()).await;
    let provider = Provider::start(Behavior::Answer).await;
    let first = Instance::start(&provider, &proxy.url()).await;
    let second = Instance::start(&provider, &other_proxy.url()).await;
    for fault in &FAULTS {
        first.wait_until_shared().await;
        second.wait_until_shared().await;
        let mut visitor = Visitor::new(first.port()).await;
        visitor.ask("Before?").await;
        (fault.breaks)(&mut redis, &proxy);
        let mut slowest = Duration::ZERO;
        let mut durable = false;
        for question in ["At once?", "Then?", "Later?"] {
            let asked = Instant::now();
            let shown = visitor.ask(question).await;
            slowest = slowest.max(asked.elapsed());
            assert_eq!(*shown.done_field("source"), "ai", "{}", fault.name);
            durable |= shown.accepted.as_ref().unwrap()["durable"] == true;
        }
        println!(
            "Redis {}: the slowest of three answers took {}",
            fault.name,
            ms(slowest)
        );
        // The local disk has them, although a busy disk may confirm one of them too late.
        assert!(durable, "{}", fault.name);
        assert!(slowest < MAX_ANSWER_TIME, "{}: {slowest:?}", fault.name);
        if fault.is_noticed {
            first.wait_until_standalone().await;
        }
        (fault.mends)(&mut redis, &proxy);
        first.wait_until_shared().await;
        second.wait_until_shared().await;
        if fault.is_noticed {
            let all_done = |turns: &[Value]| {
                turns.len() == 4 && turns.iter().all(|turn| turn["state"] == "done")
            };
            let turns = wait_for_history(second.port(), visitor.conversation(), all_done).await;
            assert_eq!(turns[3]["text"], full_answer("Later?"), "{}", fault.name);
        }
    }
}

/// Asks a question, and returns the time to the end of its answer.
async fn time_to_ask(visitor: &mut Visitor) -> Duration {
    let started = Instant::now();
    assert_eq!(*visitor.ask("How soon?").await.done_field("source"), "ai");
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_turn_waits_for_a_slow_redis_once_and_at_most_50_ms() {
    let _exclusive = exclusive().await;
    let redis = RedisServer::start(&[]);
    let proxy = RedisProxy::start(redis.socket()).await;
    let provider = Provider::start(Behavior::Answer).await;
    let instance = Instance::start(&provider, &proxy.url()).await;
    let mut visitor = Visitor::new(instance.port()).await;
    // A Redis that is stopped, and one whose every reply comes too late.
    for is_paused in [true, false] {
        let mut usual = Vec::new();
        let mut first = Vec::new();
        let mut later = Vec::new();
        for _ in 0..8 {
            instance.wait_until_shared().await;
            usual.push(time_to_ask(&mut visitor).await);
            if is_paused {
                redis.pause()
            } else {
                proxy.set_state(ProxyState::Slow(SLOW_DELAY))
            }
            first.push(time_to_ask(&mut visitor).await);
            if is_paused {
                instance.wait_until_standalone().await;
            }
            for _ in 0..5 {
                later.push(time_to_ask(&mut visitor).await);
            }
            redis.resume();
            proxy.set_state(ProxyState::Open);
        }
        let usual = median(usual);
        let later = median(later);
        // If the instance had just polled Redis itself, no turn had to wait. The machine delayed
        // the quickest of the others least.
        first.retain(|took| *took >= MAX_WAIT);
        let waited = first.into_iter().min().unwrap_or(MAX_WAIT);
        // If answers take long anyway, a wait is within the machine's own variation.
        let margin = MARGIN.max(2 * usual);
        println!(
            "usually {}, the first {}, those after it {}",
            ms(usual),
            ms(waited),
            ms(later)
        );
        assert!(
            waited < usual + MAX_WAIT + margin,
            "{waited:?}, usually {usual:?}"
        );
        assert!(later < usual + margin, "{later:?}, usually {usual:?}");
    }
}

#[tokio::test]
async fn a_constantly_slow_redis_stays_reported_as_slow() {
    let _exclusive = exclusive().await;
    let redis = RedisServer::start(&[]);
    let proxy = RedisProxy::start(redis.socket()).await;
    let provider = Provider::start(Behavior::Answer).await;
    let instance = Instance::start(&provider, &proxy.url()).await;
    instance.wait_until_shared().await;
    let mut visitor = Visitor::new(instance.port()).await;
    proxy.set_state(ProxyState::Slow(SLOW_DELAY));
    let slow = |status: &Value| {
        status["problems"]
            .to_string()
            .contains("Redis takes longer than 50 ms")
    };
    let reported = async {
        while !slow(&instance.service.status().await) {
            time_to_ask(&mut visitor).await;
        }
    };
    wait_for("the status to report a slow Redis", reported).await;
    // Redis is tried each second: this is long enough for several tries, and for the problem to
    // disappear if none were made.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        time_to_ask(&mut visitor).await;
        let status = instance.service.status().await;
        assert!(slow(&status), "{}", status["problems"]);
    }
    proxy.set_state(ProxyState::Open);
    instance.wait_until_shared().await;
}

#[tokio::test]
async fn an_instance_starts_without_redis_and_joins_later() {
    let mut redis = RedisServer::start(&[]);
    redis.kill();
    let provider = Provider::start(Behavior::Answer).await;
    let instance = Instance::start(&provider, &redis.url()).await;
    let mut visitor = Visitor::new(instance.port()).await;
    assert_eq!(visitor.ask("Alone?").await.text, full_answer("Alone?"));
    instance.wait_until_standalone().await;
    redis.restart();
    instance.wait_until_shared().await;
    let other = Instance::start(&provider, &redis.url()).await;
    let turns = wait_for_history(other.port(), visitor.conversation(), |turns| {
        turns.len() == 1
    })
    .await;
    assert_eq!(turns[0]["text"], full_answer("Alone?"));
}

#[tokio::test]
async fn a_wrong_redis_password_is_reported_without_the_password() {
    let redis = RedisServer::start(&["--requirepass", "canary-server"]);
    let provider = Provider::start(Behavior::Answer).await;
    let instance = Instance::start(&provider, &format!("{}?pass=canary-mine", redis.url())).await;
    let status = instance
        .service
        .wait_for_status("the refusal", |status| {
            status["problems"].to_string().contains("password")
        })
        .await;
    assert!(!status.to_string().contains("canary"));
    assert!(
        Visitor::new(instance.port())
            .await
            .ask("Still?")
            .await
            .done_field("source")
            == &json!("ai")
    );
    let logged = instance.service.kill().await;
    assert!(
        logged.contains("Unauthorized") && !logged.contains("canary"),
        "{logged}"
    );
}
